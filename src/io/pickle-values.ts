import { inspect, type InspectOptions } from 'node:util'

/** Why a file is refused. Becomes an InputError that names the file where the file is known. */
export class Refusal extends Error {}

/** The bytes end before the pickle does. */
export class Truncated extends Refusal {
  constructor() {
    super('its pickle ends in the middle')
  }
}

/** A Python class or function that a file names: the name alone, nothing is imported. */
export class ForeignName {
  constructor(readonly module: string, readonly name: string) {}

  /** `module.name`. */
  get path(): string {
    return `${this.module}.${this.name}`
  }

  /** How Node shows it. @internal */
  [inspect.custom](): string {
    return `<${this.path}>`
  }
}

/** An instance of a Python class that is not known here, as inert data. No code of that class exists here, none is run. */
export class ForeignObject {
  /** The class's module: `argparse`. */
  readonly module: string
  /** The class's name: `Namespace`. */
  readonly name: string
  /** Arguments that it would be made with. */
  args: unknown[] = []
  /** Its attributes, as a rule an object by name; null if it has none. */
  state: unknown = null
  /** Elements, if it is some kind of list, set or dict; else undefined. */
  items: unknown = undefined

  constructor({ module, name }: ForeignName | ForeignObject) {
    this.module = module
    this.name = name
  }

  /** How Node shows it. @internal */
  [inspect.custom](depth: number, options: InspectOptions): string {
    const path = `${this.module}.${this.name}`
    if (depth < 0) return `[${path}]`
    const parts = [...(this.args.length ? [this.args] : []), ...[this.state, this.items].filter((part) => part != null)]
    return [path, ...parts.map((part) => inspect(part, { ...options, depth }))].join(' ')
  }
}

/** A dict while it is being read: only at the end is it known what its keys are. */
export class PyDict {
  readonly entries = new Map<unknown, unknown>()
}

/** How the names that a pickle calls are met: what each makes of its arguments. Whatever is not in here is refused. */
export type Callables = ReadonlyMap<string, (args: readonly unknown[], name: ForeignName) => unknown>

/** For a message: a value of a pickle. */
export function describeValue(value: unknown): string {
  if (value instanceof ForeignName || value instanceof ForeignObject) return value instanceof ForeignName ? value.path : `a ${value.name}`
  if (value instanceof PyDict) return 'a dict'
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object' && value !== null ? 'an object' : inspect(value, { maxStringLength: 40 })
}
