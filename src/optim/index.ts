// Optimisers, schedules, gradient clipping.
export { AdamW, type AdamWOptions, type AdamWState, type AdamWStateDict } from './adamw.js'
export type { OptimizerStateDict, ParameterGroup } from './optimizer.js'
export { LBFGS, type LBFGSOptions } from './lbfgs.js'
export { SGD, type SGDOptions, type SGDState, type SGDStateDict } from './sgd.js'
export { clipGradNorm } from './clip.js'
export { cosineSchedule, type CosineOptions, type Schedule } from './schedule.js'
export { ExponentialMovingAverage } from './ema.js'
export { GradScaler, type GradScalerStateDict } from './grad-scaler.js'
