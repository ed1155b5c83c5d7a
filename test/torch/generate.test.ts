import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

import ts from 'typescript'
import { describe, expect, it } from 'vitest'

interface Schema { name: string; overload: string; args: Record<string, unknown>[]; returns: unknown[] }
interface Family { name: string }
interface Emitted {
  files: Map<string, string>
  members: { family: Family; unreachable: { schema: Schema }[]; overlaps: { chosen: { schema: Schema } }[] }[]
}
interface Generator {
  parseSchema: (text: string) => Schema
  families: (schemas: Schema[]) => { families: Family[]; skips: Map<string, number> }
  camelCase: (name: string) => string
  emit: (families: Family[], version: string) => Emitted
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const load = async (name: string) => (await import(new URL(`../../scripts/generate/${name}.mjs`, import.meta.url).href)) as Generator
const { parseSchema } = await load('schema')
const { camelCase, families } = await load('rules')
const { emit } = await load('emit')

const generate = (...schemas: string[]) => emit(families(schemas.map((text) => parseSchema(`aten::${text}`))).families, '0.0')
const functionsOf = (...schemas: string[]) => generate(...schemas).files.get('functions.generated.ts')!

const handWritten = (name: string) => readFileSync(`${root}/src/torch/ops/${name}.ts`, 'utf8')

class FakeTensor {}
const x = new FakeTensor()
const y = new FakeTensor()

type Call = [operator: string, ...args: unknown[]]

/** Runs generated functions on a dispatcher that returns what it is called with. */
function run(text: string): Record<string, (...args: unknown[]) => unknown> {
  const dispatch = {
    operator: (name: string, overload: string, options: string[] = []) => ({ name, overload, options }),
    call: ({ name, overload }: { name: string; overload: string }, ...args: unknown[]) => [`${name}.${overload}`, ...args],
    isTensor: (value: unknown) => value instanceof FakeTensor,
    withGrad: (result: Call, requiresGrad: unknown) => [...result, { requiresGrad }]
  }
  const evaluate = (source: string, modules: Record<string, unknown>) => {
    const compilerOptions = { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022 }
    const { outputText } = ts.transpileModule(source, { compilerOptions })
    const exports = {}
    // eslint-disable-next-line @typescript-eslint/no-implied-eval, @typescript-eslint/no-unsafe-call
    new Function('require', 'exports', outputText)((name: string) => modules[name], exports)
    return exports
  }
  const errors = { expected: (what: string, name: string) => new TypeError(`Expected ${what} for ${name}`) }
  const tests = evaluate(handWritten('arguments'), { '../dispatch.js': dispatch, '../../errors.js': errors })
  return evaluate(text, { '../dispatch.js': dispatch, './arguments.js': tests })
}

describe('schema parser', () => {
  it('reads kinds, alias sets, keyword-only arguments and defaults', () => {
    const schema = parseSchema(
      'aten::f.o(Tensor(a!)[] self, int[2]? size, Tensor?[] list, *, str mode="a, \\"b\\"", int[] k=[1, 2]) -> Tensor(a!)[]'
    )
    expect(schema).toMatchObject({ name: 'aten::f', overload: 'o' })
    expect(schema.args).toMatchObject([
      { name: 'self', type: { base: 'Tensor', list: 0, written: true }, keywordOnly: false, default: null },
      { name: 'size', type: { base: 'int', list: 2, optional: true } },
      { name: 'list', type: { base: 'Tensor', list: 0, optional: false, optionalElements: true } },
      { name: 'mode', type: { base: 'str' }, keywordOnly: true, default: '"a, \\"b\\""' },
      { name: 'k', default: '[1, 2]' }
    ])
    expect(schema.returns).toMatchObject([{ type: { base: 'Tensor', list: 0 }, name: null }])
  })

  it('reads results', () => {
    const returns = (text: string) => parseSchema(`aten::f(Tensor x) -> ${text}`).returns
    expect(returns('()')).toEqual([])
    expect(returns('(Tensor values, Tensor(a!)[] rest)')).toMatchObject([{ name: 'values' }, { name: 'rest', type: { list: 0 } }])
    expect(returns('Tensor grid')).toMatchObject([{ name: 'grid' }])
    expect(() => parseSchema('nonsense')).toThrow("Expected an operator schema, received 'nonsense'")
  })
})

describe('rules', () => {
  it('names functions', () => {
    const names = ['layer_norm', 'add_', 'atleast_1d', 'linalg_lu_factor_ex', 'mT', 'conv2d'].map(camelCase)
    expect(names).toEqual(['layerNorm', 'add_', 'atleast1d', 'linalgLuFactorEx', 'mT', 'conv2d'])
  })

  it('skips what is not for users, and says why', () => {
    const result = families([
      'aten::_softmax(Tensor self) -> Tensor',
      'aten::abs.out(Tensor self, *, Tensor(a!) out) -> Tensor(a!)',
      'aten::tanh_backward(Tensor g, Tensor o) -> Tensor',
      'aten::expand_copy(Tensor self) -> Tensor',
      'aten::f(Tensor self, Stream s) -> ()',
      'aten::index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor',
      'other::f(Tensor self) -> Tensor'
    ].map(parseSchema))
    expect(result.families.map(({ name }) => name)).toEqual(['indexCopy'])
    expect([...result.skips.keys()]).toEqual(
      ['internal', 'out= overload', 'backward formula', 'functionalization', 'kind Stream', 'other namespace']
    )
  })

  it('refuses two operators of one name', () => {
    const both = () => generate('a_b(Tensor self) -> Tensor', 'aB(Tensor self) -> Tensor')
    expect(both).toThrow('aten::a_b and aten::aB would both be named aB')
  })
})

describe('overloads at run time', () => {
  const check = (functions: ReturnType<typeof run>, name: string, args: unknown[], expected: unknown) =>
    expect(functions[name]!(...args), `${name}(${args.map((arg) => JSON.stringify(arg)).join(', ')})`).toEqual(expected)

  it('tells tensors, numbers and complex numbers apart', () => {
    const functions = run(functionsOf(
      'add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor',
      'add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor'
    ))
    check(functions, 'add', [x, y], ['aten::add.Tensor', x, y])
    check(functions, 'add', [x, 2, { alpha: 3 }], ['aten::add.Scalar', x, 2, 3])
    check(functions, 'add', [x, { re: 1, im: 2 }], ['aten::add.Scalar', x, { re: 1, im: 2 }])
  })

  it('tells an argument from the options', () => {
    const functions = run(functionsOf(
      'sum(Tensor self, *, ScalarType? dtype=None) -> Tensor',
      'sum.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor',
      'norm(Tensor self, Scalar p=2) -> Tensor', 'norm.dtype(Tensor self, Scalar? p, *, ScalarType dtype) -> Tensor'
    ))
    check(functions, 'sum', [x], ['aten::sum.', x])
    check(functions, 'sum', [x, { dtype: 'int64' }], ['aten::sum.', x, 'int64'])
    check(functions, 'sum', [x, 1, { dtype: 'int64' }], ['aten::sum.dim', x, 1, undefined, 'int64'])
    for (const dim of [[0, 1], [], null]) check(functions, 'sum', [x, dim], ['aten::sum.dim', x, dim])
    check(functions, 'norm', [x, { re: 1, im: 0 }, { dtype: 'float64' }], ['aten::norm.dtype', x, { re: 1, im: 0 }, 'float64'])
    check(functions, 'norm', [x, { p: 1 }], ['aten::norm.', x, 1])
  })

  it('tells overloads apart by their options', () => {
    const functions = run(functionsOf(
      'clamp(Tensor self, Scalar? min=None, Scalar? max=None) -> Tensor',
      'clamp.Tensor(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor',
      'std(Tensor self, bool unbiased=True) -> Tensor',
      'std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor'
    ))
    check(functions, 'clamp', [x, { min: 0 }], ['aten::clamp.', x, 0, undefined])
    check(functions, 'clamp', [x, { min: null, max: y }], ['aten::clamp.Tensor', x, null, y])
    check(functions, 'clamp', [x], ['aten::clamp.', x])
    check(functions, 'std', [x, { unbiased: false }], ['aten::std.', x, false])
    check(functions, 'std', [x, { dim: 1 }], ['aten::std.correction', x, 1, undefined, undefined])
  })

  it('tells lists of tensors from lists of numbers: an empty list is one of numbers', () => {
    const text = functionsOf('hist(Tensor self, int[] bins) -> Tensor', 'hist.tensors(Tensor self, Tensor[] bins) -> Tensor')
    const functions = run(text)
    check(functions, 'hist', [x, [y]], ['aten::hist.tensors', x, [y]])
    for (const bins of [[1, 2], []]) check(functions, 'hist', [x, bins], ['aten::hist.', x, bins])
  })

  it('applies requiresGrad to what factories make', () => {
    const tail = '*, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor'
    const functions = run(functionsOf(`zeros(SymInt[] size, ${tail}`))
    check(functions, 'zeros', [[2]], ['aten::zeros.', [2]])
    const options = { device: 'cuda', requiresGrad: true }
    check(functions, 'zeros', [[2], options], ['aten::zeros.', [2], undefined, undefined, 'cuda', undefined, { requiresGrad: true }])
  })

  it('refuses what is no options object, and options that there are not', () => {
    const functions = run(functionsOf(
      'add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor',
      'add.Scalar(Tensor self, Scalar other, Scalar alpha=1) -> Tensor', 'pool(Tensor self, *, str mode) -> Tensor',
      'zeros(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor',
      'std(Tensor self, bool unbiased=True) -> Tensor',
      'std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor'
    ))
    for (const wrong of [null, [], [1], 'alpha', 2, true, x, () => 1]) {
      expect(() => functions['add']!(x, y, wrong)).toThrow('Expected an object with alpha for the options of aten::add')
      expect(() => functions['add']!(x, 2, wrong)).toThrow(/options of aten::add/)
      expect(() => functions['pool']!(x, wrong)).toThrow('Expected an object with mode for the options of aten::pool')
      expect(() => functions['zeros']!([2], wrong)).toThrow(/an object with dtype, layout, device, pinMemory, requiresGrad/)
    }
    expect(() => functions['pool']!(x)).toThrow(/an object with mode/)
    expect(() => functions['std']!(x, null)).toThrow(/options of aten::std/)
    expect(() => functions['add']!(x, y, { alhpa: 2 })).toThrow('Expected one of alpha for an option of aten::add')
    expect(() => functions['std']!(x, { unbiased: true, keepDim: true })).toThrow(/for an option of aten::std/)
    // What is undefined is not given.
    check(functions, 'add', [x, y, { alpha: 2, other: undefined }], ['aten::add.Tensor', x, y, 2])
    check(functions, 'std', [x, { unbiased: undefined, dim: 1 }], ['aten::std.correction', x, 1, undefined, undefined])
  })

  it('drops an overload that a more general one covers, and names it', () => {
    const result = generate('any(Tensor self) -> Tensor', 'any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor')
    expect(result.members[0]!.unreachable.map(({ schema }) => schema.overload)).toEqual([''])
    expect(result.files.get('functions.generated.ts')).not.toContain('any(Tensor self) ->')
  })

  it('exports a reserved word under an alias', () => {
    check(run(functionsOf('var(Tensor self) -> Tensor')), 'var', [x], ['aten::var.', x])
  })
})

describe('emitted types', () => {
  const schemas = [
    'max(Tensor self) -> Tensor', 'max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)',
    'max.other(Tensor self, Tensor other) -> Tensor', 'where.self(Tensor condition, Tensor self, Tensor other) -> Tensor',
    'where(Tensor condition) -> Tensor[]', 'pool(Tensor self, int[2] kernel, Tensor? weight, *, str mode) -> Tensor',
    'mul_.Tensor(Tensor(a!) self, Tensor other) -> Tensor(a!)', 'mul_.Scalar(Tensor(a!) self, Scalar other) -> Tensor(a!)',
    'ones(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor',
    'can_cast(ScalarType from, ScalarType to) -> bool', 'numel(Tensor self) -> int', 'sink(Tensor[] xs) -> ()', 'var(Tensor self) -> Tensor',
    'view(Tensor(a) self, SymInt[] size) -> Tensor(a)', 'view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)',
    'chunks(Tensor self, int[] lengths) -> Tensor'
  ]
  const user = `
    import * as torch from './ops/index.js'
    import type { Tensor } from './tensor.js'
    declare const x: Tensor
    const [values, indices]: [values: Tensor, indices: Tensor] = torch.max(x, 0, { keepdim: true })
    const results: Tensor[] = [torch.max(x), x.max(values), x.where(x, indices), x.mul_(2), x.mul_(x).var(), torch.var(x)]
    const rest: [boolean, number, void] = [torch.canCast('float32', 'int64'), x.numel(), torch.sink(results)]
    x.pool(2, null, { mode: 'a' }).pool([1, 2], torch.ones([2], { requiresGrad: true, dtype: 'float32', device: undefined }), { mode: 'b' })
    const shaped: Tensor[] = [x.view([2, 3]), x.view(2, 3), x.view(-1), x.view('float32'), x.chunks([2])]
    // @ts-expect-error not in several arrays
    x.view([2], [3])
    // @ts-expect-error what is no size is given in an array
    x.chunks(2, 3)
    // @ts-expect-error a required keyword-only argument makes the options required
    x.pool(2, null)
    // @ts-expect-error no tensor
    torch.max(2)
    // @ts-expect-error no such option
    torch.max(x, 0, { keepDim: true })
    // @ts-expect-error no such dtype
    torch.ones([2], { dtype: 'float33' })
    export { rest, shaped }`

  it('type-check, as does a program that uses them', () => {
    const sources = new Map([...generate(...schemas).files].map(([name, text]) => [`/torch/ops/${name}`, text]))
    for (const name of ['index', 'arguments']) sources.set(`/torch/ops/${name}.ts`, handWritten(name))
    sources.set('/native/tensor-handle.ts', 'export class TensorHandle { #handle = 0; get handle() { return this.#handle } }')
    sources.set('/torch/tensor.ts', `import { TensorMethods } from './ops/methods.generated.js'
      export class Tensor extends TensorMethods {}`)
    sources.set('/torch/types.ts', `export type Scalar = number | bigint | boolean
      export type DType = 'float32' | 'int64'; export type Device = 'cpu'
      export type Layout = 'strided'; export type MemoryFormat = 'preserve'; export type Generator = { seed: number }`)
    sources.set('/torch/dispatch.ts', `import type { Tensor } from './tensor.js'
      export interface Operator { name: string; options: readonly string[] }
      export declare function operator(name: string, overload: string, options?: readonly string[]): Operator
      export declare function call<R>(op: object, ...args: unknown[]): R
      export declare function isTensor(value: unknown): value is Tensor
      export declare function withGrad<T extends Tensor>(tensor: T, requiresGrad: boolean | undefined): T`)
    sources.set('/errors.ts', 'export declare function expected(what: string, name: string, received: unknown): Error')
    sources.set('/torch/user.ts', user)
    const options: ts.CompilerOptions = {
      target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, strict: true,
      exactOptionalPropertyTypes: true, noImplicitOverride: true, noUnusedLocals: true, verbatimModuleSyntax: true, noEmit: true, types: []
    }
    sources.set('/package.json', '{ "type": "module" }')
    const disk = ts.createCompilerHost(options)
    const program = ts.createProgram(['/torch/user.ts'], options, {
      ...disk,
      directoryExists: () => true,
      fileExists: (path) => sources.has(path) || disk.fileExists(path),
      readFile: (path) => sources.get(path) ?? disk.readFile(path),
      getSourceFile: (path, target) => {
        const text = sources.get(path)
        return text === undefined ? disk.getSourceFile(path, target) : ts.createSourceFile(path, text, target, false)
      }
    })
    const messages = ts.getPreEmitDiagnostics(program).map(({ file, messageText, start }) => {
      const line = file && ts.getLineAndCharacterOfPosition(file, start ?? 0).line + 1
      return `${file?.fileName}:${line}: ${ts.flattenDiagnosticMessageText(messageText, ' ')}`
    })
    expect(messages).toEqual([])
  })
})

it.skipIf(!existsSync(`${root}/build-cmake/Release/gmml.node`))('the committed files are what the generator writes', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`${root}/scripts/generate-ops.mjs`, '--check'], { encoding: 'utf8' })
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' })
})
