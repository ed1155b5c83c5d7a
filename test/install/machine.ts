import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const repository = join(import.meta.dirname, '../..')
const library = (name: string) => `lib/lib${name}.${process.platform === 'darwin' ? 'dylib' : 'so'}`

export interface Result {
  code: number | null
  stdout: string
  stderr: string
}

/** What the pretended python3 answers: where its torch is (not looking at PYTHONPATH), and what its pip does. */
export interface FakePython {
  torch?: string
  modules?: string[]
  pip?: 'installs' | 'fails' | 'missing'
  tag?: string
}

/**
 * A pretended machine: a PATH of one folder with the stub tools that a test puts there, a home and a cache of its own, and
 * the package with a single source. The scripts run in it as users run them, as processes of their own.
 */
export class Machine {
  readonly root = realpathSync(mkdtempSync(join(tmpdir(), 'gmml-install-')))
  readonly package = join(this.root, 'package')
  readonly path = join(this.root, 'bin')
  readonly cache = join(this.root, 'cache/gmml')
  readonly work = join(this.root, 'work')
  readonly pipLog = join(this.root, 'pip.log')

  constructor() {
    for (const folder of [this.path, this.cache, this.work, join(this.package, 'native')]) mkdirSync(folder, { recursive: true })
    for (const name of ['scripts', 'CMakeLists.txt', 'binding.gyp', 'package.json']) {
      cpSync(join(repository, name), join(this.package, name), { recursive: true })
    }
    symlinkSync(join(repository, 'node_modules'), join(this.package, 'node_modules'))
    writeFileSync(join(this.package, 'native/addon.cc'), '')
  }

  remove() {
    rmSync(this.root, { recursive: true, force: true })
  }

  /** Puts a shell script on the path. The shell's own folders are put back inside it: stubs need mkdir, tests must not find g++. */
  tool(name: string, body = `echo "${name} 1.0"`) {
    const file = join(this.path, name)
    writeFileSync(file, `#!/bin/sh\nPATH=/usr/bin:/bin\n${body}\n`)
    chmodSync(file, 0o755)
  }

  /** The tools of a machine that lacks nothing but python3. Its cmake "builds" an empty addon, or ends as it is told to. */
  buildTools(compile = 'mkdir -p "$2/Release"; touch "$2/Release/gmml.node"; echo "c++ -O3 -std=c++20 -c addon.cc"') {
    for (const name of ['g++', 'make']) this.tool(name)
    this.tool('cmake', `case "$1" in\n--version) echo "cmake version 3.25.1" ;;\n--build) ${compile} ;;\nesac`)
  }

  /** A folder that looks like libtorch to the search, as it is in a wheel or bare. */
  libtorch(folder: string, version: string, { cuda = false, bare = false } = {}) {
    const files: Record<string, string> = {
      'include/ATen/ATen.h': '',
      [library('torch_cpu')]: '',
      [library('c10')]: '',
      ...(bare ? { 'build-version': `${version}\n` } : { '__init__.py': '', 'version.py': `__version__ = '${version}'\n` }),
      ...(cuda ? { [library('torch_cuda')]: '' } : {})
    }
    for (const [name, text] of Object.entries(files)) {
      const file = join(folder, name)
      mkdirSync(join(file, '..'), { recursive: true })
      writeFileSync(file, text)
    }
    return folder
  }

  /** A python3 whose pip copies a torch that was laid ready, slowly enough for two installs to overlap, and counts its calls. */
  python({ torch, modules = [], pip = 'installs', tag = 'cp311' }: FakePython = {}) {
    const ready = this.libtorch(join(this.root, 'wheel/torch'), '2.13.0+cpu')
    const origins: Record<string, string | null> = {
      ...Object.fromEntries(modules.map((name) => [name, `${name}.py`])),
      torch: torch === undefined ? null : join(torch, '__init__.py'),
      pip: pip === 'missing' ? null : 'pip.py'
    }
    const answer = JSON.stringify({ executable: join(this.path, 'python3'), version: '3.11.7', tag, modules: origins })
    const installs = `echo "$@" >> '${this.pipLog}'; mkdir -p "$5"; sleep 0.5; cp -R '${ready}' "$5/"`
    const fails = 'echo "Retrying after connection broken"; echo "ERROR: no route to the index" >&2; exit 1'
    const install = pip === 'fails' ? fails : installs
    this.tool('python3', `case "$1" in\n-c) echo '${answer}' ;;\n-m) ${install} ;;\n*) echo "Python 3.11.7" ;;\nesac`)
  }

  start(script: string, args: string[] = [], env: Record<string, string> = {}): { child: ChildProcess; result: Promise<Result> } {
    const child = spawn(process.execPath, [join(this.package, 'scripts', script), ...args], {
      cwd: this.work,
      detached: true, // a process group of its own, which a test can interrupt as a terminal does
      env: { PATH: this.path, HOME: this.root, XDG_CACHE_HOME: join(this.root, 'cache'), ...env }
    })
    const result = new Promise<Result>((resolve, reject) => {
      let stdout = ''
      let stderr = ''
      child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
      child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
      child.on('error', reject)
      child.on('close', (code) => resolve({ code, stdout, stderr }))
    })
    return { child, result }
  }

  run(script: string, args: string[] = [], env: Record<string, string> = {}) {
    return this.start(script, args, env).result
  }

  /** What the search finds, as its --json says it. */
  async search(args: string[] = [], env: Record<string, string> = {}) {
    const { stdout } = await this.run('libtorch.mjs', ['--json', ...args], env)
    return JSON.parse(stdout) as Search
  }
}

export interface Search {
  found: boolean
  path?: string
  version?: string
  source?: string
  cuda?: boolean
  cudaInclude?: string[]
  error?: string
  tried: { source: string; path?: string; reason: string }[]
}
