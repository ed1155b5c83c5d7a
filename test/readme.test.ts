import { execFile } from 'node:child_process'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { codeBlocks, gmmlCommands, runCommand, userFolder } from './support/documents.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)
const readme = await readFile(join(root, 'README.md'), 'utf8')

const blocks = (language: string): string[] => codeBlocks(readme, language)

let folder: string
beforeAll(async () => {
  folder = await userFolder()
})

afterAll(() => rm(folder, { recursive: true, force: true }))

describe('README', () => {
  it('has commands of npm that there are', async () => {
    const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
    const named = [...readme.matchAll(/npm run ([\w:]+)/g)].map((match) => match[1]!)
    expect(named.length).toBeGreaterThan(1)
    for (const name of named) expect(Object.keys(scripts)).toContain(name)
    expect(scripts).toHaveProperty('test')
  })

  it('has links that lead somewhere', () => {
    const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)].map((match) => match[1]!).filter((link) => !link.startsWith('http'))
    expect(links.length).toBeGreaterThan(3)
    for (const link of links) expect(existsSync(join(root, link)), link).toBe(true)
  })

  it('has commands of gmml that work', async () => {
    const signs: Readonly<Record<string, RegExp>> = {
      data: /^images {4}8 in photos\/[^]*Each row of preview\.png/,
      pretrain: /Done in .*backbone\.safetensors/, knn: /mean +\d+\.\d\d % \(95 %/, probe: /mean +\d+\.\d\d % \(95 %/,
      finetune: /test: \d+\.\d\d %/, classify: /^\d+\.\d\d % \(95 %[^]*4 images; predictions in runs\/classifier\/classify\/others\/predictions\.csv/,
      export: /backbone\.onnx/
    }
    const commands = gmmlCommands(readme)
    expect(commands.map(([command]) => command)).toEqual(['data', 'pretrain', 'knn', 'probe', 'finetune', 'classify', 'export'])
    for (const args of commands) {
      const sign = signs[args[0]!]
      // toMatch(undefined) matches every text.
      expect(sign, args[0]).toBeInstanceOf(RegExp)
      const output = await runCommand(folder, args)
      expect(output, args.join(' ')).toMatch(sign!)
    }
  })

  it('has programs that run', async () => {
    const [pretraining, memory] = blocks('ts')
    // The README's run is long, and in the test its folder exists already.
    const shortened = pretraining!.replace("model: 'vit_small', out: 'runs/photos'", "model: 'vit_micro', imageSize: 32, batchSize: 4, epochs: 1, amp: 'off', out: 'runs/code'")
    expect(shortened).not.toBe(pretraining)
    await writeFile(join(folder, 'pretrain.mjs'), shortened)
    await run(process.execPath, ['pretrain.mjs'], { cwd: folder })
    expect(existsSync(join(folder, 'runs/code/exported/backbone.safetensors'))).toBe(true)
    await writeFile(join(folder, 'memory.mjs'), memory!)
    const { stdout } = await run(process.execPath, ['memory.mjs'], { cwd: folder })
    expect(stdout).toMatch(/^-?\d+\.?\d* 1\n$/) // one tensor is alive: the sum
  })
})
