// What a representation is worth.
export { extractFeatures, pixelFeatures, type FeatureOptions, type Features } from './features.js'
export { accuracy, knnPredict, knnScores, type KnnOptions, type Labelled } from './knn.js'
export { reconstructionError, type ReconstructionError } from './reconstruction.js'
export { EvaluationSet, openLabelled, type Classified, type LabelledImages, type LabelledRequest } from './labelled.js'
export { scoreOf, wilsonInterval, type Score } from './score.js'
export { measureKnn, type KnnRequest, type KnnResult } from './measure-knn.js'
