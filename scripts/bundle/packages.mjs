// Which packages of node_modules a program needs on a platform, and which of their files it runs.
import { cpSync, existsSync, readFileSync, statSync } from 'node:fs'
import { basename, join, sep } from 'node:path'

/**
 * An entry of package-lock.json, whose key is the package's folder.
 * @typedef {{ dependencies?: Record<string, string>, optionalDependencies?: Record<string, string>, peerDependencies?: Record<string, string>,
 *   peerDependenciesMeta?: Record<string, { optional?: boolean }>, os?: string[], cpu?: string[], libc?: string[] }} Locked
 */

/** Where the programs of a bundle run. */
export const PLATFORM = { os: 'linux', cpu: 'x64', libc: 'glibc' }

/** @param {Locked} entry @param {typeof PLATFORM} platform */
function suits(entry, platform) {
  return /** @type {const} */ (['os', 'cpu', 'libc']).every((key) => {
    const allowed = entry[key]
    if (!allowed) return true
    return allowed.includes(platform[key]) || (allowed.every((name) => name.startsWith('!')) && !allowed.includes(`!${platform[key]}`))
  })
}

/**
 * Folders of all packages that the named ones need, as Node finds them: nested ones before those further up.
 * @param {Record<string, Locked>} locked `packages` of a package-lock.json
 * @param {readonly string[]} roots
 * @param {{ without?: readonly string[], platform?: typeof PLATFORM }} [options] `without`: packages that are left out, with what only they need
 */
export function packageFolders(locked, roots, { without = [], platform = PLATFORM } = {}) {
  /** @param {string} name @param {string} from */
  const locate = (name, from) => {
    for (let base = from; ; base = base.slice(0, Math.max(base.lastIndexOf('/node_modules/'), 0))) {
      const path = `${base ? `${base}/` : ''}node_modules/${name}`
      if (locked[path]) return path
      if (base === '') return undefined
    }
  }
  /** @type {Set<string>} */
  const found = new Set()
  /** @type {{ name: string, from: string, needed: boolean }[]} */
  const waiting = roots.map((name) => ({ name, from: '', needed: true }))
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (without.includes(next.name)) continue
    const path = locate(next.name, next.from)
    const entry = path === undefined ? undefined : locked[path]
    if (path === undefined || !entry) {
      if (next.needed) throw new Error(`package-lock.json has no ${next.name}, which ${next.from || 'the bundle'} needs`)
      continue
    }
    if (found.has(path) || !suits(entry, platform)) continue
    found.add(path)
    const { dependencies = {}, optionalDependencies = {}, peerDependencies = {}, peerDependenciesMeta = {} } = entry
    for (const name of Object.keys(dependencies)) waiting.push({ name, from: path, needed: !(name in optionalDependencies) })
    for (const name of Object.keys(optionalDependencies)) waiting.push({ name, from: path, needed: false })
    for (const name of Object.keys(peerDependencies)) {
      if (!peerDependenciesMeta[name]?.optional) waiting.push({ name, from: path, needed: true })
    }
  }
  return [...found].sort()
}

// What only people and compilers read; licences stay.
const UNUSED_FILE = /\.map$|\.d\.[cm]?ts$|\.flow$|^(readme|changelog|changes|history|contributing)\b.*/i
const UNUSED_FOLDER = /^(docs?|tests?|__tests__|examples?|benchmarks?|man|\.github|node_modules)$/

/**
 * Copies the packages without what no program runs. Packages inside packages are entries of their own.
 * @param {string} root folder with package-lock.json and node_modules
 * @param {string} target
 * @param {{ roots: readonly string[], without?: readonly string[] }} options
 */
export function copyPackages(root, target, { roots, without = [] }) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const folders = packageFolders(packages, roots, { without })
  for (const folder of folders) {
    const source = join(root, folder)
    if (!existsSync(source)) throw new Error(`${folder} is not installed: npm ci`)
    cpSync(source, join(target, folder), {
      recursive: true,
      filter(path) {
        const inside = path.slice(source.length + 1)
        if (inside === '') return true
        // Only at the top of a package is a folder of such a name surely not part of the program.
        return statSync(path).isDirectory() ? inside.includes(sep) || !UNUSED_FOLDER.test(inside) : !UNUSED_FILE.test(basename(path))
      }
    })
  }
  return folders
}
