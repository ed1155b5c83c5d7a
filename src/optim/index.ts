/**
 * Optimisers, schedules, gradient clipping.
 *
 * @module gmml/optim
 */

export { AdamW, type AdamWOptions, type AdamWState, type AdamWStateDict, type AdamWStateOptions } from './adamw.js'
export { Optimizer, type Group, type OptimizerStateDict, type ParameterGroup } from './optimizer.js'
export { LBFGS, type LBFGSOptions } from './lbfgs.js'
export { SGD, type SGDOptions, type SGDState, type SGDStateDict, type SGDStateOptions } from './sgd.js'
export { clipGradNorm } from './clip.js'
export { cosineSchedule, type CosineOptions, type Schedule } from './schedule.js'
export { ExponentialMovingAverage } from './ema.js'
export { GradScaler, type GradScalerStateDict } from './grad-scaler.js'
