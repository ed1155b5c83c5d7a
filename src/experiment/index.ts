// What pretraining is worth: the whole comparison with training from scratch.
export { experiment, type ExperimentHooks, type ExperimentResult } from './experiment.js'
export { experimentSchema, parseExperimentConfig, sections, type ExperimentConfig, type ExperimentConfigInput } from './config.js'
export { arms, planCells, type Arm, type Cell, type Sizes } from './plan.js'
export type { Choice } from './choice.js'
export type { Found } from './report.js'
export { spreadOf, summarise, type Finished, type Row, type Spread } from './summary.js'
