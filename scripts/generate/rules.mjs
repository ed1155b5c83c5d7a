// Which operators become functions, and what they are called. All decisions of taste are in this file.

/** Families that are not generated; they stay callable by their ATen name. The first rule that matches names the reason. */
export const exclusions = [
  { why: 'internal', pattern: /^_|__/ },
  { why: 'backward formula', pattern: /_backward|^backward$/ },
  // Stands behind a public operator that chooses it by itself.
  { why: 'backend kernel', pattern: /^(cudnn|miopen|mkldnn|fbgemm|thnn|mps)_|_overrideable$|_vulkan_/ },
  { why: 'backend kernel', pattern: /^(slow_conv|conv_depthwise)/ },
  // Of tensors with a quantized dtype, which libtorch has deprecated. Fake quantization is of ordinary ones.
  { why: 'quantization', pattern: /^(q_|quantized?_|dequantize|empty_quantized|int_repr|qscheme)|_cachemask$/ },
  { why: 'symbolic shape', pattern: /^sym_/ },
  // Made for functionalization: a view as a copy, an in-place operator as a function. `index_copy` is a user's operator.
  { why: 'functionalization', pattern: /(?<!^index)_copy$|_functional$|^(copy|set|resize|resize_as|slice_inverse)$/ },
  { why: 'functionalization', pattern: /^(lift|copy_sparse_to_sparse)|^(resize_as_sparse|sparse_resize|sparse_resize_and_clear)$/ },
  // Half of an operator: its other half is computed by the autograd formula.
  { why: 'autograd internals', pattern: /_forward$|_jvp$|^get_gradients$/ },
  { why: 'written by hand', pattern: /^(to|item|size|stride|data|set_data|is_leaf|output_nr|requires_grad_|retains?_grad|get_device|record_stream)$/ },
  // False for every tensor.
  { why: 'no use from here', pattern: /^is_distributed$/ }
]

/** Functions whose name `gmml/torch` uses for something else: they are methods of Tensor only. */
export const methodsOnly = new Map([['slice', 'makes an index of at(), as in Python']])

/** Members of Tensor written by hand: no generated method takes their name. */
export const handWritten = new Set([
  'shape', 'strides', 'dtype', 'device', 'ndim', 'grad', 'requiresGrad', 'isLeaf', 'item', 'itemAsync', 'toArray', 'toTypedArray',
  'toString', 'to', 'cpu', 'cuda', 'backward', 'dispose', 'at', 'setAt', 'T', 'H', 'mT', 'mH', 'data', 'length', 'size', 'isContiguous',
  'isLive', 'layout', 'nbytes', 'elementSize', 'isCuda', 'unique', 'recordStream',
  'float', 'double', 'half', 'bfloat16', 'int', 'long', 'short', 'char', 'byte', 'bool',
  'constructor', 'then'
])

/** Kinds of argument and result, as TypeScript types. A schema with any other kind is not generated. */
export const kinds = new Map([
  ['Tensor', 'Tensor'], ['int', 'number'], ['SymInt', 'number'], ['float', 'number'], ['bool', 'boolean'], ['str', 'string'],
  ['Scalar', 'Scalar'], ['ScalarType', 'DType'], ['Device', 'Device'], ['Layout', 'Layout'], ['MemoryFormat', 'MemoryFormat'],
  ['Generator', 'Generator']
])

// Words that no function or parameter can be named. As methods, option names and export aliases they are legal.
const reserved = new Set(
  ('arguments await break case catch class const continue debugger default delete do else enum eval export extends false finally for ' +
    'function if implements import in instanceof interface let new null package private protected public return static super switch this ' +
    'throw true try typeof var void while with yield').split(' ')
)

/** `layer_norm` -> `layerNorm`, `add_` -> `add_`, `atleast_1d` -> `atleast1d`. */
export const camelCase = (name) => name.replace(/(?<=[a-zA-Z0-9])_+([a-zA-Z0-9])/g, (_, first) => first.toUpperCase())

/** A legal local name. No ATen name has a dollar sign, so no other name can collide with it. */
export const localName = (name) => (reserved.has(name) ? `$${name}` : name)

/** Why an operator is not generated, or null. */
export function skipped(schema) {
  const family = schema.name.slice('aten::'.length)
  if (!schema.name.startsWith('aten::')) return 'other namespace'
  const rule = exclusions.find(({ pattern }) => pattern.test(family))
  if (rule) return rule.why
  if (schema.args.some((arg) => arg.keywordOnly && arg.type.written)) return 'out= overload'
  const foreign = [...schema.args, ...schema.returns].find(({ type }) => !kinds.has(type.base))
  return foreign ? `kind ${foreign.type.base}` : null
}

const factoryArguments = ['dtype', 'layout', 'device', 'pin_memory']

/** Can an instance be this argument, as the receiver of a method? */
export const isReceiver = ({ name, type }) => name === 'self' && type.base === 'Tensor' && type.list === null && !type.optional

/** Sizes or dimensions that are all a method takes may be given one by one, as in Python: `x.permute(1, 0)`. */
function takesOneByOne([first, ...rest]) {
  return rest.length === 0 && first?.type.list === 0 && ['size', 'shape', 'dims', 'repeats'].includes(first.name)
}

/** How a schema is called from TypeScript: what is positional, and what is a named option. */
export function signature(schema) {
  const args = schema.args.map((arg) => ({ ...arg, required: arg.default === null, key: camelCase(arg.name) }))
  const positional = args.filter((arg) => arg.required && !arg.keywordOnly)
  const options = args.filter((arg) => !arg.required || arg.keywordOnly)
  return {
    schema,
    args,
    positional,
    options,
    optionsRequired: options.some((arg) => arg.required),
    factory: factoryArguments.every((name) => options.some((arg) => arg.name === name && arg.type.optional)),
    oneByOne: takesOneByOne(positional.filter((arg) => !isReceiver(arg))),
    operator: `_${camelCase(schema.name.slice('aten::'.length))}${schema.overload && `_${schema.overload}`}`
  }
}

// By code unit: the order of the committed files must not depend on anyone's locale.
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0)

/** Groups the schemas to be generated by family. `skips` counts the others by reason. */
export function families(schemas) {
  const groups = new Map()
  const skips = new Map()
  for (const schema of schemas) {
    const reason = skipped(schema)
    if (reason) {
      skips.set(reason, (skips.get(reason) ?? 0) + 1)
      continue
    }
    const name = camelCase(schema.name.slice('aten::'.length))
    const group = groups.get(name) ?? { name, local: localName(name), aten: schema.name, signatures: [] }
    if (group.aten !== schema.name) throw new Error(`${group.aten} and ${schema.name} would both be named ${name}`)
    group.signatures.push(signature(schema))
    groups.set(name, group)
  }
  for (const { signatures } of groups.values()) {
    signatures.sort((a, b) => a.positional.length - b.positional.length || compare(a.schema.overload, b.schema.overload))
  }
  return { families: [...groups.values()].sort((a, b) => compare(a.name, b.name)), skips }
}
