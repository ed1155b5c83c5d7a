import { z } from 'zod'

import type { ImagePaths, Loader, LoaderOptions } from '../data/index.js'
import { expected, SettingsError } from '../errors.js'
import { isDevice, type Device } from '../torch/types.js'
import { visionTransformers, type VisionTransformerName } from '../vision/index.js'
import type { LoopHooks } from './reports.js'

/** Whether something names a device that can compute. */
export const isComputing = (value: unknown): value is Exclude<Device, 'meta'> => isDevice(value) && value !== 'meta'

export const positiveInteger = z.int().min(1)
export const part = z.number().min(0).max(1)
export const modelName = z.enum(Object.keys(visionTransformers) as [VisionTransformerName, ...VisionTransformerName[]])

const path = z.string().min(1)
const manyPaths = z.array(z.union([path, z.strictObject({ path, weight: z.number().positive().optional() })])).min(1)

/** One path of images or several, with or without weights. */
export const imagePaths = z.custom<ImagePaths>(
  (value) => z.union([path, manyPaths]).safeParse(value).success,
  'a path, or a list of paths or of { path, weight } with weights above 0,'
)

const weightedPaths = (images: ImagePaths) =>
  (typeof images === 'string' ? [images] : images).map((entry) => (typeof entry === 'string' ? { path: entry, weight: undefined } : entry))

/** Images of a run as arguments of a command: `photos`, `more.parquet=2`. */
export const writePaths = (images: ImagePaths): string[] =>
  weightedPaths(images).map(({ path, weight }) => (weight === undefined ? path : `${path}=${weight}`))

/** {@link writePaths} the other way round. A path that ends in an equals sign and a number can only be given in a list of objects. */
export function readPaths(texts: readonly string[]): ImagePaths {
  const paths = texts.map((text) => {
    const [, path, weight] = /^(.+)=(\d+(?:\.\d+)?)$/.exec(text) ?? []
    return path === undefined ? text : { path, weight: Number(weight) }
  })
  return paths.length === 1 && typeof paths[0] === 'string' ? paths[0] : paths
}

/** The weights of a run's images, in their order; null for each without. */
export const weightsOf = (images: ImagePaths): (number | null)[] => weightedPaths(images).map(({ weight }) => weight ?? null)

/** Smallest and largest part of the image in a crop. @param fallback - The default. */
export const cropScale = (fallback: [number, number]) =>
  z
    .tuple([part.positive(), part.positive()])
    .refine(([smallest, largest]) => smallest <= largest, 'the smaller part first')
    .default(fallback)
    .describe('smallest and largest part of the image in a crop')

const notNegative = z.number().min(0)

/** How the views of pretraining are made of images, by default as the method's authors make them. */
export const viewFields = {
  cropScale: cropScale([0.05, 1]),
  flip: part.default(0.5).describe('how often a view is mirrored left to right'),
  jitter: part.default(0.3).describe('how often the colours of a view are changed'),
  jitterStrength: z
    .tuple([notNegative, notNegative, notNegative, notNegative.max(0.5)])
    .default([0.1, 0.1, 0.1, 0.01])
    .meta({
      description: 'by how much at most: brightness, contrast, saturation (parts), hue (part of the circle, to 0.5)', placeholder: 'list'
    }),
  blur: part.default(0.1).describe('how often a view is blurred'),
  blurSigma: z
    .tuple([z.number().positive(), z.number().positive()])
    .refine(([smallest, largest]) => smallest <= largest, 'the smaller sigma first')
    .default([0.1, 2])
    .describe('smallest and largest sigma of the blur in pixels'),
  solarize: part.default(0).describe('how often the bright parts of a view are inverted (DINO: 0.2 of one view)'),
  solarizeThreshold: part.default(0.5).describe('value that they begin at')
}

