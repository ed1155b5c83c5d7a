import { gmmlAugmentation, type Augmentation } from '../data/index.js'
import type { PretrainConfig } from './config.js'
import type { viewFields } from './settings.js'

/** The settings that say how views are made. */
export type ViewSettings = Pick<PretrainConfig, keyof typeof viewFields>

/** How pretraining with these settings makes views. */
export function pretrainAugmentation(settings: ViewSettings): Augmentation {
  const { cropScale, flip, jitter, jitterStrength, blur, blurSigma, solarize, solarizeThreshold } = settings
  const [brightness, contrast, saturation, hue] = jitterStrength
  return {
    ...gmmlAugmentation, cropScale, flip,
    jitter: { probability: jitter, brightness, contrast, saturation, hue },
    blur: { probability: blur, sigma: blurSigma },
    solarize: { probability: solarize, threshold: solarizeThreshold }
  }
}
