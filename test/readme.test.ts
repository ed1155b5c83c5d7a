import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)
const readme = await readFile(join(root, 'README.md'), 'utf8')

const blocks = (language: string): string[] => [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map((match) => match[1]!)

// What makes a command of the README quick enough for a test: said after it, where the last word counts.
const quick: Readonly<Record<string, readonly string[]>> = {
  'pretrain photos/': ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '4', '--epochs', '1', '--amp', 'off', '--threads', '1'],
  'knn random': ['--model', 'vit_micro', '--image-size', '32']
}

let folder: string

/** Photographs in two classes. */
async function photos(name: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const sub = join(folder, name, i % 2 ? 'dark' : 'light')
    await mkdir(sub, { recursive: true })
    const level = i % 2 ? 20 + i : 220 - i
    await sharp({ create: { width: 48, height: 40, channels: 3, background: { r: level, g: level, b: level } } }).jpeg().toFile(join(sub, `${i}.jpg`))
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gmml-readme-'))
  await photos('photos', 8)
  await photos('others', 4)
  // `import ... from 'gmml'` as in a project that has installed it.
  await mkdir(join(folder, 'node_modules'))
  await symlink(root, join(folder, 'node_modules/gmml'))
  await writeFile(join(folder, 'package.json'), '{"type": "module"}')
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
    const commands = blocks('sh').flatMap((block) => block.trim().split('\n')).filter((line) => line.startsWith('npx gmml '))
    expect(commands.map((command) => command.split(' ')[2])).toEqual(['pretrain', 'knn', 'knn'])
    for (const command of commands) {
      const args = command.replace('npx gmml ', '').split(/\s+/)
      const extra = Object.entries(quick).find(([start]) => args.join(' ').startsWith(start))?.[1] ?? []
      const { stdout, stderr } = await run(process.execPath, [join(root, 'dist/cli/main.js'), ...args, ...extra], { cwd: folder })
      expect(stdout + stderr, command).toMatch(args[0] === 'knn' ? /mean +\d+\.\d\d %/ : /Done in .*backbone\.safetensors/)
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