/** Where a training computes, and what it reads there. */
export const machineFields = {
  device: z
    .custom<Exclude<Device, 'meta'> | 'auto'>((value) => value === 'auto' || isComputing(value), `'auto', 'cpu', 'cuda' or 'cuda:N'`)
    .default('auto')
    .describe('auto | cpu | cuda[:N]'),
  amp: z.enum(['auto', 'off', 'bf16', 'fp16']).default('auto').describe('mixed precision; auto: bf16 where it measures faster'),
  workers: z.int().min(0).default(4).describe("threads that read and decode images; 0 = none but Node's own for files"),
  hold: notNegative
    .default(0)
    .describe('GB of the device for decoded images: where all fit they are decoded once and held there, and nothing is loaded any more; 0 = never'),
  maxBroken: part.default(0.01).describe('part of the images that may be broken before the run stops, at least one image; 0 = none'),
  dataTimeout: z.number().positive().default(300).describe('seconds without a single image at which the run stops; there is word of it before'),
  threads: positiveInteger.optional().describe('CPU threads of libtorch (default: all cores)')
}

/** How images are loaded: settings of the machine, and who is told. */
export function loadingOptions(
  { workers, maxBroken, dataTimeout }: { readonly workers: number; readonly maxBroken: number; readonly dataTimeout: number },
  { onBroken, onNotice }: Pick<LoopHooks, 'onBroken' | 'onNotice'>
): Pick<LoaderOptions, 'workers' | 'maxBroken' | 'dataTimeout' | 'onBroken' | 'onNotice'> {
  return { workers, maxBroken, dataTimeout, ...(onBroken && { onBroken }), ...(onNotice && { onNotice }) }
}

/** Holds the images on the device where the settings say so and they fit: see {@link Loader.hold}. */
export async function holdAsSet(loader: Loader, { hold }: { readonly hold: number }, { signal }: Pick<LoopHooks, 'signal'>): Promise<void> {
  if (hold > 0) await loader.hold(hold * 1e9, signal)
}

/** What saves memory. */
export const memoryFields = {
  accumulate: positiveInteger
    .default(1)
    .describe('parts of a batch that are computed one after the other: less memory, the same up to rounding and dropped paths'),
  gradCheckpointing: z.boolean().default(false).describe('compute blocks again in backward: less memory, more time, the same result')
}

/** Whether the steps of a training are captured. */
export const graphField = {
  graph: z
    .enum(['auto', 'on', 'off'])
    .default('auto')
    .describe('replay steps as a CUDA graph: less work for the host, the same result; auto: on a GPU, without --grad-checkpointing')
}

/** What a training writes down, and how it goes on. */
export const loopFields = {
  tensorboard: z.boolean().default(false).describe('write events for TensorBoard beside metrics.jsonl'),
  profile: z.int().min(0).default(0).describe('steps to record, after five, for a trace in profile/ of the run; 0 = none'),
  logEvery: positiveInteger.default(10).describe('steps between lines of metrics.jsonl'),
  checkpointEvery: positiveInteger.default(1).describe('epochs between checkpoints'),
  checkpointSteps: z.int().min(0).default(0).describe('steps between further checkpoints; 0 = none'),
  checkpointMinutes: z.number().min(0).default(15).describe('minutes after the last checkpoint until a further one; 0 = none'),
  keepLast: positiveInteger.default(2).describe('newest checkpoints to keep'),
  keepEvery: z.int().min(0).default(0).describe('keep also the checkpoint of every so many epochs; 0 = none'),
  keepBest: z.boolean().default(false).describe('keep also the one that is best on held-out images (where none are: of the lowest loss)'),
  maxSkipped: positiveInteger.default(20).describe('steps in a row without a finite loss and gradient at which the run stops'),
  override: z.boolean().default(false).describe('resume with other settings, although they change the result'),
  resume: z.boolean().default(false).describe('go on from the newest checkpoint of the run')
}

/** What may differ between any training and its continuation without changing what is computed (epochs: may grow; the schedules are stretched). */
export const changeableInAll = [
  'out', 'epochs', 'device', 'workers', 'maxBroken', 'dataTimeout', 'threads', 'tensorboard', 'profile', 'logEvery', 'gradCheckpointing', 'graph',
  'checkpointEvery', 'checkpointSteps', 'checkpointMinutes', 'keepLast', 'keepEvery', 'keepBest', 'maxSkipped', 'override', 'resume'
] as const

/** The settings of one kind of training. */
export interface SettingsKind<Schema extends z.ZodObject> {
  readonly schema: Schema
  /** What may differ in a continuation, besides {@link changeableInAll}. */
  readonly changeable: readonly (keyof z.output<Schema>)[]
  /** What the weights, the optimizer's state and the place of a step in its epoch stand on: not even `override` can change it. */
  readonly fixed: readonly (keyof z.output<Schema>)[]
}

