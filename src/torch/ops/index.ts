/** Every public ATen operator as a function. Operators that are not here are callable by name. */
export * from './functions.generated.js'
export * from './inplace.generated.js'
export type { FactoryOptions } from './arguments.js'
