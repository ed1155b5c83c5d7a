import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { parquetWriteBuffer } from 'hyparquet-writer'
import sharp from 'sharp'

const root = fileURLToPath(new URL('../..', import.meta.url))
const run = promisify(execFile)

/** The fenced blocks of a language in a Markdown text. */
export function codeBlocks(markdown: string, language: string): string[] {
  return [...markdown.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map((match) => match[1]!)
}

/** The commands of `gmml` in a text's `sh` blocks, each as its arguments; a line that ends in a backslash goes on. */
export function gmmlCommands(markdown: string): string[][] {
  const lines = codeBlocks(markdown, '(?:ba)?sh').flatMap((block) => block.replaceAll(/\\\n\s*/g, '').trim().split('\n'))
  const start = 'npx gmml '
  return lines.filter((line) => line.startsWith(start)).map((line) => line.slice(start.length).replace(/\s+#.*$/, '').trim().split(/\s+/))
}

// What makes a command of a text quick enough for a test: said after it, where the last word counts.
const quick: Readonly<Record<string, readonly string[]>> = {
  pretrain: ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '4', '--epochs', '1', '--amp', 'off', '--threads', '1'],
  'knn random': ['--model', 'vit_micro', '--image-size', '32'],
  'probe random': ['--model', 'vit_micro', '--image-size', '32'],
  'finetune random': ['--model', 'vit_micro', '--image-size', '32', '--batch-size', '4', '--epochs', '1', '--amp', 'off', '--threads', '1'],
  finetune: ['--batch-size', '4', '--epochs', '1', '--amp', 'off', '--threads', '1'],
  experiment: ['--model', 'vit_micro', '--image-size', '32', '--pretrain-epochs', '1', '--finetune-epochs', '1,1,1', '--seeds', '1', '--threads', '1', '--config', 'quick.yaml']
}

/** Runs a command of `gmml` in a folder, made quick. @returns What it printed. @throws An error if it fails. */
export async function runCommand(folder: string, args: readonly string[]): Promise<string> {
  const extra = Object.entries(quick).find(([start]) => `${args.join(' ')} `.startsWith(`${start} `))?.[1] ?? []
  const { stdout, stderr } = await run(process.execPath, [join(root, 'dist/cli/main.js'), ...args, ...extra], { cwd: folder })
  return stdout + stderr
}

/** Photographs in two classes. */
async function photos(folder: string, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const sub = join(folder, i % 2 ? 'dark' : 'light')
    await mkdir(sub, { recursive: true })
    const level = i % 2 ? 20 + i : 220 - i
    await sharp({ create: { width: 48, height: 40, channels: 3, background: { r: level, g: level, b: level } } }).jpeg().toFile(join(sub, `${i}.jpg`))
  }
}

/** The images of a folder of classes as a Parquet table. */
async function table(folder: string): Promise<Uint8Array> {
  const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.jpg')).sort()
  const images = await Promise.all(files.map((name) => readFile(join(folder, name))))
  const labels = files.map((name) => dirname(name))
  const columns = [{ name: 'image', data: images, type: 'BYTE_ARRAY' as const }, { name: 'label', data: labels, type: 'STRING' as const }]
  return new Uint8Array(parquetWriteBuffer({ columnData: columns }))
}

/** A folder as a user has it: `photos/`, `photos.tar`, `others/`, a table `more.parquet`, and a project in which `gmml` is installed. */
export async function userFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gmml-user-'))
  await photos(join(folder, 'photos'), 8)
  await photos(join(folder, 'others'), 4)
  await run('tar', ['--sort=name', '-cf', 'photos.tar', '-C', 'photos', '.'], { cwd: folder })
  await writeFile(join(folder, 'more.parquet'), await table(join(folder, 'others')))
  await mkdir(join(folder, 'node_modules'))
  await symlink(root, join(folder, 'node_modules/gmml'))
  await writeFile(join(folder, 'package.json'), '{"type": "module"}')
  await writeFile(join(folder, 'quick.yaml'), '{ pretrain: { batchSize: 4, amp: off }, finetune: { batchSize: 4, amp: off } }')
  return folder
}