/** What a run settles once and keeps in config.json beside its settings. */
export const settledNames = ['encoder', 'precision', 'imageCount', 'imagesSha256', 'versions'] as const

/** The settings in a run's config.json. */
export const withoutSettled = (saved: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(saved).filter(([name]) => !(settledNames as readonly string[]).includes(name)))

/**
 * Settings of a run that goes on: what is not given is as it was.
 *
 * @param saved - Content of the run's config.json.
 * @throws SettingsError naming settings that are given and would change the result, unless `override` allows it.
 */
export function resumeSettings<Schema extends z.ZodObject>(
  kind: SettingsKind<Schema>, saved: Readonly<Record<string, unknown>>, input: Readonly<Record<string, unknown>>
): z.output<Schema> {
  const before = withoutSettled(saved)
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
  const changed = Object.keys(given).filter((name) => JSON.stringify(given[name]) !== JSON.stringify(before[name]))
  const show = (value: unknown) => (value === undefined ? 'none' : JSON.stringify(value))
  const list = (names: readonly string[]) =>
    names.map((name) => `${name} (the run has ${show(before[name])}, given is ${show(given[name])})`).join(', ')
  const impossible = changed.filter((name) => kind.fixed.includes(name))
  if (impossible.length) {
    throw new SettingsError(`A run cannot go on with other settings of ${list(impossible)}. Leave them out, or start a new run`)
  }
  const allowed: readonly string[] = [...changeableInAll, ...(kind.changeable as string[])]
  // The schedules can be stretched; what was trained already cannot be taken back.
  const fewer = (name: string) => name === 'epochs' && Number(given[name]) < Number(before[name])
  const refused = given['override'] ? [] : changed.filter((name) => !allowed.includes(name) || fewer(name))
  if (refused.length) {
    throw new SettingsError(
      `The run cannot go on with other settings: ${list(refused)}. They would change the result: leave them out, start a new run, ` +
        'or say so with override'
    )
  }
  return parseSettings(kind.schema, { ...before, ...given })
}

/** The settings that there are in a section of a schema. */
function namesIn(schema: z.ZodType, path: readonly PropertyKey[]): string[] {
  let inner = schema
  while (inner instanceof z.ZodDefault || inner instanceof z.ZodOptional) inner = inner.unwrap() as z.ZodType
  if (!(inner instanceof z.ZodObject)) return []
  const [section, ...rest] = path
  return section === undefined ? Object.keys(inner.shape) : namesIn((inner.shape as Record<PropertyKey, z.ZodType>)[section]!, rest)
}

// zod's findings in the words of all our errors.
function describeIssue(schema: z.ZodObject, issue: z.core.$ZodIssue, input: unknown): string {
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => [...issue.path, key].join('.'))
    return `There is no setting ${names.join(', ')}; there are ${namesIn(schema, issue.path).join(', ')}`
  }
  const received = issue.path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], input)
  const wanted = () => {
    switch (issue.code) {
      case 'too_small':
        if (issue.origin === 'string') return 'a text that is not empty'
        if (issue.origin === 'array') return `${issue.minimum} values`
        return `a number ${issue.inclusive ? 'of at least' : 'above'} ${issue.minimum}`
      case 'too_big':
        if (issue.origin === 'array') return `${issue.maximum} values`
        return `a number ${issue.inclusive ? 'of at most' : 'below'} ${issue.maximum}`
      case 'invalid_value':
        return `one of ${issue.values.join(', ')}`
      case 'invalid_type':
        return `${/^[aeiou]/.test(issue.expected) ? 'an' : 'a'} ${issue.expected === 'int' ? 'integer' : issue.expected}`
      default:
        return issue.message
    }
  }
  return expected(wanted(), issue.path.join('.') || 'the settings', received).message
}

/** @throws SettingsError naming each field that is missing, unknown or not legal. */
export function parseSettings<Schema extends z.ZodObject>(schema: Schema, input: unknown): z.output<Schema> {
  const result = schema.safeParse(input)
  if (result.success) return result.data
  throw new SettingsError(result.error.issues.map((issue) => describeIssue(schema, issue, input)).join('\n'))
}
