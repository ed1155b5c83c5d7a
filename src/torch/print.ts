// Tensors as text, in the form of PyTorch's print.
import { gradFunction } from '../native/autograd.js'
import { scope } from '../native/tensor-handle.js'
import { call, operator } from './dispatch.js'
import { reader } from './format.js'
import { noGrad } from './modes.js'
import { arange } from './ops/index.js'
import { getPrintOptions } from './print-options.js'
import type { Tensor } from './tensor.js'
import type { Complex } from './types.js'

/** JavaScript rounds a tie away from zero, C's printf to the even digit. `write` gives a number of at least 0, with so many digits. */
function roundHalfEven(write: (digits: number) => string): string {
  const { precision } = getPrintOptions()
  const long = /^(\d+)\.?(\d*)(.*)$/.exec(write(Math.min(100, precision + 60)))!
  const [, integer, fraction, exponent] = long as unknown as [string, string, string, string]
  const usual = write(precision)
  if (!/^50*$/.test(fraction.slice(precision))) return usual
  const kept = precision > 0 ? `${integer}.${fraction.slice(0, precision)}` : integer
  return Number(kept.at(-1)) % 2 === 0 ? kept + exponent : usual
}

const sign = (value: number) => (value < 0 || Object.is(value, -0) ? '-' : '')
const special = (value: number) => (Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf')
const twoDigits = (text: string) => text.replace(/e([+-])(\d)$/, 'e$10$2')

/** `%.4f` */
function fixed(value: number): string {
  const size = Math.abs(value)
  if (!Number.isFinite(value)) return special(value)
  // From here on toFixed() writes an exponent. Such a number is an integer.
  const { precision } = getPrintOptions()
  if (size >= 1e21) return sign(value) + BigInt(size).toString() + (precision > 0 ? `.${'0'.repeat(precision)}` : '')
  return sign(value) + roundHalfEven((digits) => size.toFixed(digits))
}

/** `%.4e` */
function scientific(value: number): string {
  const size = Math.abs(value)
  return Number.isFinite(value) ? sign(value) + twoDigits(roundHalfEven((digits) => size.toExponential(digits))) : special(value)
}

/** `%.0f` of an integer, with the point that says that it is a float. */
function whole(value: number): string {
  return Number.isFinite(value) ? `${sign(value)}${BigInt(Math.abs(value))}.` : special(value)
}

interface Formatter {
  readonly width: number
  format(value: unknown): string
}

const widest = (texts: readonly string[]) => texts.reduce((width, text) => Math.max(width, text.length), 1)
const padded = (width: number, write: (value: unknown) => string): Formatter => ({ width, format: (value) => write(value).padStart(width) })

function plainFormatter(values: readonly unknown[]): Formatter {
  const write = (value: unknown) => (typeof value === 'boolean' ? (value ? 'True' : 'False') : String(value))
  return padded(widest(values.map(write)), write)
}

/** One form for all: integers with a point, decimals or scientific notation, as wide as the widest needs. */
function floatFormatter(values: readonly number[]): Formatter {
  const counted = values.filter((value) => Number.isFinite(value) && value !== 0)
  let [smallest, largest] = [Infinity, 0]
  for (const value of counted) {
    smallest = Math.min(smallest, Math.abs(value))
    largest = Math.max(largest, Math.abs(value))
  }
  const far = counted.length > 0 && (largest / smallest > 1000 || largest > 1e8 || smallest < 1e-4)
  const write = counted.length > 0 && (getPrintOptions().sciMode ?? far) ? scientific : counted.every(Number.isInteger) ? whole : fixed
  return padded(widest(counted.map(write)), write as (value: unknown) => string)
}

function complexFormatter(values: readonly Complex[]): Formatter {
  const [re, im] = [floatFormatter(values.map(({ re }) => re)), floatFormatter(values.map(({ im }) => im))]
  const format = (value: unknown) => {
    const imaginary = `${im.format((value as Complex).im)}j`.trimStart()
    return `${re.format((value as Complex).re)}${/^[+-]/.test(imaginary) ? '' : '+'}${imaginary}`
  }
  return { width: re.width + im.width + 1, format }
}

/** The dtypes that no typed array shows as numbers, in one that is. */
function readable(x: Tensor): Tensor {
  const { dtype } = x as { dtype: string }
  if (dtype === 'float4_e2m1fn_x2') return x.view('uint8').to('float32') // two numbers in a byte: PyTorch shows the byte
  if (dtype.startsWith('float8')) return x.to('float32')
  return dtype === 'complex32' ? x.to('complex64') : x
}

const isCut = (size: number) => size > 2 * getPrintOptions().edgeItems

/** The elements that a summary shows, and no others: what is left out is not copied from the device. */
function edges(x: Tensor): Tensor {
  const { shape, device } = x
  const { edgeItems } = getPrintOptions()
  const indices = shape.map((size, dim) => {
    const all = arange(isCut(size) ? 2 * edgeItems : size, { dtype: 'int64', device })
    const index = isCut(size) ? all.add(all.ge(edgeItems).mul(size - 2 * edgeItems)) : all
    return index.reshape(shape.map((_, i) => (i === dim ? -1 : 1)))
  })
  return x.index(indices)
}

/** The elements in nested brackets. @param indent - Columns before the first bracket. */
function contents(x: Tensor, indent: number): string {
  const { shape } = x
  const size = shape.reduce((product, length) => product * length, 1)
  if (size === 0) return '[]'
  const { threshold, edgeItems, lineWidth } = getPrintOptions()
  const summarise = size > threshold && shape.length > 0
  if (summarise && edgeItems === 0) return '[...]'
  const shown = readable(summarise ? edges(x) : x)
  const { dtype } = shown
  const read = reader(dtype, shown.toTypedArray())
  const values = Array.from({ length: shown.numel() }, (_, i) => read(i))
  const formatter = dtype.startsWith('complex') ? complexFormatter(values as Complex[])
    : dtype.includes('float') ? floatFormatter(values as number[]) : plainFormatter(values)
  if (shape.length === 0) return formatter.format(values[0])
  const perLine = Math.max(1, Math.floor((lineWidth - indent - shape.length + 1) / (formatter.width + 2)))
  let next = 0
  const write = (dim: number): string => {
    const last = dim === shape.length - 1
    const cut = summarise && isCut(shape[dim]!)
    const length = cut ? 2 * edgeItems : shape[dim]!
    const parts = Array.from({ length }, () => (last ? formatter.format(values[next++]) : write(dim + 1)))
    if (cut) parts.splice(edgeItems, 0, last ? ' ...' : '...')
    const margin = ' '.repeat(indent + dim + 1)
    if (!last) return `[${parts.join(`,${'\n'.repeat(shape.length - 1 - dim)}${margin}`)}]`
    const lines: string[] = []
    for (let start = 0; start < parts.length; start += perLine) lines.push(parts.slice(start, start + perLine).join(', '))
    return `[${lines.join(`,\n${margin}`)}]`
  }
  return write(0)
}

/** As Python writes a float: `1.0`, `1e-05`. */
function pythonFloat(value: number): string {
  const size = Math.abs(value)
  if (!Number.isFinite(value)) return special(value)
  if (size >= 1e16 || (size < 1e-4 && size > 0)) return twoDigits(value.toExponential())
  return sign(value) + size + (Number.isInteger(value) ? '.0' : '')
}

const tuple = (shape: readonly number[]) => `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`
const sizeOf = ({ shape }: Tensor) => `size=${tuple(shape)}`

/** What stands between the parentheses: the elements, and what is said of the tensor after them. */
interface Parts {
  readonly body: string
  readonly notes: readonly string[]
  /** The notes begin in a line of their own. */
  readonly apart?: boolean
}

const PREFIX = 'tensor('
const byName = <R>(name: string, x: Tensor, overload = '') => call<R>(operator(`aten::${name}`, overload), x)

/** `indices=tensor(...)`: a tensor that another one is made of. */
function component(name: string, x: Tensor): string {
  const head = `${name}=tensor(`
  const elements = x.device === 'meta' ? '...' : contents(x, PREFIX.length + head.length)
  return `${head}${elements}${x.device === 'meta' || x.numel() === 0 ? `, ${sizeOf(x)}` : ''})`
}

function sparse(x: Tensor, dtype: readonly string[]): Parts {
  const { layout } = x
  const byRow = layout === 'sparse_csr' || layout === 'sparse_bsr'
  const components: [string, Tensor][] =
    layout === 'sparse_coo' ? [['indices', byName('_indices', x)], ['values', byName('_values', x)]]
    : byRow ? [['crow_indices', x.crowIndices()], ['col_indices', x.colIndices()], ['values', x.values()]]
    : [['ccol_indices', x.ccolIndices()], ['row_indices', x.rowIndices()], ['values', x.values()]]
  return {
    body: components.map(([name, part]) => component(name, part.detach())).join(`,\n${' '.repeat(PREFIX.length)}`),
    notes: [sizeOf(x), ...(x.device === 'meta' ? [] : [`nnz=${byName<number>('_nnz', x)}`]), ...dtype],
    apart: layout === 'sparse_coo'
  }
}

function quantized(x: Tensor, dtype: readonly string[]): Parts {
  const body = contents(byName<Tensor>('dequantize', x, 'self'), PREFIX.length)
  let scheme: string[]
  try {
    const [scale, zero] = [byName<number>('q_scale', x), byName<number>('q_zero_point', x)]
    scheme = ['quantization_scheme=torch.per_tensor_affine', `scale=${pythonFloat(scale)}`, `zero_point=${zero}`]
  } catch {
    // Only a tensor with one scale for all tells it.
    const [scales, zeros] = [byName<Tensor>('q_per_channel_scales', x), byName<Tensor>('q_per_channel_zero_points', x)]
    const name = scales.dtype === 'float64' ? 'affine' : 'affine_float_qparams'
    const axis = byName<number>('q_per_channel_axis', x)
    scheme = [`quantization_scheme=torch.per_channel_${name}`, `scale=${printed(scales)}`, `zero_point=${printed(zeros)}`, `axis=${axis}`]
  }
  return { body, notes: [sizeOf(x), ...dtype, ...scheme] }
}

function parts(x: Tensor): Parts {
  const { dtype, layout } = x
  const named = [`dtype=torch.${dtype}`]
  const dtypeNote = ['float32', 'complex64', 'int64', 'bool'].includes(dtype) ? [] : named
  if (layout.startsWith('sparse')) return sparse(x, dtypeNote)
  if (/^qu?int/.test(dtype)) return quantized(x, dtypeNote)
  if (x.device === 'meta') return { body: '...', notes: [sizeOf(x), ...(dtype === 'float32' ? [] : named)] }
  if (x.numel() === 0) return { body: '[]', notes: [...(x.ndim === 1 ? [] : [sizeOf(x)]), ...(dtype === 'float32' ? [] : named)] }
  const dense = layout === 'strided' ? x : x.toDense()
  return { body: contents(dense.detach(), PREFIX.length), notes: [...(getPrintOptions().edgeItems === 0 ? [sizeOf(x)] : []), ...dtypeNote] }
}

function graphNote(x: Tensor): string[] {
  const made = gradFunction(x)
  return made !== null ? [`grad_fn=<${made}>`] : x.requiresGrad ? ['requires_grad=True'] : []
}

function nested(x: Tensor): string {
  const rows = x.unbind().map((row) => printed(row).replace(/^/gm, '  '))
  return `nested_tensor([\n${rows.join(',\n')}\n]${graphNote(x).map((note) => `, ${note}`).join('')})`
}

function isNested(x: Tensor): boolean {
  try {
    return x.shape === undefined
  } catch {
    return true // a tensor of tensors has no shape
  }
}

function printed(x: Tensor): string {
  const { dtype, device } = x
  let found: Parts
  try {
    if (isNested(x)) return nested(x)
    found = parts(x)
  } catch {
    found = { body: '...', notes: [`dtype=torch.${dtype}`] } // a kind of tensor that has no elements to be read
  }
  const layoutNote = x.layout === 'strided' ? [] : [`layout=torch.${x.layout === 'mkldnn' ? '_mkldnn' : x.layout}`]
  const notes = [...(device === 'cpu' ? [] : [`device='${device}'`]), ...found.notes, ...layoutNote, ...graphNote(x)]
  const { lineWidth } = getPrintOptions()
  let text = PREFIX + found.body
  let column = text.length - text.lastIndexOf('\n') + 1
  let apart = found.apart ?? false
  for (const note of notes) {
    if (apart || column + note.length + 2 > lineWidth) {
      text += `,\n${' '.repeat(PREFIX.length)}${note}`
      column = PREFIX.length + note.length
      apart = false
    } else {
      text += `, ${note}`
      column += note.length + 2
    }
  }
  return `${text})`
}

/** The text that PyTorch prints for a tensor. Only what it shows is copied from a device. */
export const printTensor = (x: Tensor): string => scope(() => noGrad(() => printed(x)))
