// Optimisers, schedules, gradient clipping.
export { AdamW, type AdamWOptions, type OptimizerStateDict, type ParameterGroup, type ParameterState } from './adamw.js'
export { clipGradNorm } from './clip.js'
export { cosineSchedule, type CosineOptions, type Schedule } from './schedule.js'
export { ExponentialMovingAverage } from './ema.js'
export { GradScaler, type GradScalerStateDict } from './grad-scaler.js'
