import { execFile } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

// The examples import `gmml` like any user: through the package's own exports, from what `npm run build:ts` made.
beforeAll(async () => {
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.examples.json'], { cwd: root })
})

async function example(name: string, ...args: string[]): Promise<string> {
  return (await run(process.execPath, [join('build-examples', `${name}.js`), ...args], { cwd: root })).stdout
}

describe('examples', () => {
  it('are all run here', async () => {
    expect((await readdir(join(root, 'examples'))).sort()).toEqual([
      'checkpointing.ts', 'export-onnx.ts', 'huggingface.ts', 'indexing.ts', 'pretrain.ts', 'pytorch-weights.ts', 'regression.ts',
      'safetensors.ts', 'tensors.ts', 'timm.ts'
    ])
  })

  it('tensors', async () => {
    const output = await example('tensors')
    // log(8) + log(11) + log(16) + log(23)
    expect(Number(/y = ([\d.]+)/.exec(output)?.[1])).toBeCloseTo(Math.log(8 * 11 * 16 * 23), 4)
    expect(output).toContain('[ 2, 4 ]')
  })

  it('indexing', async () => {
    const output = await example('indexing')
    expect(output).toContain('x[0, 1:3] = tensor([[ 4,  5,  6,  7],\n        [ 8,  9, 10, 11]])')
    expect(output).toContain('even ones: [')
    expect(output).toContain('sums of the rows: [ 11, 25, 39 ]\nsums of the rows: [ 23, 37, 51 ]')
    expect(output).toContain('y = tensor([1., 1.], grad_fn=<IndexBackward0>)')
    expect(output).toContain('dy/dw = tensor([1., 0., 1.])')
  })

  it('regression', async () => {
    const output = await example('regression')
    expect(Number(/sine without noise: ([\d.]+)/.exec(output)?.[1])).toBeLessThan(0.15)
  })

  it('timm', async () => {
    const output = await example('timm')
    expect(output).toContain('12 blocks of width 192, images of 224 x 224, 1000 classes')
    expect(output).toContain('tokens [2, 61, 192], of them patches [2, 60, 192]\nfeatures [2, 192]')
    expect(JSON.parse(/for timm: (.*)/.exec(output)![1]!)).toMatchObject({ img_size: [96, 160], in_chans: 4, num_classes: 0, num_heads: 3 })
  })

  it('pytorch-weights', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gmml-example-'))
    try {
      const output = await example('pytorch-weights', join(folder, 'training.pth'))
      expect(output).toMatch(/model: 4 tensors, 0.weight is float32 \[16, 4\]/)
      expect(output).toMatch(/goes on after step 3 at lr 0.01/)
      expect(await readdir(folder)).toEqual(['training.pth'])
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })

  it('safetensors', async () => {
    const output = await example('safetensors')
    expect(output).toMatch(/^(\d+) tensors, random weights\n.*\nread: cls_token pos_embed\n[^]*\n\1 tensors of bfloat16\n$/)
    expect(output).toContain("{ dtype: 'float32', shape: [ 1, 65, 128 ] }")
    expect(output).toMatch(/\nmodel-00001-of-00004.safetensors\n[^]*\nmodel.safetensors.index.json\n/)
  })

  it('checkpointing', async () => {
    const output = await example('checkpointing')
    expect(output).toBe('the same gradients, to the bit: true\nthe same random numbers after it: true\ngradient of the input: 4 x 65 x 96\n')
  })

  it('pretrain', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gmml-example-'))
    try {
      const images = join(root, 'data/fashion-mnist-mini/held-out')
      const output = await example('pretrain', images, join(folder, 'run'))
      expect(output).toMatch(/step 10\/16: loss \d\.\d+/)
      expect(await readdir(join(folder, 'run/exported'))).toEqual(['backbone.safetensors'])
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })

  it('export-onnx', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gmml-example-'))
    try {
      const out = join(folder, 'backbone.onnx')
      expect(await example('export-onnx', out)).toContain(`${out}: takes images`)
      expect(await readdir(folder)).toEqual(['backbone.onnx'])
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })

  it('huggingface', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gmml-example-'))
    try {
      const made = await example('huggingface', join(folder, 'model'))
      expect(made).toContain('normalise by mean 0.5, 0.5, 0.5 and deviation 0.5, 0.5, 0.5; features: 2 x 128')
      expect(await example('huggingface', join(folder, 'model'))).toBe(made)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
