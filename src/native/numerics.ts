import { addon, type MatmulPrecision, type NumericSwitch, type Numerics } from './addon.js'

export type { MatmulPrecision, NumericSwitch, Numerics }

export const numerics = (): Numerics => addon.numerics()
export const setMatmulPrecision = (precision: MatmulPrecision): void => addon.setMatmulPrecision(precision)
export const setDeterministic = (enabled: boolean, warnOnly: boolean): void => addon.setDeterministic(enabled, warnOnly)
export const setNumeric = (name: NumericSwitch, enabled: boolean): void => addon.setNumeric(name, enabled)
