import type { ImageReport } from './image-report.js'

/** A number as people read it, and the word that goes with it. */
const counted = (count: number, one: string, many: string): string => (count === 1 ? `1 ${one}` : `${count.toLocaleString('en')} ${many}`)

function adviceOnBroken({ broken, images, examined }: ImageReport): string | null {
  const { count, expected, allowed, stops } = broken
  if (count === 0) return null
  const found = counted(count, 'file is broken', 'files are broken')
  const rest = expected > count ? `, of all files probably ${expected.toLocaleString('en')}` : ''
  const rule = `${found}${rest}; a run takes at most ${allowed.toLocaleString('en')}`
  if (!stops) return `${rule}, leaves ${count === 1 ? 'it' : 'them'} out and goes on`
  return `${rule} and would stop: mend or remove them${examined < images || expected > count ? ' (--full finds every one)' : ''}`
}

function adviceOnSizes({ sizes, views }: ImageReport): string | null {
  if (!sizes || sizes.smallerThanViews === 0) return null
  const { smallerThanViews: count, fittingImageSize: side } = sizes
  const view = `${views.width === views.height ? views.width : `${views.width} x ${views.height}`} pixel views`
  const found = counted(count, `image is smaller than the ${view} and is enlarged`, `images are smaller than the ${view} and are enlarged`)
  return side === null ? found : `${found}: --image-size ${side} fits ${count === 1 ? 'it' : 'at least half of them'}`
}

function adviceOnClasses({ classes, kind, images, outsideClasses: loose }: ImageReport): string | null {
  if (classes && classes.length > 1) return null
  const remedy = 'put each class into a sub-folder to measure accuracy'
  if (classes) return `one class, '${classes[0]!.name}', leaves nothing to tell apart${loose === null ? '' : `: ${remedy}`}`
  if (kind !== 'encoded') return 'no classes: there is no file of labels beside the images'
  if (loose === null) return 'no classes: neither list nor shards have labels, by which to measure accuracy'
  const lie = loose === images ? 'all files lie' : counted(loose, 'file lies', 'files lie')
  return `no classes: ${lie} directly in the folder; ${remedy}`
}

function adviceOnUnreadable({ unreadable }: ImageReport): string | null {
  if (unreadable.length === 0) return null
  const found = counted(unreadable.length, 'entry leads nowhere or cannot be read and is', 'entries lead nowhere or cannot be read and are')
  return `${found} passed over: ${unreadable.slice(0, 3).join(', ')}${unreadable.length > 3 ? ', ...' : ''}`
}

function adviceOnBatch({ images, settings }: ImageReport): string | null {
  if (images >= settings.batchSize) return null
  return `${counted(images, 'image is', 'images are')} less than a batch of ${settings.batchSize}: --batch-size ${images} at most`
}

/** What is wrong with images, and what to do about it: a sentence each, the worst first. */
export function adviceOn(report: ImageReport): string[] {
  const rules = [adviceOnBroken, adviceOnBatch, adviceOnUnreadable, adviceOnSizes, adviceOnClasses]
  return rules.map((rule) => rule(report)).filter((advice) => advice !== null)
}
