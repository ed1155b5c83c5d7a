import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

import { pretrain, RunFolder } from '../../src/train/index.js'
import { RunLock } from '../../src/train/run-lock.js'
import { folderWith } from '../data/support.js'
import { small } from './support.js'

const owner = async (path: string) => JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>

async function newFolder(): Promise<{ run: RunFolder; path: string }> {
  const run = new RunFolder(join(await folderWith(), 'run'))
  return { run, path: join(run.path, 'run.lock') }
}

describe('RunLock', () => {
  it('is held by one at a time', async () => {
    const { run, path } = await newFolder()
    const lock = await RunLock.take(run)
    expect(await owner(path)).toMatchObject({ pid: process.pid, host: hostname() })
    await expect(RunLock.take(new RunFolder(`${run.path}/.`))).rejects.toThrow(/is being written to by another training \(process \d+ on .*, since 2/)
    lock.release()
    ;(await RunLock.take(run)).release()
    await expect(readFile(path)).rejects.toThrow(/ENOENT/)
  })

  it('is respected while its process lives, and not after it was killed', async () => {
    const { run, path } = await newFolder()
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)'])
    ;(await RunLock.take(run)).release()
    await writeFile(path, JSON.stringify({ pid: other.pid, host: hostname(), began: null, since: 'then' }))
    await expect(RunLock.take(run)).rejects.toThrow(`(process ${other.pid} on ${hostname()}, since then)`)
    other.kill('SIGKILL')
    await once(other, 'exit')
    ;(await RunLock.take(run)).release()
  })

  it.each([
    ['of an earlier process with this number', () => ({ pid: process.pid, host: hostname(), began: '1', since: 'then' })],
    ['of a process whose number another one has', () => ({ pid: process.ppid, host: hostname(), began: '1', since: 'then' })],
    ['of another machine, of which nothing is known', () => ({ pid: 1, host: 'elsewhere', began: null, since: 'then' })],
    ['that is half-written', () => '{"pid": 1']
  ])('is taken over: one %s', async (_, content) => {
    const { run, path } = await newFolder()
    ;(await RunLock.take(run)).release()
    const text = content()
    await writeFile(path, typeof text === 'string' ? text : JSON.stringify(text))
    const lock = await RunLock.take(run)
    expect(await owner(path)).toMatchObject({ pid: process.pid })
    lock.release()
  })
})

it('is taken over also where a process died while it removed it', async () => {
  const { run, path } = await newFolder()
  ;(await RunLock.take(run)).release()
  await writeFile(path, JSON.stringify({ pid: process.ppid, host: hostname(), began: '1', since: 'then' }))
  await writeFile(`${path}.removing`, '')
  await utimes(`${path}.removing`, 1, 1)
  const lock = await RunLock.take(run)
  expect(await readdir(run.path)).toEqual(['run.lock'])
  lock.release()
})

describe('several processes', () => {
  // Each says that it is ready, takes the lock at the moment that it is told, says how that went, and keeps it.
  const script = `
    const [lock, folder] = await Promise.all(['run-lock', 'run-folder'].map((name) => import('${new URL('../../dist/train/', import.meta.url).href}' + name + '.js')))
    console.log('ready')
    process.stdin.once('data', async (data) => {
      const [path, time] = JSON.parse(data.toString())
      while (Date.now() < time);
      console.log(await lock.RunLock.take(new folder.RunFolder(path)).then(() => 'taken', ({ message }) => message))
    })
  `

  it('that find the lock of a dead one at the same moment: one takes it', { timeout: 60_000 }, async () => {
    for (let round = 0; round < 3; round++) {
      const { run, path } = await newFolder()
      ;(await RunLock.take(run)).release()
      await writeFile(path, JSON.stringify({ pid: process.ppid, host: hostname(), began: '1', since: 'then' }))
      const children = Array.from({ length: 4 }, () => spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] }))
      const said = async () => Promise.all(children.map(async ({ stdout }) => String((await once(stdout, 'data'))[0]).trim()))
      expect(await said()).toEqual(Array<string>(4).fill('ready'))
      const answers = said()
      for (const { stdin } of children) stdin.write(JSON.stringify([run.path, Date.now() + 300]))
      const taken = (await answers).filter((answer) => answer === 'taken')
      for (const child of children) child.kill('SIGKILL')
      expect(taken).toHaveLength(1)
      expect(await readdir(run.path)).toEqual(['run.lock'])
      expect((await answers).filter((answer) => answer.includes('is being written to by another training'))).toHaveLength(3)
    }
  })
})

describe('two trainings', () => {
  it('do not write into one folder, and the second leaves the first alone', async () => {
    const { images, out, settings } = await small()
    const config = { ...settings, images, out: out('run') }
    const seen: string[] = []
    const onEpoch = async () => {
      await pretrain({ ...config, resume: true }).catch(({ message }: Error) => seen.push(message))
    }
    const pending: Promise<void>[] = []
    const { status } = await pretrain(config, { onEpoch: () => void pending.push(onEpoch()) })
    await Promise.all(pending)
    expect(status).toBe('done')
    expect(seen[0]).toMatch(/is being written to by another training/)
    expect((await pretrain({ ...config, resume: true })).status).toBe('done')
  })
})
