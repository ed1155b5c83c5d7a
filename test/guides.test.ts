import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

import { codeBlocks, gmmlCommands, runCommand, userFolder } from './support/documents.js'
import { temporaryFolder } from './support/folder.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const run = promisify(execFile)
const guides = (await readdir(join(root, 'docs/guides'))).filter((name) => name.endsWith('.md')).sort()
const texts = Object.fromEntries(await Promise.all(guides.map(async (name) => [name, await readFile(join(root, 'docs/guides', name), 'utf8')] as const)))

// Inside the package, where `import 'gmml'` finds the package itself, as the examples do.
const programs = join(root, 'build-examples/guides')
const programOf = (guide: string) => guide.replace('.md', '')
const withCode = guides.filter((name) => codeBlocks(texts[name]!, 'ts').length > 0)

/** Type-checks and compiles the blocks of each guide as one program. */
beforeAll(async () => {
  await rm(programs, { recursive: true, force: true })
  await mkdir(programs, { recursive: true })
  for (const name of withCode) await writeFile(join(programs, `${programOf(name)}.ts`), codeBlocks(texts[name]!, 'ts').join('\n'))
  const compilerOptions = { noEmit: false, rootDir: '.', outDir: 'built', noUnusedLocals: false }
  await writeFile(join(programs, 'tsconfig.json'), JSON.stringify({ extends: '../../tsconfig.json', compilerOptions, include: ['*.ts'] }))
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', programs]).catch((error: unknown) => {
    throw new Error(`A guide's program has an error of types:\n${(error as { stdout: string }).stdout}`)
  })
})

describe('guides', () => {
  it.each(withCode)('%s: the program runs, from an empty folder', async (name) => {
    const empty = await temporaryFolder()
    await run(process.execPath, [join(programs, 'built', `${programOf(name)}.js`)], { cwd: empty })
  })

  it('have links that lead somewhere, and the README leads to each', async () => {
    const readme = await readFile(join(root, 'README.md'), 'utf8')
    for (const [name, text] of Object.entries(texts)) {
      expect(readme.includes(`docs/guides/${name}`), `${name} in the README`).toBe(true)
      const links = [...text.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!).filter((link) => !link.startsWith('http'))
      for (const link of links) expect(existsSync(join(dirname(join(root, 'docs/guides', name)), link)), `${name}: ${link}`).toBe(true)
    }
  })

  describe('commands', () => {
    let folder: string
    beforeAll(async () => {
      folder = await userFolder()
      await runCommand(folder, ['pretrain', 'photos/', '--out', 'runs/photos'])
      // Weights as a user has them from elsewhere.
      await runCommand(folder, ['export', 'runs/photos', '--to', 'pytorch', '--out', 'checkpoint.pth'])
    })
    afterAll(() => rm(folder, { recursive: true, force: true }))

    const commands = guides.flatMap((name) => gmmlCommands(texts[name]!).map((args) => [name, args.join(' '), args] as const))
    it.each(commands)('%s: gmml %s', async (_, __, args) => {
      await runCommand(folder, args)
    })
  })
})
