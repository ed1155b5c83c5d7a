import { readFileSync } from 'node:fs'

import { algebra } from './algebra.js'
import type { Style } from './cases.js'
import { creation, lists, random } from './creation.js'
import { elementwise } from './elementwise.js'
import { networks } from './networks.js'
import { reductions } from './reductions.js'
import type { Row } from './row.js'
import { camelCase, findSchema, handWritten, type Schema } from './schemas.js'
import { indexing, shapes, spectral } from './shapes.js'

const rows = [elementwise, reductions, shapes, indexing, spectral, algebra, networks, creation, random, lists].flat()

export interface Tested {
  readonly row: Row
  readonly schema: Schema
  readonly styles: readonly Style[]
}

const generated = ['functions', 'inplace']
  .map((name) => readFileSync(new URL(`../../../src/torch/ops/${name}.generated.ts`, import.meta.url), 'utf8'))
  .join('\n')

/** How an operator can be called: by name always; what is generated also as a function, and as a method if it has a self. */
function stylesOf({ name, overload, args }: Schema): readonly Style[] {
  if (!generated.includes(`operator('${name}', '${overload}')`)) return ['call']
  const self = args.find((argument) => argument.name === 'self')
  const method = self?.type.base === 'Tensor' && self.type.list === null && !self.type.optional
  return method && !handWritten.has(camelCase(name.slice('aten::'.length))) ? ['function', 'method', 'call'] : ['function', 'call']
}

/** `add.Tensor` -> `add_.Tensor` */
const inPlace = (name: string): string => name.replace(/(\.|$)/, '_$1')

/** Every operator of the table, and its variant that works in place where there is one. */
export const table: readonly Tested[] = rows.flatMap((row) =>
  row.names.flatMap((name) => {
    const schema = findSchema(name)
    if (!schema) throw new Error(`the table names ${name}, which libtorch does not have`)
    return [schema, findSchema(inPlace(name))].filter((found) => found !== undefined).map((found) =>
      ({ row, schema: found, styles: stylesOf(found) }))
  })
)
