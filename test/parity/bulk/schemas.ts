import { listOperators } from '../../../src/torch/index.js'

/** As scripts/generate/schema.mjs reads them. */
export interface Type {
  readonly base: string
  readonly list: number | null
  readonly optional: boolean
  readonly optionalElements: boolean
  readonly written: boolean
}

export interface Argument {
  readonly name: string
  readonly type: Type
  readonly keywordOnly: boolean
  readonly default: string | null
}

export interface Schema {
  readonly text: string
  readonly name: string
  readonly overload: string
  readonly args: readonly Argument[]
  readonly returns: readonly { readonly type: Type }[]
}

interface Scripts {
  readonly parseSchema: (text: string) => Schema
  readonly camelCase: (name: string) => string
  /** Members of Tensor that no operator becomes. */
  readonly handWritten: ReadonlySet<string>
}

const load = async (name: string) => (await import(new URL(`../../../scripts/generate/${name}.mjs`, import.meta.url).href)) as Scripts
const { parseSchema } = await load('schema')
export const { camelCase, handWritten } = await load('rules')

const parsed = listOperators().filter((text) => text.startsWith('aten::')).map(parseSchema)
const byName = new Map(parsed.map((schema) => [fullName(schema), schema]))

/** `add.Tensor`, `relu`: without the namespace. */
export function fullName({ name, overload }: { name: string; overload: string }): string {
  return name.slice('aten::'.length) + (overload && `.${overload}`)
}

/** The schema of an operator of this libtorch; undefined if it has none of that name. */
export const findSchema = (name: string): Schema | undefined => byName.get(name)
