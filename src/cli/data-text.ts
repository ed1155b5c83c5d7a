import type { Size, Statistics } from '../data/index.js'
import type { ImageReport } from '../train/index.js'

// Classes that are named, most and least images first, and broken files.
const CLASSES_AT_ENDS = 3
const BROKEN = 10

const count = (value: number): string => value.toLocaleString('en')

const size = ({ width, height }: Size): string => `${width} x ${height}`

function percent(part: number, whole: number): string {
  const value = (100 * part) / whole
  return value > 0 && value < 1 ? '< 1 %' : `${Math.round(value)} %`
}

function bytes(value: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB']
  const power = value < 1000 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(value) / 3))
  const scaled = value / 1000 ** power
  return `${scaled.toFixed(power > 0 && scaled < 10 ? 1 : 0)} ${units[power]}`
}

function classes({ classes }: ImageReport): string[] {
  if (!classes) return ['none']
  const sorted = [...classes].sort((a, b) => b.images - a.images)
  const most = sorted[0]!.images
  if (sorted.length > 1 && sorted.at(-1)!.images === most) return [`${count(sorted.length)} of ${count(most)} each`]
  const list = (some: readonly { readonly name: string; readonly images: number }[]) =>
    some.map(({ name, images }) => `${name} (${count(images)})`).join(', ')
  if (sorted.length <= 2 * CLASSES_AT_ENDS) return [`${sorted.length}: ${list(sorted)}`]
  const [largest, smallest] = [sorted.slice(0, CLASSES_AT_ENDS), sorted.slice(-CLASSES_AT_ENDS)]
  return [`${count(sorted.length)}; largest: ${list(largest)}`, `smallest: ${list(smallest)}`]
}

function formats({ formats }: ImageReport): string[] {
  const list = Object.entries(formats).map(([name, images]) => `${name} ${count(images)}`)
  return list.length > 0 ? [list.join(', ')] : []
}

function sizes({ sizes, views }: ImageReport): string[] {
  if (!sizes) return []
  const { smallest, median, largest, smallerThanViews: small } = sizes
  const range = `smallest ${size(smallest)}, median ${size(median)}, largest ${size(largest)}`
  const one = smallest.width === largest.width && smallest.height === largest.height
  const views_ = `${small === 0 ? 'none' : count(small)} smaller than the views of ${size(views)}`
  return one ? [`all ${size(median)}`, ...(small > 0 ? [views_] : [])] : [range, views_]
}

function aspects({ aspects }: ImageReport): string[] {
  if (!aspects) return []
  const { least, median, most, portrait, square, landscape } = aspects
  const all = portrait + square + landscape
  if (square === all) return ['all square']
  if (least === most) return [`all ${median.toFixed(2)} width by height`]
  const some = Object.entries({ portrait, square, landscape }).filter(([, part]) => part > 0)
  const parts = some.map(([name, part]) => `${percent(part, all)} ${name}`)
  return [`width by height ${least.toFixed(2)} to ${most.toFixed(2)}, median ${median.toFixed(2)}; ${parts.join(', ')}`]
}

function broken({ broken }: ImageReport): string[] {
  if (broken.count === 0) return ['none found']
  const rest = broken.count - Math.min(BROKEN, broken.files.length)
  return [
    count(broken.count), ...broken.files.slice(0, BROKEN).map(({ file, reason }) => `${file}: ${reason}`),
    ...(rest > 0 ? [`and ${count(rest)} more`] : [])
  ]
}

const channels = ({ mean, std }: Statistics): string => {
  const list = (values: readonly number[]) => values.map((value) => value.toFixed(3)).join(' ')
  return `mean ${list(mean)}, deviation ${list(std)}`
}

function colours({ statistics: { used, own } }: ImageReport): string[] {
  const same = own && channels(own) === channels(used)
  if (same) return [`${channels(own)}: a run normalises with these`]
  return [own ? channels(own) : 'unknown', `a run normalises with ${channels(used)}`]
}

function loading({ loading }: ImageReport): string[] {
  if (!loading) return []
  const { imagesPerSecond, workers, device, memory } = loading
  const speed = imagesPerSecond.toFixed(imagesPerSecond < 10 ? 1 : 0)
  return [
    `${speed} images/s, two views of each, by ${workers} ${workers === 1 ? 'worker' : 'workers'} for ${device}`,
    `memory of the process up to ${bytes(memory.peak)}, ${bytes(memory.added)} of it for loading`
  ]
}

function held({ decodedBytes, examined, images }: ImageReport): string[] {
  if (decodedBytes === null) return []
  const gigabytes = Math.ceil(decodedBytes / 1e7) / 100
  return [`${examined === images ? '' : 'about '}${bytes(decodedBytes)} of memory if all are decoded once and held (pretrain --hold ${gigabytes})`]
}

function examined({ images, examined, decoded, kind }: ImageReport): string[] {
  if (kind !== 'encoded') return []
  const which = examined === images ? 'all' : `a random sample of ${count(examined)}`
  return [decoded === examined ? `${which}, decoded` : `${which}, by their headers; ${count(decoded)} of them decoded`]
}

/** A report for people: a topic to a line, and below what to do. */
export function describeReport(report: ImageReport): string {
  const about = report.examined === report.images ? '' : 'about '
  const topics: Readonly<Record<string, readonly string[]>> = {
    images: [`${count(report.images)} in ${report.path}, ${about}${bytes(report.bytes.total)}`],
    examined: examined(report),
    classes: classes(report),
    formats: formats(report),
    sizes: sizes(report),
    aspects: aspects(report),
    broken: report.kind === 'encoded' ? broken(report) : [],
    colours: colours(report),
    loading: loading(report),
    held: held(report)
  }
  const width = Math.max(...Object.keys(topics).map((name) => name.length)) + 2
  const lines = Object.entries(topics).flatMap(([name, text]) => text.map((line, i) => (i === 0 ? name : '').padEnd(width) + line))
  const { advice } = report
  return [...lines, ...(advice.length > 0 ? ['', ...advice.map((sentence) => `- ${sentence}`)] : [])].join('\n')
}
