import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { describe, expect, it } from 'vitest'

import { describeReport } from '../../src/cli/data-text.js'
import type { ImageReport } from '../../src/train/index.js'
import { folderWith, paint } from '../data/support.js'
import { embedded, gmml, temporaryFolder } from './support.js'

const usual = ['--device', 'cpu', '--threads', '1']

async function animals(): Promise<string> {
  const files: Record<string, Uint8Array | string> = { 'owls/empty.jpg': '', 'cats/empty.png': '' }
  for (let i = 0; i < 4; i++) {
    files[`${i === 0 ? 'owls' : 'cats'}/${i}.png`] = await paint(40 + 10 * i, 40, (x, y) => [x, y, 50 * i]).png().toBuffer()
  }
  return folderWith(files)
}

describe('gmml data', () => {
  it('prints a line for each topic, and what to do', async () => {
    const folder = await animals()
    const { code, stdout, stderr } = await gmml(['data', folder, '--image-size', '64', '--batch-size', '4', ...usual])
    expect(code, stderr).toBe(0)
    expect(stderr).toBe('')
    const lines = stdout.trimEnd().split('\n')
    const topics = lines.slice(0, lines.indexOf('')).map((line) => line.slice(0, 10).trim())
    expect(topics).toEqual(['images', 'examined', 'classes', 'formats', 'sizes', '', 'aspects', 'broken', '', '', 'colours', '', 'loading', '', 'held'])
    expect(stdout).toMatch(new RegExp(`^images    6 in ${folder}, \\d+ (bytes|kB)$`, 'm'))
    expect(stdout).toContain('examined  all, decoded\nclasses   2: cats (4), owls (2)\nformats   png 4\n')
    expect(stdout).toContain('sizes     smallest 40 x 40, median 60 x 40, largest 70 x 40\n          4 smaller than the views of 64 x 64\n')
    expect(stdout).toContain('aspects   width by height 1.00 to 1.75, median 1.50; 25 % square, 75 % landscape\n')
    expect(stdout).toContain('broken    2\n          cats/empty.png: the file is empty\n          owls/empty.jpg: the file is empty\n')
    expect(stdout).toMatch(/^ {10}a run normalises with mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225$/m)
    expect(stdout).toMatch(/^loading   [\d.]+ images\/s, two views of each, by 4 workers for cpu\n {10}memory of the process up to \d+ MB, /m)
    expect(stdout).toMatch(/^held      50 kB of memory if all are decoded once and held \(pretrain --hold 0.01\)$/m)
    expect(lines.slice(lines.indexOf('') + 1)).toEqual([
      '- 2 files are broken; a run takes at most 1 and would stop: mend or remove them',
      '- 4 images are smaller than the 64 pixel views and are enlarged: --image-size 40 fits at least half of them'
    ])
  })

  it('prints the report as JSON, also of arrays', async () => {
    const { code, stdout } = await gmml(['data', join(embedded, 'held-out'), '--json', '--limit', '100', '--workers', '2', '--crop-scale', '0.5,1', ...usual])
    expect(code).toBe(0)
    const report = JSON.parse(stdout) as ImageReport
    expect(report).toMatchObject({
      images: 2000, examined: 100, views: { width: 28, height: 28 }, broken: { count: 0 }, advice: [],
      settings: { limit: 100, workers: 2, cropScale: [0.5, 1] }, loading: { workers: 2, device: 'cpu' }
    })
    expect(report.classes!.reduce((sum, { images }) => sum + images, 0)).toBe(2000)
  })

  it('writes a preview and says what is in it', async () => {
    const out = join(await temporaryFolder(), 'preview.png')
    const { code, stdout, stderr } = await gmml(['data', await animals(), '--preview', out, '--image-size', '128', '--mask-budget', '0.4', '--fill', 'zeros', '--json', ...usual])
    expect(code, stderr).toBe(0)
    expect(stderr).toContain(`Each row of ${out}: the whole image, a view`)
    expect(JSON.parse(stdout)).toMatchObject({ images: 6, settings: { imageSize: 128 } })
    const { data, info } = await sharp(await readFile(out)).raw().toBuffer({ resolveWithObject: true })
    expect([info.width, info.height]).toEqual([5 * 132 + 4, 4 * 132 + 4])
    expect([...data.subarray(0, 3)]).toEqual([255, 255, 255])
    // Corrupted pixels are zeros where the data set's mean is, and there are some in a column of corrupted views only.
    const means = (column: number) => {
      let count = 0
      for (let y = 4; y < info.height; y++) {
        for (let x = 4 + 132 * column; x < 132 * (column + 1); x++) {
          const at = 3 * (y * info.width + x)
          if (data[at] === 124 && data[at + 1] === 116 && data[at + 2] === 104) count++
        }
      }
      return count
    }
    expect(means(1) + means(3)).toBe(0)
    expect(means(2) + means(4)).toBeGreaterThan(1000)
  })

  it('ends at once at Ctrl-C', async () => {
    const folder = await animals()
    const out = join(await temporaryFolder(), 'preview.png')
    const { code, stdout } = await gmml(['data', folder, '--preview', out, ...usual], (child, output) => {
      if (!child.killed && output.includes('Each row')) child.kill('SIGINT')
    })
    expect(code).toBeNull()
    expect(stdout).toBe('')
  })

  it('refuses wrong usage with 2 and images that cannot be opened with 1, before any work', async () => {
    const folder = await animals()
    const refused = async (...args: string[]) => gmml(['data', ...args])
    expect(await refused(folder, '--limit', '0')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('a number of at least 1 for limit, received 0') as string })
    expect(await refused(folder, '--fill', 'rain')).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('one of noise, zeros, shuffle for fill') as string })
    expect(await refused(folder, '--mask-budget', 'much')).toMatchObject({ code: 2, stdout: '' })
    expect(await refused(folder, '--epochs', '3')).toMatchObject({ code: 2, stderr: expect.stringContaining("unknown option '--epochs'") as string })
    expect(await refused()).toMatchObject({ code: 2, stderr: expect.stringContaining("missing required argument 'images'") as string })
    expect(await refused(join(folder, 'absent'))).toMatchObject({ code: 1, stderr: expect.stringContaining('a folder that exists for images') as string })
    expect(await refused(folder, '--preview', join(folder, 'owls/empty.jpg/p.png'), '--image-size', '32')).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('Cannot write') as string })
  })
})

