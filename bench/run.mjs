// npm run bench -- [ops] [step] [zoo] [types] [checkpoint] [data] [--quick] [--write] [--only TEXT] [--device cuda]: see README.md
import { parseArgs } from 'node:util'
import { describeDevice, describeGpu, writeRecord } from './record.mjs'

const BENCHMARKS = ['ops', 'step', 'zoo', 'types', 'checkpoint', 'data', 'fused']
const USUAL = ['ops', 'step']
/** Those that measure on a device that is named, and the program that does. */
const ON_DEVICE = { ops: './ops.mjs', step: './device/step.mjs' }
const NUMBERS = ['batch', 'seconds']
const USAGE = `npm run bench -- [${BENCHMARKS.join('] [')}] [--quick] [--write] [--only TEXT]

  --quick   few and short rounds, to see that it runs; no record unless --write is given
  --write   a record in bench/results (the default without --quick)
  --only    step, zoo, checkpoint, data, fused: the cases whose name has TEXT in it; no record unless --write is given
  --results a folder for the records instead of bench/results

On a GPU, ${Object.keys(ON_DEVICE).join(' and ')} alone:
  --device  cuda; with cpu the same programs run on small models, to see that they do: no figures to quote
  --sides   step: what is compared, with commas between; see README.md
  --batch   step: crops of a step, where they are not to be found by memory
  --seconds for each benchmark; what is not ready by then is left out by name`

function parse() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: 'boolean', default: false }, write: { type: 'boolean' }, only: { type: 'string' }, help: { type: 'boolean' },
        results: { type: 'string' }, device: { type: 'string' }, sides: { type: 'string' }, batch: { type: 'string' }, seconds: { type: 'string' }
      }
    })
    const unknown = positionals.filter((name) => !BENCHMARKS.includes(name))
    if (unknown.length) throw new Error(`expected ${BENCHMARKS.join(' or ')}, received ${unknown.join(' ')}`)
    const names = positionals.length ? positionals : USUAL
    if (values.device !== undefined) {
      if (!['cuda', 'cpu'].includes(values.device)) throw new Error(`expected cuda or cpu for --device, received ${values.device}`)
      const without = names.filter((name) => !(name in ON_DEVICE))
      if (without.length) throw new Error(`expected ${Object.keys(ON_DEVICE).join(' or ')} with --device, received ${without.join(' ')}`)
    }
    for (const name of NUMBERS) {
      const value = values[name]
      if (value !== undefined && !(Number(value) > 0)) throw new Error(`expected a number above 0 for --${name}, received ${value}`)
    }
    return { ...values, write: values.write ?? !(values.quick || values.only), names }
  } catch (error) {
    console.error(`${error.message}\n\n${USAGE}`)
    process.exit(2)
  }
}

const options = parse()
if (options.help) {
  console.log(USAGE)
} else {
  const command = ['npm run bench --', ...process.argv.slice(2)].join(' ')
  for (const name of options.names) {
    const device = describeDevice()
    const { run, print } = await import(options.device ? ON_DEVICE[name] : `./${name}.mjs`)
    let gpu
    /** A record of what there is until here: what ends the process must not take that along. */
    const save = (result, tell = false) => {
      if (!options.write) return
      if (result.device === 'cuda') gpu ??= { gpu: describeGpu() }
      writeRecord(result, { ...device, ...gpu }, command, { folder: options.results, tell })
    }
    const result = await run({ ...options, save })
    print(result)
    save(result, true)
    if (result.failed) process.exitCode = 1
  }
}
