// The test files that have something to say about CUDA: those that ask whether it is there, or that are called after it.
import { readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'

/** @param {string} root folder of the package @returns {string[]} paths relative to it */
export function cudaTests(root) {
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.test.ts'))
  const asks = (/** @type {string} */ path) =>
    basename(path).includes('cuda') || readFileSync(join(root, path), 'utf8').includes('cuda.isAvailable()')
  return files.map((name) => join('test', name)).filter(asks).sort()
}

/**
 * What vitest's JSON report says. A file that does not load has no test and counts as one that failed; its name is followed by the reason.
 * @param {string} json
 */
export function readReport(json) {
  const { testResults } = JSON.parse(json)
  /** @type {{ passed: string[], failed: string[], skipped: string[] }} */
  const names = { passed: [], failed: [], skipped: [] }
  for (const { name, status, message, assertionResults } of testResults) {
    for (const result of assertionResults) {
      const kind = result.status === 'passed' || result.status === 'failed' ? result.status : 'skipped'
      names[kind].push(result.fullName)
    }
    const none = assertionResults.every((/** @type {{ status: string }} */ result) => result.status !== 'failed')
    if (status === 'failed' && none) names.failed.push(message ? `${name}: ${message}` : name)
  }
  return names
}