describe('the text of a report', () => {
  const image = { width: 500, height: 400 }
  const report: ImageReport = {
    path: 'photos', kind: 'encoded', images: 120_000, examined: 20_000, decoded: 256, outsideClasses: 0, formats: { jpeg: 19_000, png: 900 },
    classes: Array.from({ length: 1000 }, (_, i) => ({ name: `c${i}`, images: 100 + i })),
    bytes: { examined: 2.05e9, total: 12_345_678_901 }, views: { width: 224, height: 224 },
    sizes: { smallest: image, median: image, largest: image, smallerThanViews: 0, fittingImageSize: null },
    aspects: { least: 1, median: 1, most: 1, portrait: 0, square: 19_900, landscape: 0 },
    broken: { count: 100, expected: 600, allowed: 1200, stops: false, files: Array.from({ length: 100 }, (_, i) => ({ file: `${i}.jpg`, reason: 'why' })) },
    unreadable: [], statistics: { used: { mean: [0.5], std: [0.25] }, own: null }, loading: null, decodedBytes: 72e9,
    settings: {} as ImageReport['settings'], advice: []
  }
  const text = (changes: Partial<ImageReport> = {}) => describeReport({ ...report, ...changes })

  it('stays short where there is much, and says what was estimated', () => {
    expect(text().split('\n').slice(0, 9)).toEqual([
      'images    120,000 in photos, about 12 GB',
      'examined  a random sample of 20,000, by their headers; 256 of them decoded',
      'classes   1,000; largest: c999 (1,099), c998 (1,098), c997 (1,097)',
      '          smallest: c2 (102), c1 (101), c0 (100)',
      'formats   jpeg 19,000, png 900',
      'sizes     all 500 x 400',
      'aspects   all square',
      'broken    100',
      '          0.jpg: why'
    ])
    expect(text()).toContain('          9.jpg: why\n          and 90 more\ncolours   unknown\n')
    expect(text()).toContain('\nheld      about 72 GB of memory if all are decoded once and held (pretrain --hold 72)')
  })

  it('has no lines for what is not known', () => {
    const nothing = text({ sizes: null, aspects: null, formats: {}, classes: null, examined: 120_000, bytes: { examined: 999, total: 999 } })
    expect(nothing).toContain('images    120,000 in photos, 999 bytes\nexamined  all, by their headers; 256 of them decoded\nclasses   none\nbroken    100')
    expect(text({ classes: [{ name: 'a', images: 7 }, { name: 'b', images: 7 }] })).toContain('classes   2 of 7 each\n')
    expect(text({ aspects: { ...report.aspects!, least: 1.25, median: 1.25, most: 1.25, square: 0, landscape: 9 } })).toContain('aspects   all 1.25 width by height\n')
    expect(text({ classes: [{ name: 'a', images: 7 }] })).toContain('classes   1: a (7)\n')
    expect(text({ statistics: { used: { mean: [0.5], std: [0.25] }, own: { mean: [0.5], std: [0.25] } } })).toContain('colours   mean 0.500, deviation 0.250: a run normalises with these')
  })
})
