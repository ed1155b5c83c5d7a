// Training runs.
export { pretrain, type EpochReport, type PretrainHooks, type PretrainResult, type RunStart, type StepReport } from './pretrain.js'
export { parseConfig, pretrainSchema, type PretrainConfig, type PretrainConfigInput } from './config.js'
export { buildEncoder, loadEncoder, loadModel, newestWeights, type EncoderDescription, type Progress } from './checkpoint.js'
export { RunFolder } from './run-folder.js'
export { writeReconstructions, type Reconstructions } from './reconstructions.js'
