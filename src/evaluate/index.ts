/**
 * What a representation is worth.
 *
 * @module gmml/evaluate
 */

export { extractFeatures, pixelFeatures, type FeatureOptions, type Features } from './features.js'
export { accuracy, knnPredict, knnScores, type KnnOptions, type Labelled } from './knn.js'
export { reconstructionError, type ReconstructionError } from './reconstruction.js'
export {
  EvaluationSet, openLabelled, openTest, openTraining, selectLabelled, splitLabelled, type Classified, type LabelledImages,
  type LabelledRequest
} from './labelled.js'
export { classify, type InputOptions } from './classify.js'
export { classifyImages, type Classification, type ClassifyRequest, type Prediction } from './classify-images.js'
export { describeScore, readResults, resultsOf, writeResults, type Measurement, type Results } from './results.js'
export { scoreOf, wilsonInterval, type Score } from './score.js'
export {
  trainLinearProbe, type LinearProbe, type LinearProbeOptions, type ProbeProgress, type ProbeSettings, type ProbeTrial
} from './linear-probe.js'
export { measureKnn, measureProbe, type KnnRequest, type ProbeRequest } from './measure-features.js'
export { Subject, type ReadingOptions, type SubjectFeatures, type SubjectRequest } from './subject.js'
