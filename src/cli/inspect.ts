import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Command } from 'commander'

const packageFile = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

const readJson = (path: string): Record<string, unknown> | null => {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>
  } catch {
    return null
  }
}

/** How libtorch would be found now, whatever the addon was built with. */
async function searchLibtorch(): Promise<unknown> {
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [packageFile('scripts/libtorch.mjs'), '--json'])
    return JSON.parse(stdout)
  } catch (error) {
    // Found nothing: the same report, with exit code 1.
    const { stdout } = error as { stdout?: string }
    return stdout ? JSON.parse(stdout) : { found: false, error: (error as Error).message }
  }
}

/** Everything about this installation that a bug report needs. */
async function inspectInstallation(): Promise<Record<string, unknown>> {
  const gmml = readJson(packageFile('package.json'))?.['version']
  const found = { gmml, node: process.version, platform: `${process.platform} ${process.arch}` }
  const search = await searchLibtorch()
  try {
    // Loaded here, not at the top: without an addon this command must say why.
    const torch = await import('../torch/index.js')
    const { path, ...info } = torch.buildInfo()
    const devices = ['cpu', ...Array.from({ length: torch.cuda.deviceCount() }, (_, i) => `cuda:${i}`)]
    const build = readJson(join(dirname(path), 'build-info.json'))
    return {
      ...found,
      addon: { path, loads: true, napi: info.napi, compiler: info.compiler, build },
      jpeg: info.jpeg === null ? 'sharp alone: the addon was built without libjpeg-turbo' : `libjpeg-turbo ${info.jpeg}`,
      libtorch: { version: info.torch, configuration: info.configuration }, devices, threads: torch.getNumThreads(), search
    }
  } catch (error) {
    return { ...found, addon: { loads: false, error: (error as Error).message }, search }
  }
}

const show = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value))

function print(report: Readonly<Record<string, unknown>>, indent = ''): void {
  for (const [name, entry] of Object.entries(report)) {
    if (entry === undefined || entry === null) continue
    if (typeof entry === 'object' && !Array.isArray(entry)) {
      console.log(`${indent}${name}:`)
      print(entry as Record<string, unknown>, `${indent}  `)
    } else {
      const text = Array.isArray(entry) ? entry.map(show).join(', ') : show(entry)
      console.log(`${indent}${name}: ${text.trimEnd().replaceAll('\n', `\n${indent}  `)}`)
    }
  }
}

export function inspectCommand(): Command {
  const command = new Command('inspect')
  command.description('Show what this installation is made of: Node, addon, JPEG decoder, libtorch and where it came from, devices')
  return command.option('--json', 'print JSON').action(async () => {
    const report = await inspectInstallation()
    if (command.opts<{ json?: boolean }>().json) console.log(JSON.stringify(report, null, 2))
    else print(report)
    if (!(report['addon'] as { loads: boolean }).loads) process.exitCode = 1
  })
}
