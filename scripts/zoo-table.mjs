// Writes docs/zoo.md: parameters and operations from `costOf`, memory from the newest record of `npm run bench -- zoo`.
//   node scripts/zoo-table.mjs
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { main } from './tools.mjs'

const PATH = new URL('../docs/zoo.md', import.meta.url)
const RECORDS = new URL('../bench/results/', import.meta.url)

/** The sizes that each model is listed at: the side of the image and of a patch. */
const SHAPES = { vit_micro: [[28, 4], [32, 4]], vit_tiny: [[32, 4], [224, 16]], vit_small: [[32, 4], [224, 16]] }
const USUAL = [[224, 16]]

/** @param {Record<string, object>} models `visionTransformers` */
export const zooRows = (models) =>
  Object.entries(models).flatMap(([name, model]) => (SHAPES[name] ?? USUAL).map(([imageSize, patchSize]) => ({
    title: `\`${name}\` ${imageSize}/${patchSize}`, model, imageSize, patchSize
  })))

/** The newest record of what was measured. */
export function zooRecord() {
  const newest = readdirSync(RECORDS).filter((name) => /^[\d-]+-zoo-.*\.json$/.test(name)).sort().at(-1)
  return JSON.parse(readFileSync(new URL(newest, RECORDS), 'utf8'))
}

const row = (cells) => `| ${cells.join(' | ')} |`
const table = (head, rows) => [row(head), row(head.map((_, i) => (i ? '---:' : '---'))), ...rows.map(row)].join('\n')
const three = (number) => (number < 1000 ? number.toPrecision(3) : number.toFixed(0))

/**
 * @param {{ visionTransformers: Record<string, object>, costOf: (options: object) => import('../dist/vision/index.js').Cost }} vision
 * @param {ReturnType<typeof zooRecord>} record
 */
export function zooTable({ visionTransformers, costOf }, record) {
  const rows = zooRows(visionTransformers)
  const costs = rows.map(({ title, model, imageSize, patchSize }) => {
    const { parameters, flops, reconstruction } = costOf({ ...model, imageSize, patchSize })
    const giga = (operations) => (operations / 1e9).toFixed(3)
    const withHead = [parameters + reconstruction.parameters, giga(flops + reconstruction.flops)]
    return [title, model.embedDim, model.depth, model.numHeads, parameters, giga(flops), ...withHead]
  })
  const memory = rows.map(({ title }) => {
    const measured = record.rows.find((entry) => entry.title === title)
    const cell = (step, dtype) => (measured ? three(measured[step][dtype].bytesPerImage / 1e6) : 'not measured')
    return [title, ...['encoder', 'gmml'].flatMap((step) => ['float32', 'bfloat16'].map((dtype) => cell(step, dtype)))]
  })
  const { date, device, runtime } = record
  return `<!-- Written by scripts/zoo-table.mjs. Do not edit. -->
# The vision transformers

\`visionTransformer(name, { imageSize, patchSize })\` makes any of them at any size; the usual ones are listed, as the side of
the image and of a patch in pixels, for images of three channels. \`costOf()\` of \`gmml/vision\` tells the same for every other.

## Parameters and operations

${table(['model', 'width', 'blocks', 'heads', 'parameters', 'GFLOPs per image', 'parameters with GMML\'s head', 'GFLOPs with it'], costs)}

GFLOPs are 10^9 floating-point operations of the forward pass of one image, a multiplication and an addition counted as
two. Counted are the matrix products: patches, query, key and value, scores and values of the attention, projection, MLP.
The numbers are those of \`torch.utils.flop_counter\` for the same network, to the last digit. A training step takes about
three times as many. The encoder has no classifier; GMML's head, which reconstructs the image, is there in pretraining only.

## Memory per image in training

MB (10^6 bytes) by which one more image in the batch raises the peak of a step: forward, loss and backward. It is what
limits the batch, besides what does not depend on it: weights, gradients and the two means of AdamW, 16 bytes a parameter.

${table(['model', 'encoder, float32', 'encoder, bfloat16', 'GMML step, float32', 'GMML step, bfloat16'], memory)}

*Encoder* is a step of the encoder alone, *GMML step* one of pretraining on whole images: corruption, encoder, head, L1.
bfloat16 is autocast: weights stay in float32. Measured on ${date.slice(0, 10)} on the CPU (${device.cpu},
libtorch ${runtime.libtorch.version}, one thread) as the growth of the highest resident memory of a process from one batch
to another of three times its size (\`npm run bench -- zoo\`, record in \`bench/results\`). A GPU was not measured.
`
}

main(import.meta.url, () => {
  // From dist, as an installed package has it; not before the script is what was started.
  void import('gmml/vision').then((vision) => writeFileSync(PATH, zooTable(vision, zooRecord())))
})
