import { expected } from '../../errors.js'

/** Whether a path is the address of something on a web server. */
export const isUrl = (path: string): boolean => /^https?:\/\//i.test(path)

/** The ending of a path or address counts, not what may follow it: `?` with a signature. */
function ending(path: string): string {
  return isUrl(path) && URL.canParse(path) ? new URL(path).pathname : path
}

/** Whether a path names shards: a tar file, packed or not, several of them in a pattern, or an address. */
export const namesShards = (path: string): boolean => /\.(?:tar|tgz|tar\.\w+)$/i.test(ending(path)) || /^[a-z][\w+.-]+:\/\//i.test(path)

/** A million shards are a slip, and the names alone would fill the memory. */
const MOST = 1_000_000

/** What stands in braces: a range of numbers or alternatives; null if it is neither, and the braces mean themselves. */
function alternatives(inside: string): string[] | null {
  const range = /^(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?$/.exec(inside)
  if (range === null) return inside.includes(',') ? inside.split(',') : null
  const [from, to] = [Number(range[1]), Number(range[2])]
  const step = Math.max(1, Number(range[3] ?? 1)) * (from <= to ? 1 : -1)
  const count = Math.floor((to - from) / step) + 1
  if (!(count <= MOST)) throw expected(`at most ${MOST} shards`, `the pattern {${inside}}`, count)
  // As in shells: leading zeros of one end give all numbers its width.
  const padded = [range[1]!, range[2]!].filter((end) => /^-?0\d/.test(end))
  const width = padded.length > 0 ? Math.max(range[1]!.length, range[2]!.length) : 0
  return Array.from({ length: count }, (_, i) => {
    const value = from + i * step
    return value < 0 ? `-${String(-value).padStart(width - 1, '0')}` : String(value).padStart(width, '0')
  })
}

/**
 * The paths that a pattern stands for, as shells and WebDataset have it: `photos-{000..099}.tar`, `{train,more}-{0..9}.tar`. What is no
 * pattern stands for itself. Braces in braces are not taken.
 *
 * @throws InputError for more than a million.
 */
export function expandBraces(pattern: string): string[] {
  let paths = ['']
  let rest = 0
  for (const { 0: group, 1: inside, index } of pattern.matchAll(/\{([^{}]*)\}/g)) {
    const before = pattern.slice(rest, index)
    rest = index + group.length
    const choices = (alternatives(inside!) ?? [group]).map((choice) => before + choice)
    const count = paths.length * choices.length
    if (count > MOST) throw expected(`at most ${MOST} shards`, `the pattern '${pattern}'`, count)
    paths = paths.flatMap((path) => choices.map((choice) => path + choice))
  }
  return paths.map((path) => path + pattern.slice(rest))
}

/** A shard as it is called in messages: of an address without what may be secret, which is what follows `?`, and a password. */
export const shownPath = (path: string): string => (isUrl(path) ? path.replace(/[?#].*$/s, '').replace(/\/\/[^/]*@/, '//') : path)

/** What shards are called in the names of images: their file names, if those differ, else their whole paths. */
export function shortNames(paths: readonly string[]): string[] {
  const shown = paths.map(shownPath)
  const files = shown.map((path) => /[^/\\]*$/.exec(path)![0])
  return new Set(files).size === files.length ? files : shown
}

/** @throws InputError for shards that cannot be read at random places, or at all; for one that is there twice. */
export function checkShards(paths: readonly string[]): void {
  const seen = new Set<string>()
  for (const path of paths) {
    const end = ending(path)
    const what = shownPath(path)
    if (/\.(?:tgz|tar\.\w+)$/i.test(end)) {
      const packer = /gz$/i.test(end) ? 'gzip' : 'another packer'
      throw expected(`an unpacked tar file (in one packed by ${packer} no image can be read alone; unpack it: gunzip)`, 'a shard', what)
    }
    if (/^[a-z][\w+.-]+:\/\//i.test(path) && !isUrl(path)) throw expected('a local path or an address of http or https', 'a shard', what)
    if (isUrl(path)) {
      if (!URL.canParse(path)) throw expected('an address', 'a shard', what)
      const { username, password } = new URL(path)
      if (username || password) throw expected('an address without user name and password', 'a shard', what)
    }
    if (!isUrl(path) && !/\.tar$/i.test(path)) throw expected('a tar file (.tar)', 'a shard', what)
    if (seen.has(path)) throw expected('each shard once', 'the shards', `'${what}' twice`)
    seen.add(path)
  }
}
