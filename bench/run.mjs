// npm run bench -- [ops] [step] [zoo] [types] [checkpoint] [data] [--quick] [--write] [--only TEXT]: see README.md
import { parseArgs } from 'node:util'
import { describeDevice, writeRecord } from './record.mjs'

const BENCHMARKS = ['ops', 'step', 'zoo', 'types', 'checkpoint', 'data', 'fused']
const USUAL = ['ops', 'step']
const USAGE = `npm run bench -- [${BENCHMARKS.join('] [')}] [--quick] [--write] [--only TEXT]

  --quick   few and short rounds, to see that it runs; no record unless --write is given
  --write   a record in bench/results (the default without --quick)
  --only    step, zoo, checkpoint, fused: the cases whose name has TEXT in it; no record unless --write is given`

function parse() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        quick: { type: 'boolean', default: false }, write: { type: 'boolean' }, only: { type: 'string' }, help: { type: 'boolean' }
      }
    })
    const unknown = positionals.filter((name) => !BENCHMARKS.includes(name))
    if (unknown.length) throw new Error(`expected ${BENCHMARKS.join(' or ')}, received ${unknown.join(' ')}`)
    return { ...values, write: values.write ?? !(values.quick || values.only), names: positionals.length ? positionals : USUAL }
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
    const { run, print } = await import(`./${name}.mjs`)
    const result = await run(options)
    print(result)
    if (options.write) writeRecord(result, device, command)
  }
}
