// Writes src/torch/ops/*.generated.ts from the operator schemas of the built addon.
//
//   node scripts/generate-ops.mjs [--check] [--schemas FILE] [--verbose]
//
// --check    writes nothing; exit 1 names the first file that differs from what would be written
// --schemas  reads schema strings from a text file, one a line, instead of the addon; a first line `# libtorch 2.13.0` gives the version
// --verbose  lists every overload that was decided by rule
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { emit } from './generate/emit.mjs'
import { families } from './generate/rules.mjs'
import { parseSchema } from './generate/schema.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = join(root, 'src', 'torch', 'ops')
const addonPath = join(root, 'build-cmake', 'Release', 'gmml.node')

function readSchemas(file) {
  if (file === undefined) {
    if (!existsSync(addonPath)) throw new Error('Expected the built addon: run npm run build:native, or give --schemas FILE')
    const addon = createRequire(import.meta.url)(addonPath)
    // A local version label (`+cpu`, `+cu130`) says nothing about the schemas.
    return { schemas: addon.listOperators(), version: addon.buildInfo().torch.replace(/\+.*/, '') }
  }
  const lines = readFileSync(file, 'utf8').split('\n').filter((line) => line !== '')
  const version = /^# libtorch (\S+)/.exec(lines[0] ?? '')?.[1] ?? 'unknown'
  return { schemas: lines.filter((line) => !line.startsWith('#')), version }
}

const name = ({ schema }) => schema.overload || '(default)'

function summary({ members, skips, files }, verbose) {
  const overloads = members.reduce((sum, { signatures }) => sum + signatures.length, 0)
  console.log(`${members.length} families, ${overloads} overloads`)
  for (const [file, text] of files) console.log(`  ${file}: ${text.split('\n').length - 1} lines`)
  console.log('skipped:')
  for (const [reason, count] of [...skips].sort((a, b) => b[1] - a[1])) console.log(`  ${String(count).padStart(5)}  ${reason}`)
  const covered = members.filter(({ unreachable }) => unreachable.length > 0)
  console.log(`covered by a more general overload, callable by name only: ${covered.flatMap(({ unreachable }) => unreachable).length}`)
  for (const { unreachable } of covered) for (const { schema } of unreachable) console.log(`  ${schema.text}`)
  const overlapping = members.filter(({ overlaps }) => overlaps.length > 0)
  console.log(`some values fit several overloads, the most general is called: ${overlapping.length} families`)
  if (!verbose) return
  for (const { family, overlaps } of overlapping) {
    const pairs = overlaps.map(({ chosen, others }) => `${name(chosen)} over ${others.map(name).join(', ')}`)
    for (const pair of new Set(pairs)) console.log(`  ${family.aten}: ${pair}`)
  }
}

/** The version that the committed files were made from. */
function committedVersion(name) {
  const path = join(folder, name)
  return existsSync(path) ? /libtorch (\S+)\. Do not edit/.exec(readFileSync(path, 'utf8'))?.[1] : undefined
}

function check(files, version) {
  const committed = committedVersion([...files.keys()][0])
  if (committed !== undefined && committed !== version) {
    console.log(`The committed files are of libtorch ${committed}, this is ${version}: nothing to compare`)
    return
  }
  for (const [name, text] of files) {
    const path = join(folder, name)
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue
    console.error(`src/torch/ops/${name} is not what the schemas give: run npm run generate`)
    process.exitCode = 1
    return
  }
  console.log(`${files.size} files are up to date`)
}

const { values: options } = parseArgs({
  options: { check: { type: 'boolean' }, schemas: { type: 'string' }, verbose: { type: 'boolean' } }
})
const { schemas, version } = readSchemas(options.schemas)
const grouped = families([...new Set(schemas)].filter((text) => text.startsWith('aten::')).map(parseSchema))
const result = { ...emit(grouped.families, version), skips: grouped.skips }
if (options.check) check(result.files, version)
else {
  for (const [name, text] of result.files) writeFileSync(join(folder, name), text)
  summary(result, options.verbose)
}
