import { access, constants, mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'

import { expected, InputError } from '../errors.js'
import { writeFileAtomic } from '../io/index.js'
import { confusionChart } from '../report/index.js'
import { buildInfo } from '../torch/index.js'
import type { EvaluationSet, LabelledImages } from './labelled.js'
import type { Score } from './score.js'
import { RunFolder } from '../train/run-folder.js'
import { version } from '../version.js'

/** What a measurement found, and of what: the content of results.json. */
export interface Results {
  /** The command that measured. */
  readonly command: 'knn' | 'probe' | 'finetune' | 'classify'
  /** What was measured: a run, a file of weights, `random` or `pixels`. */
  readonly subject: string
  /** What was learned from; null where a finished classifier is used. */
  readonly train: { readonly path: string; readonly images: number } | null
  /** What it was measured on: test images, or images held out of the training images. */
  readonly measuredOn: { readonly path: string; readonly split: 'validation' | 'test'; readonly images: number }
  readonly settings: Readonly<Record<string, unknown>>
  /** By the features that the classifier saw; a finetuned one is called `classifier`. */
  readonly scores: Readonly<Record<string, Score>>
  readonly seconds: number
  readonly versions: { readonly gmml: string; readonly libtorch: string }
}

/** What is known of a measurement before its scores. */
export interface Measurement {
  readonly command: Results['command']
  readonly subject: string
  readonly train: Pick<LabelledImages, 'path' | 'length'> | null
  readonly evaluation: Pick<EvaluationSet, 'path' | 'length' | 'split'>
  readonly settings: Readonly<Record<string, unknown>>
  /** `performance.now()` at its start. */
  readonly start: number
}

/** Puts together what results.json holds. */
export function resultsOf({ command, subject, train, evaluation, settings, start }: Measurement, scores: Results['scores']): Results {
  return {
    command,
    subject,
    train: train && { path: train.path, images: train.length },
    measuredOn: { path: evaluation.path, split: evaluation.split, images: evaluation.length },
    settings,
    scores,
    seconds: (performance.now() - start) / 1000,
    versions: { gmml: version, libtorch: buildInfo().torch }
  }
}

const fileOf = (folder: string) => join(folder, 'results.json')

export const cannotWriteResults = (folder: string, error: Error): InputError =>
  new InputError(`Cannot write the results into '${folder}': ${error.message}`, { cause: error })

/** Makes the folder that results are to be written into, before they are worked for. @throws InputError if that cannot be. */
export async function prepareResults(folder: string): Promise<void> {
  // A finetuning finds by its results.json that it is done.
  if (new RunFolder(folder).exists) throw expected('a folder that is not itself a run', '--out', folder)
  try {
    await mkdir(folder, { recursive: true })
    await access(folder, constants.W_OK)
  } catch (error) {
    throw cannotWriteResults(folder, error as Error)
  }
}

/** Removes what {@link writeResults} wrote of an earlier call of a command. Results of other commands, and files of others, stay. */
export async function removeResults(folder: string, command: Results['command']): Promise<void> {
  const before = await readResults(folder).catch(() => null)
  if (before?.command !== command) return
  for (const name of ['results.json', 'confusion.png']) await rm(join(folder, name), { force: true })
}

/**
 * Writes results.json and, for each score, the confusion matrix as a picture: `confusion.png`, of several `confusion-<name>.png`.
 *
 * @returns Paths of the pictures.
 * @throws InputError if the disk does not take them.
 */
export async function writeResults(folder: string, results: Results): Promise<string[]> {
  const entries = Object.entries(results.scores)
  try {
    await mkdir(folder, { recursive: true })
    const pictures: string[] = []
    for (const [name, { classes, confusion, accuracy }] of entries) {
      const path = join(folder, entries.length > 1 ? `confusion-${name}.png` : 'confusion.png')
      const title = `${results.command} of ${results.subject}, ${name}: ${(100 * accuracy).toFixed(2)} %`
      const { png } = await confusionChart({ classes, counts: confusion, title })
      await writeFileAtomic(path, png)
      pictures.push(path)
    }
    // Last: where it is, everything is.
    await writeFileAtomic(fileOf(folder), `${JSON.stringify(results, null, 2)}\n`)
    return pictures
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === undefined) throw error
    throw cannotWriteResults(folder, error as Error)
  }
}

const source = z.object({ path: z.string(), images: z.number() })

const scoreSchema = z.object({
  images: z.number(),
  accuracy: z.number(),
  interval: z.tuple([z.number(), z.number()]),
  top5: z.number().nullable(),
  classes: z.array(z.string()),
  confusion: z.array(z.array(z.number()))
})

const resultsSchema = z.object({
  command: z.enum(['knn', 'probe', 'finetune', 'classify']),
  subject: z.string(),
  train: source.nullable(),
  measuredOn: source.extend({ split: z.enum(['validation', 'test']) }),
  settings: z.record(z.string(), z.unknown()),
  scores: z.record(z.string(), scoreSchema),
  seconds: z.number(),
  versions: z.object({ gmml: z.string(), libtorch: z.string() })
})

/** What was written into a folder before, if anything was. @throws InputError for a file that is not what was written. */
export async function readResults(folder: string): Promise<Results | null> {
  const text = await readFile(fileOf(folder), 'utf8').catch(() => null)
  if (text === null) return null
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    throw new InputError(`'${fileOf(folder)}' is no JSON: remove it to measure again`)
  }
  if (resultsSchema.safeParse(parsed).success) return parsed as Results
  throw new InputError(`'${fileOf(folder)}' holds no results of a measurement: remove it to measure again`)
}

const percent = (part: number) => `${(100 * part).toFixed(2)} %`

/** A score in one line, for people. */
export function describeScore({ accuracy, interval, top5, images }: Score): string {
  const [low, high] = interval.map((bound) => (100 * bound).toFixed(2))
  return `${percent(accuracy)} (95 %: ${low} to ${high})${top5 === null ? '' : `, top-5 ${percent(top5)}`}, ${images} images`
}
