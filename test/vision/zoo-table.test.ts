import { readFile } from 'node:fs/promises'

import { expect, it } from 'vitest'

import { costOf, visionTransformers } from '../../src/vision/index.js'

type Measured = Record<'float32' | 'bfloat16', { readonly bytesPerImage: number }>

interface ZooRecord {
  readonly rows: readonly { readonly title: string; readonly encoder: Measured; readonly gmml: Measured }[]
}

interface ZooScript {
  readonly zooTable: (vision: { costOf: typeof costOf; visionTransformers: typeof visionTransformers }, record: ZooRecord) => string
  readonly zooRecord: () => ZooRecord
  readonly zooRows: (models: object) => readonly { readonly title: string }[]
}

const { zooTable, zooRecord, zooRows } = (await import(new URL('../../scripts/zoo-table.mjs', import.meta.url).href)) as ZooScript

it('docs/zoo.md says what the code computes and what was measured: node scripts/zoo-table.mjs writes it', async () => {
  const committed = await readFile(new URL('../../docs/zoo.md', import.meta.url), 'utf8')
  expect(committed).toBe(zooTable({ costOf, visionTransformers }, zooRecord()))
})

it('every model of the table was measured, and the numbers fit each other', () => {
  const { rows } = zooRecord()
  for (const { title } of zooRows(visionTransformers)) {
    const row = rows.find((entry) => entry.title === title)
    if (!row) throw new Error(`${title} was not measured: npm run bench -- zoo`)
    const { encoder, gmml } = row
    // Half the precision takes less, but more than half: norms and sums of branches stay in float32. The head takes more.
    for (const step of [encoder, gmml]) {
      expect(step.bfloat16.bytesPerImage / step.float32.bytesPerImage, title).toBeGreaterThan(0.5)
      expect(step.bfloat16.bytesPerImage / step.float32.bytesPerImage, title).toBeLessThan(0.8)
    }
    for (const dtype of ['float32', 'bfloat16'] as const) {
      expect(gmml[dtype].bytesPerImage, title).toBeGreaterThan(encoder[dtype].bytesPerImage)
    }
  }
})
