// Time that tsc needs for a user's project: one that imports gmml/torch, and the same without it.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { spread, summary, table } from './statistics.mjs'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const require = createRequire(import.meta.url)
const TSC = join(dirname(require.resolve('typescript/package.json')), 'bin', 'tsc')

/** What `tsc --init` and a first program come to. */
const OPTIONS = { target: 'ES2023', module: 'NodeNext', strict: true, noEmit: true, types: ['node'] }

const WITHOUT = `export class Point { constructor(readonly x: number, readonly y: number) {} }
console.log(new Point(1, 2), process.version)
`
const WITH = `import * as torch from 'gmml/torch'
import { ellipsis, slice, type Tensor } from 'gmml/torch'

function layer(x: Tensor, w: Tensor, b: Tensor): Tensor {
  return torch.gelu(torch.layerNorm(torch.linear(x, w, { bias: b }), [w.shape[0]!], { eps: 1e-6 }))
}
const x = torch.randn([8, 16], { requiresGrad: true, dtype: 'float32' })
const [w, b] = [torch.randn([4, 16]), torch.zeros([4])]
const y = torch.scope(() => layer(x, w, b).add(1).mul(2).sum(-1, { keepdim: true }))
const [values, indices] = torch.cat([y, y], { dim: 1 }).max(1)
values.at(slice(1, 5), null, ellipsis).clamp({ min: 0 }).mean().backward()
console.log(x.grad?.reshape(-1).toArray(), indices.shape, torch.where(x.gt(0), x, 0).std({ correction: 0 }).item())
`

const PROJECTS = [
  { name: 'gmml/torch, skipLibCheck', source: WITH, skipLibCheck: true },
  { name: 'gmml/torch, every declaration checked', source: WITH, skipLibCheck: false },
  { name: 'without it, skipLibCheck', source: WITHOUT, skipLibCheck: true },
  { name: 'without it, every declaration checked', source: WITHOUT, skipLibCheck: false }
]

function makeProject(folder, { source, skipLibCheck }) {
  const modules = join(folder, 'node_modules')
  mkdirSync(join(modules, '@types'), { recursive: true })
  const link = (name) => symlinkSync(join(ROOT, 'node_modules', name), join(modules, name))
  link('@types/node')
  link('undici-types') // which those of Node are made with
  symlinkSync(ROOT, join(modules, 'gmml'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: { ...OPTIONS, skipLibCheck }, include: ['main.ts'] }))
  writeFileSync(join(folder, 'main.ts'), source)
}

// The compiler, which ends with a word about its processor time: on a busy machine that says more than the clock.
const COMPILER = `
  process.argv.splice(1, 0, 'tsc')
  process.on('exit', () => console.log('CPU: ' + process.cpuUsage().user + ' ' + process.cpuUsage().system))
  require(${JSON.stringify(TSC)})
`

/** One run in a process of its own, as a user starts it. */
function check(folder) {
  const start = performance.now()
  const args = ['-e', COMPILER, '--', '-p', folder, '--extendedDiagnostics']
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
  const seconds = (performance.now() - start) / 1000
  if (status !== 0) throw new Error(`tsc refused the project:\n${stdout}${stderr}`)
  const number = (label) => Number(new RegExp(`^${label}:\\s+(\\d+)`, 'm').exec(stdout)?.[1])
  const [, user, system] = /^CPU: (\d+) (\d+)/m.exec(stdout)
  const cpu = (Number(user) + Number(system)) / 1e6
  return { seconds, cpu, memoryMiB: Math.round(number('Memory used') / 1024), files: number('Files'), types: number('Types') }
}

/** @param {{ quick: boolean }} options */
export async function run({ quick }) {
  if (!existsSync(join(ROOT, 'dist/torch/index.d.ts'))) throw new Error('expected dist/: npm run build:ts')
  const rounds = quick ? 2 : 9
  const root = mkdtempSync(join(tmpdir(), 'gmml-types-'))
  try {
    const folders = PROJECTS.map((project, i) => {
      const folder = join(root, String(i))
      makeProject(folder, project)
      return folder
    })
    folders.forEach((folder) => check(folder)) // the files are in the system's cache from here on
    const samples = PROJECTS.map(() => [])
    for (let round = 0; round < rounds; round++) folders.forEach((folder, i) => samples[i].push(check(folder)))
    const rows = PROJECTS.map(({ name }, i) => {
      const { memoryMiB, files, types } = samples[i][0]
      const seconds = samples[i].map((sample) => sample.seconds)
      const cpu = summary(samples[i].map((sample) => sample.cpu))
      return { name, seconds: summary(seconds), best: Math.min(...seconds), cpu, memoryMiB, files, types }
    })
    const what = "seconds that tsc takes for a user's project, process start included"
    return { name: 'types', what, typescript: require('typescript/package.json').version, rounds, rows }
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

export function print({ rows, rounds, typescript }) {
  console.log(`\ntypes: seconds of tsc ${typescript} for a user's project; median of ${rounds} runs (quartiles)`)
  console.log(table(
    ['', 'seconds', 'best', 'CPU seconds', 'MiB', 'files', 'types'],
    rows.map(({ name, seconds, best, cpu, memoryMiB, files, types }) => [
      name, spread(seconds), best.toFixed(2), spread(cpu), ...[memoryMiB, files, types].map(String)
    ])
  ))
}
