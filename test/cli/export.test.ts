import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { embedded, gmml, quick, temporaryFolder } from './support.js'

describe('gmml export', () => {
  it('shows its help, and wrong usage is 2', async () => {
    const help = await gmml(['export', '--help'])
    expect(help.code).toBe(0)
    expect(help.stdout).toMatch(/^Usage: gmml export/)
    for (const flag of ['--to', 'timm', 'huggingface', 'onnx', 'pytorch', '--out', '--checkpoint', '--image-size', '--opset', '--force']) {
      expect(help.stdout).toContain(flag)
    }
    expect((await gmml(['--help'])).stdout).toMatch(/export +write an encoder for timm/)
    const wrong: [string[], RegExp][] = [
      [['export', '--to', 'onnx'], /missing required argument 'what'/],
      [['export', 'run'], /required option '--to <format>' not specified/],
      [['export', 'run', '--to', 'caffe'], /Allowed choices are timm, huggingface, onnx, pytorch/],
      [['export', 'run', '--to', 'onnx', '--checkpoint', 'best'], /integer of at least 0 for --checkpoint, received 'best'/],
      [['export', 'run', '--to', 'onnx', '--image-size', '0'], /integer of at least 1 for --image-size, received '0'/],
      [['export', 'run', '--to', 'onnx', '--opset', '5'], /one of 17, 18, 19, 20 for --opset, received '5'/]
    ]
    for (const [args, message] of wrong) {
      expect(await gmml(args)).toMatchObject({ code: 2, stdout: '', stderr: expect.stringMatching(message) as string })
    }
  })

  it('exports a run to every format, once', async () => {
    const run = join(await temporaryFolder(), 'run')
    expect(await gmml(['export', run, '--to', 'onnx'])).toMatchObject({
      code: 1, stderr: expect.stringMatching(/^gmml: Expected a run's folder or a file of weights for what to export/) as string
    })
    expect((await gmml(['pretrain', join(embedded, 'train'), '--out', run, ...quick])).code).toBe(0)
    const out = (name: string) => join(run, 'exported', name)
    const written = { timm: 'backbone-timm', huggingface: 'backbone-huggingface', onnx: 'backbone.onnx', pytorch: 'backbone.pth' }
    const loaded = { timm: 'local-dir:', huggingface: 'ViTModel.from_pretrained(', onnx: 'Session.create(', pytorch: 'torch.load(' }
    for (const [to, name] of Object.entries(written)) {
      const { code, stdout, stderr } = await gmml(['export', run, '--to', to])
      expect(code, stderr).toBe(0)
      expect(stdout).toMatch(new RegExp(`^${out(name)}, from ${out('backbone.safetensors')}. To load it:\n\n  .*\n  .*\n`))
      expect(stdout).toContain(loaded[to as keyof typeof loaded])
      expect(existsSync(out(name))).toBe(true)
      expect(await gmml(['export', run, '--to', to])).toMatchObject({ code: 1, stderr: expect.stringMatching(/\(force\)/) as string })
    }
    const other = join(run, 'other.onnx')
    const chosen = ['--checkpoint', '6', '--out', other, '--image-size', '56', '--opset', '20', '--json']
    const last = await gmml(['export', run, '--to', 'onnx', ...chosen])
    expect(last.code, last.stderr).toBe(0)
    expect(JSON.parse(last.stdout)).toMatchObject({ path: other, weights: join(run, 'checkpoints/step-00000006.safetensors') })
  })
})
