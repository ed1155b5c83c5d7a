// Training runs.
export { pretrain, settleConfig } from './pretrain.js'
export { finetune, settleFinetuneConfig, type FinetuneResult } from './finetune.js'
export {
  finetuneSchema, parseFinetuneConfig, type FinetuneConfig, type FinetuneConfigInput
} from './finetune-config.js'
export type { EpochReport, LoopHooks, PretrainHooks, PretrainResult, RunStart, StepReport } from './reports.js'
export { parseConfig, pretrainSchema, type PretrainConfig, type PretrainConfigInput } from './config.js'
export { buildEncoder, loadEncoder, loadModel, newestWeights, type EncoderDescription, type Progress } from './checkpoint.js'
export { exportBackbone, exportFormats, type ExportFormat, type ExportRequest, type ExportResult } from './export.js'
export { RunFolder } from './run-folder.js'
export { writeRunReport } from './run-report.js'
export { writeReconstructions, type Reconstructions } from './reconstructions.js'
export {
  describeImages, imageReportSchema, parseImageReportRequest, type ImageReport, type ImageReportHooks, type ImageReportRequest
} from './image-report.js'
export type { AspectSummary, SizeSummary } from './image-sizes.js'
export type { LoadingSpeed } from './loading-speed.js'
export { parsePreviewRequest, previewImages, previewSchema, type PreviewRequest } from './preview.js'
