import { noGrad, type Tensor } from '../torch/index.js'
import { knnScores, type KnnOptions, type Labelled } from './knn.js'
import { openLabelled, VALIDATION_PART, type LabelledRequest } from './labelled.js'
import { trainLinearProbe, type LinearProbeOptions } from './linear-probe.js'
import { prepareResults, resultsOf, writeResults, type Results } from './results.js'
import { Subject, type SubjectRequest } from './subject.js'

interface Request extends SubjectRequest, LabelledRequest {
  /** Folder for results.json and the confusion matrices. Default: nothing is written. */
  readonly out?: string | undefined
}

/** What to measure by kNN. `seed` also decides what is held out where there are no test images. */
export interface KnnRequest extends Request, Omit<KnnOptions, 'centre'> {}

/** What to measure by a linear probe. `seed` also decides what is held out. */
export interface ProbeRequest extends Request, Omit<LinearProbeOptions, 'validation' | 'seed'> {}

/** A classifier of features: learned from training features, it scores others. */
type Learn = (train: Labelled, classes: number) => { scores: (queries: Tensor) => Tensor; settings?: unknown; dispose?(): void }

/** Computes the features once, then learns and measures a classifier for each kind of them. */
async function measure(
  command: 'knn' | 'probe', request: Request, settings: Readonly<Record<string, unknown>>, learn: Learn
): Promise<Results> {
  const start = performance.now()
  const { train, evaluation } = await openLabelled(request)
  const subject = await Subject.open(request, train)
  const owned: { dispose(): void }[] = [subject]
  try {
    if (request.out !== undefined) await prepareResults(request.out)
    const known = await subject.features(train)
    owned.push(...Object.values(known.features))
    const labels = known.indices.map((i) => train.labels[i]!)
    const chosen: Record<string, unknown> = {}
    const scores = await evaluation.measure(async (images) => {
      const queries = await subject.features(images)
      owned.push(...Object.values(queries.features))
      const scored = Object.entries(known.features).map(([name, features]) => {
        const classifier = learn({ features, labels }, train.classes.length)
        try {
          if (classifier.settings) chosen[name] = classifier.settings
          return [name, noGrad(() => classifier.scores(queries.features[name]!))] as const
        } finally {
          classifier.dispose?.()
        }
      })
      return { indices: queries.indices, scores: Object.fromEntries(scored) }
    })
    const { features = 'both', block, limit, validation = VALIDATION_PART, seed = 0 } = request
    const { encoder, backbone, device } = subject
    const all = {
      ...settings, seed, device, precision: 'float32',
      ...(encoder && backbone && { model: encoder.model, imageSize: encoder.imageSize, patchSize: encoder.patchSize, features, block: block ?? backbone.depth }),
      ...(evaluation.split === 'validation' && { validation }), ...(limit && { limit }), ...(Object.keys(chosen).length && { chosen })
    }
    const results = resultsOf({ command, subject: request.subject, train, evaluation, settings: all, start }, scores)
    if (request.out !== undefined) await writeResults(request.out, results)
    return results
  } finally {
    for (const resource of owned) resource.dispose()
  }
}

/**
 * Measures an encoder by a classifier of k nearest neighbours, on its CLS token and its mean patch token; or the pixels, mean-centred.
 *
 * @throws InputError for images without classes, of classes or channels that do not go together, for what is no encoder, and a disk that
 *   is full.
 */
export async function measureKnn(request: KnnRequest): Promise<Results> {
  const { k = 20, temperature = 0.07, subject } = request
  const options = { k, temperature, centre: subject === 'pixels' }
  return measure('knn', request, options, (train, classes) => ({ scores: (queries) => knnScores(train, queries, classes, options) }))
}

/**
 * Measures an encoder by a linear classifier on its features, which are computed once. What is chosen is chosen by a part held out of the
 * training images.
 *
 * @throws InputError as {@link measureKnn}, and for too few images to choose by.
 */
export async function measureProbe(request: ProbeRequest): Promise<Results> {
  const { method, weightDecays, learningRates, epochs, batchSize, tolerance, maxIterations, standardise, seed, onProgress } = request
  const given = { method, weightDecays, learningRates, epochs, batchSize, tolerance, maxIterations, standardise, seed }
  const settings = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const options: LinearProbeOptions = { ...settings, ...(onProgress && { onProgress }) }
  return measure('probe', request, settings, (train, classes) => {
    const probe = trainLinearProbe(train, classes, options)
    const { chosen, heldOut } = probe
    return { scores: (queries) => probe.scores(queries), settings: { ...chosen, heldOut }, dispose: () => probe.dispose() }
  })
}
