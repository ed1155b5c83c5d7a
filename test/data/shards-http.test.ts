import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'

import {
  decodeCrops, type EncodedSource, epochOrder, namedContent, openImages, openShards, randomFor, selectImages, TransferError, type ShardOptions
} from '../../src/data/index.js'
import { Shelf } from '../../src/data/shards/read-ahead.js'
import { type FileServer, serve } from './server.js'
import { filesOf, folderWith, paint } from './support.js'
import { tar } from './tar.js'

/** Fast enough for a test. */
const quick: ShardOptions = { delay: 1, silence: 2000, pieceBytes: 16 * 1024 }

/** The images of a shard: a text each, of a kilobyte. */
const text = (name: string, i: number): string => `${name} ${i} `.repeat(200).slice(0, 1024)
const shardOf = (name: string, count: number): Buffer => tar(Array.from({ length: count }, (_, i) => [`${String(i).padStart(4, '0')}.jpg`, text(name, i)] as const))

async function two(count = 100): Promise<FileServer> {
  return serve({ 'p-0.tar': shardOf('zero', count), 'p-1.tar': shardOf('one', count) })
}

const open = (server: FileServer, options: ShardOptions = {}, pattern = 'p-{0..1}.tar'): Promise<EncodedSource> =>
  openShards(`${server.address}${pattern}`, undefined, { ...quick, ...options })

const contentOf = async (source: EncodedSource, index: number, signal?: AbortSignal): Promise<string> =>
  Buffer.from((await source.content(index, signal)) as Uint8Array).toString('latin1')

const wanted = (index: number, count = 100): string => (index < count ? text('zero', index) : text('one', index - count))

describe('shards on a server', () => {
  it('are listed and read as they are locally', async () => {
    const server = await two()
    const folder = await folderWith(Object.fromEntries(server.files))
    const [remote, local] = [await open(server), await openShards(join(folder, 'p-{0..1}.tar'))]
    expect(filesOf(remote)).toEqual(filesOf(local))
    expect([...remote.blocks!]).toEqual([...local.blocks!])
    for (let i = 0; i < 200; i++) expect(await contentOf(remote, i)).toBe(wanted(i))
    // Whoever gets an image may keep or transfer its bytes: they are its own.
    const bytes = (await remote.content(7)) as Uint8Array<ArrayBuffer>
    expect(bytes.byteLength).toBe(bytes.buffer.byteLength)
  })

  it('give the pixels of local ones and of a folder', async () => {
    const images = await Promise.all([0, 1, 2, 3].map(async (i) => {
      const image = paint(30 + i, 20, (x, y) => [8 * x, 12 * y, 40 * i])
      return [`${i}.${i % 2 ? 'png' : 'jpg'}`, await (i % 2 ? image.png() : image.jpeg()).toBuffer()] as const
    }))
    const bytes = tar(images)
    const server = await serve({ 'a.tar': bytes })
    const sources = await Promise.all([`${server.address}a.tar`, join(await folderWith({ 'a.tar': bytes }), 'a.tar'), await folderWith(Object.fromEntries(images))].map((path) => openImages(path)))
    const pixels = async (source: EncodedSource, index: number) =>
      decodeCrops(await namedContent(source, index), (width, height) => [{ left: 0, top: 0, width, height }], { width: 24, height: 16 })
    for (let i = 0; i < 4; i++) {
      const [remote, local, loose] = await Promise.all(sources.map((source) => pixels(source as EncodedSource, i)))
      expect(remote).toEqual(loose)
      expect(local).toEqual(loose)
    }
  })

  it('are asked for in pieces, those of an order through a buffer too', async () => {
    const server = await serve({ 'p-0.tar': shardOf('zero', 1000), 'p-1.tar': shardOf('one', 1000) })
    const source = await open(server)
    const listed = server.requests.length
    expect(listed).toBeLessThan(220)
    const order = epochOrder(source, randomFor(1, 'order'), 300)
    for (const epoch of [1, 2]) {
      const before = server.requests.length
      for (let i = 0; i < order.length; i += 8) {
        const some = [...order.subarray(i, i + 8)]
        expect(await Promise.all(some.map((index) => contentOf(source, index)))).toEqual(some.map((index) => wanted(index, 1000)))
      }
      // 10 images in a piece: of each piece one alone, then all.
      expect(server.requests.length - before, `epoch ${epoch}`).toBeLessThan(2 * 202)
    }
  })

  it('cost no more than an image where few are wanted', async () => {
    const server = await serve({ 'p-0.tar': shardOf('zero', 1000) })
    const source = await open(server, {}, 'p-0.tar')
    const before = server.requests.length
    for (let i = 0; i < 1000; i += 25) expect(await contentOf(source, i)).toBe(wanted(i, 1000))
    const ranges = server.requests.slice(before).map((request) => request.split(' ')[1]!.split('-').map(Number))
    expect(ranges).toHaveLength(40)
    for (const [first, last] of ranges) expect(last! - first! + 1).toBe(1024)
  })

  it('stay within the memory that is allowed, and stop asking for pieces that are of no use', async () => {
    const server = await serve({ 'p-0.tar': shardOf('zero', 2000) })
    const source = await open(server, { shelfBytes: 32 * 1024 }, 'p-0.tar')
    const before = server.requests.length
    const size = (request: string) => request.split(' ')[1]!.split('-').map(Number).reduce((first, last) => last - first + 1)
    // All over the shard: a piece goes long before its images are asked for.
    const order = epochOrder(source, randomFor(1, 'order'), 2000)
    for (const index of order) expect(await contentOf(source, index)).toBe(wanted(index, 2000))
    const bytes = server.requests.slice(before).reduce((sum, request) => sum + size(request), 0)
    expect(bytes).toBeLessThan(2.5 * 2000 * 1024)
  })

  it('hold in memory what is waited for, and not the answers that it came in', async () => {
    const images = Array.from({ length: 400 }, (_, i) => [`${i}.jpg`, Buffer.alloc(50_000, i)] as const)
    const server = await serve({ 'a.tar': tar(images) })
    const source = await open(server, { pieceBytes: 2 ** 20 }, 'a.tar')
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const used = async () => {
      for (let i = 0; i < 3; i++) {
        await sleep(20)
        collect()
      }
      return process.memoryUsage().arrayBuffers
    }
    const before = await used()
    // Two of each piece of 20.
    for (let i = 0; i < 400; i += 10) await source.content(i)
    expect(await used() - before).toBeLessThan(1.15 * 400 * 50_000)
    expect(await used() - before).toBeGreaterThan(0.5 * 400 * 50_000)
    for (let i = 0; i < 400; i++) if (i % 10) expect((await source.content(i) as Uint8Array)[0]).toBe(i & 255)
    expect(await used() - before).toBeLessThan(2 ** 20)
  })

  it('share a request for the same piece', async () => {
    const server = await two()
    const source = await open(server)
    const before = server.requests.length
    await source.content(0)
    await Promise.all([1, 2, 3, 4, 5].map((i) => contentOf(source, i)))
    expect(server.requests.length - before).toBe(2)
  })

  it('follow redirects, and names that are in messages are without secrets', async () => {
    const server = await two()
    server.trick = (request, response) => {
      if (!request.url!.startsWith('/moved/')) return false
      response.writeHead(302, { location: request.url!.replace('/moved', '').replace('secret', 'other') }).end()
      return true
    }
    const source = await open(server, {}, 'moved/p-{0..1}.tar?secret=1')
    expect([source.length, source.name(0), await contentOf(source, 150)]).toEqual([200, 'p-0.tar/0000.jpg', wanted(150)])
    await expect(open(server, {}, 'none.tar?secret=1')).rejects.toThrow(new RegExp(`^Expected a file that may be read for '${server.address}none.tar', received 'HTTP 404 Not Found'$`))
  })
})

describe('Shelf', () => {
  const pieceOf = (images: number) => {
    const piece = { waiting: new Map(Array.from({ length: images }, (_, i) => [i, new Uint8Array(10)])), images, gone: false, drop: () => { piece.gone = true } }
    return piece
  }

  it('holds no more than its limit: the oldest pieces go', () => {
    const shelf = new Shelf(100)
    const pieces = Array.from({ length: 8 }, () => pieceOf(4))
    for (const piece of pieces) {
      shelf.add(piece)
      expect(shelf.bytes).toBeLessThanOrEqual(100)
    }
    expect(pieces.map(({ gone }) => gone)).toEqual([true, true, true, true, true, true, false, false])
    expect(shelf.bytes).toBe(80)
    const large = pieceOf(11)
    shelf.add(large)
    expect([large.gone, shelf.bytes]).toEqual([true, 0])
  })

  it('hands out an image once, and lets go of what is used up', () => {
    const shelf = new Shelf(100)
    const piece = pieceOf(2)
    shelf.add(piece)
    expect([shelf.take(piece, 1)?.length, shelf.take(piece, 1), shelf.bytes, piece.gone]).toEqual([10, null, 10, false])
    expect([shelf.take(piece, 0)?.length, shelf.bytes, piece.gone]).toEqual([10, 0, true])
  })

  it('thinks little of pieces that went unused, but tries again', () => {
    const shelf = new Shelf(10)
    expect(shelf.worthwhile).toBe(true)
    for (let i = 0; i < 20; i++) shelf.add(pieceOf(4))
    expect(Array.from({ length: 128 }, () => shelf.worthwhile).filter(Boolean)).toHaveLength(2)
    for (let i = 0; i < 30; i++) {
      const piece = pieceOf(1)
      shelf.add(piece)
      shelf.take(piece, 0)
    }
    expect(shelf.worthwhile).toBe(true)
  })
})

describe('a server that fails', () => {
  it.each<[string, (server: FileServer) => void]>([
    ['503 twice', (server) => {
      server.trick = (_, response, count) => count <= 2 && Boolean(response.writeHead(503).end('busy'))
    }],
    ['a connection that is cut in the middle', (server) => {
      server.trick = (_, response, count) => {
        if (count % 3 !== 1) return false
        response.writeHead(206, { 'content-range': `bytes 0-16383/${server.files.get('p-0.tar')!.length}`, 'content-length': 16384 })
        response.write(Buffer.alloc(100), () => response.destroy())
        return true
      }
    }],
    ['a connection that is cut at once', (server) => {
      server.trick = (request, _, count) => count === 1 && Boolean(request.socket.destroy())
    }],
    ['a body that ends early', (server) => {
      server.trick = (_, response, count) => {
        if (count !== 1) return false
        const { length } = server.files.get('p-0.tar')!
        // Without content-length, so only the range tells that something is missing.
        response.writeHead(206, { 'content-range': `bytes 0-16383/${length}` }).end(Buffer.alloc(100))
        return true
      }
    }],
    ['bytes of another range', (server) => {
      server.trick = (_, response, count) => count === 1 && Boolean(response.writeHead(206, { 'content-range': 'bytes 5-16388/200000' }).end(Buffer.alloc(16384)))
    }],
    ['silence', (server) => {
      server.trick = (_, response, count) => count === 1 && Boolean(response.writeHead(206, { 'content-range': 'bytes 0-9/10' }).write('x'))
    }]
  ])('%s, is asked again', async (_, prepare) => {
    const server = await two()
    prepare(server)
    const source = await open(server, { silence: 300 }, 'p-0.tar')
    for (let i = 0; i < 100; i++) expect(await contentOf(source, i)).toBe(wanted(i))
  })

  it('says how long to wait: 429 with Retry-After', async () => {
    const server = await two()
    const times: number[] = []
    server.trick = (_, response, count) => {
      times.push(performance.now())
      return count === 1 && Boolean(response.writeHead(429, { 'retry-after': '1' }).end())
    }
    await open(server, {}, 'p-0.tar')
    expect(times[1]! - times[0]!).toBeGreaterThan(950)
  })

  it('for good, ends with its address, status and attempts', async () => {
    const server = await two()
    const source = await open(server)
    server.trick = (_, response) => Boolean(response.writeHead(503, 'Gone fishing').end())
    const before = server.requests.length
    const error = await contentOf(source, 0).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(TransferError)
    expect(error).toMatchObject({
      message: `Cannot read '${server.address}p-0.tar' after 6 attempts: HTTP 503 Gone fishing`, attempts: 6, status: 503, url: `${server.address}p-0.tar`
    })
    expect(server.requests.length - before).toBe(6)
    // And is asked again by who asks again.
    server.trick = () => false
    expect(await contentOf(source, 0)).toBe(wanted(0))
  })

  it('that is not there any more', async () => {
    const address = 'http://127.0.0.1:9/p.tar'
    await expect(openShards(address, undefined, { ...quick, attempts: 2 })).rejects.toThrow(/^Cannot read 'http:\/\/127.0.0.1:9\/p.tar' after 2 attempts: /)
  })

  it('never answers in time', async () => {
    const server = await two()
    server.trick = () => true
    await expect(open(server, { silence: 30, attempts: 3 })).rejects.toThrow(/after 3 attempts: nothing came for 0.03 s/)
  })

  it('is slow, but not silent', async () => {
    const server = await two(10)
    server.trick = (_, response, count) => {
      if (count !== 1) return false
      const bytes = server.files.get('p-0.tar')!
      const length = Math.min(bytes.length, 16384)
      response.writeHead(206, { 'content-range': `bytes 0-${length - 1}/${bytes.length}`, 'content-length': length })
      let sent = 0
      const drip = setInterval(() => {
        response.write(bytes.subarray(sent, Math.min(length, sent += 2048)))
        if (sent < length) return
        clearInterval(drip)
        response.end()
      }, 60)
      return true
    }
    // 8 times 60 ms are more than the silence that is allowed.
    expect((await open(server, { silence: 200, attempts: 1 }, 'p-0.tar')).length).toBe(10)
  })

  it.each<[string, (server: FileServer) => void, RegExp]>([
    ['403', (server) => { server.trick = (_, response) => Boolean(response.writeHead(403).end()) }, /received 'HTTP 403 Forbidden'/],
    ['404', (server) => { server.files.clear() }, /a file that may be read for '.*p-\d.tar', received 'HTTP 404 Not Found'/],
    ['no ranges', (server) => { server.trick = (_, response) => Boolean(response.writeHead(200).end('all')) }, /a server that gives parts of files .* received 'the whole file \(HTTP 200\)'/],
    ['no length', (server) => { server.trick = (_, response) => Boolean(response.writeHead(206, { 'content-range': 'bytes 0-9/*' }).end('0123456789')) }, /the length of the file \(Content-Range\)/],
    ['an empty file', (server) => { server.files.set('p-0.tar', Buffer.alloc(0)) }, /a tar file for .* received 'an empty file'/],
    ['a damaged file', (server) => { server.files.set('p-1.tar', Buffer.alloc(5000, 'x')) }, /a header of tar for shard 'p-1.tar' at byte 0/],
    ['a file cut short', (server) => { server.files.set('p-1.tar', shardOf('one', 100).subarray(0, 40_000)) }, /for shard 'p-1.tar' at byte \d+, received '.*cut short'/]
  ])('%s: at once', async (_, prepare, message) => {
    const server = await two()
    prepare(server)
    await expect(open(server, { delay: 60_000 })).rejects.toThrow(message)
  })

  it.each<[string, (server: FileServer) => void, RegExp]>([
    ['ETag', (server) => { server.etag = '"two"' }, /the file that was there when the images were listed .*another version \(ETag "two" instead of "one"\)/],
    ['length', (server) => { server.files.set('p-0.tar', shardOf('new', 101)) }, /received 'one of \d+ bytes instead of \d+'/],
    ['end', (server) => { server.files.set('p-0.tar', shardOf('new', 3)) }, /received 'a shorter one'/]
  ])('has another file since: another %s', async (_, change, message) => {
    const server = await two()
    const source = await open(server)
    change(server)
    await expect(contentOf(source, 99)).rejects.toThrow(message)
  })
})

describe('requests that nobody waits for', () => {
  it('end at once, alone and in pieces; others who wait for the same are not concerned', async () => {
    const server = await two()
    const source = await open(server)
    let held: (() => void)[] = []
    server.trick = (request, response) => {
      let closed = false
      response.on('close', () => { closed = !response.writableEnded })
      held.push(() => { if (closed) ended++ })
      return request.headers.range !== undefined && holding
    }
    let [ended, holding] = [0, true]
    const closed = async () => {
      await sleep(50)
      for (const look of held) look()
      held = []
      return ended
    }
    const alone = new AbortController()
    const first = contentOf(source, 0, alone.signal)
    await sleep(30)
    alone.abort(new Error('enough'))
    await expect(first).rejects.toThrow('enough')
    expect(await closed()).toBe(1)

    // The second image of a piece brings the piece; three wait for it, and two go.
    holding = true
    const both = [new AbortController(), new AbortController()] as const
    const waiting = [contentOf(source, 1, both[0].signal), contentOf(source, 2, both[1].signal)]
    await sleep(30)
    both[0].abort(new Error('one gone'))
    await expect(waiting[0]).rejects.toThrow('one gone')
    expect(await closed()).toBe(1)
    holding = false
    both[1].abort(new Error('all gone'))
    await expect(waiting[1]).rejects.toThrow('all gone')
    // Given up, it is begun anew by the next.
    expect(await Promise.all([3, 4, 5].map((i) => contentOf(source, i)))).toEqual([3, 4, 5].map((i) => wanted(i)))
    await expect(contentOf(source, 6, AbortSignal.abort(new Error('before')))).rejects.toThrow('before')
  })

  it('are begun anew, however soon somebody comes after the last has gone', async () => {
    for (let ticks = 0; ticks < 20; ticks++) {
      const server = await two(20)
      const source = await open(server)
      await source.content(0)
      server.trick = () => true
      const controller = new AbortController()
      const gone = contentOf(source, 1, controller.signal).catch(() => 'gone')
      await sleep(5)
      server.trick = () => false
      controller.abort()
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve()
      expect(await contentOf(source, 2), `after ${ticks} ticks`).toBe(wanted(2))
      expect(await gone).toBe('gone')
    }
  })

  it('may be many under one signal', async () => {
    const warnings: Error[] = []
    const note = (warning: Error) => warnings.push(warning)
    process.on('warning', note)
    try {
      const source = await open(await two())
      const { signal } = new AbortController()
      await Promise.all(Array.from({ length: 60 }, (_, i) => contentOf(source, 3 * i, signal)))
      await sleep(10)
      expect(warnings).toEqual([])
    } finally {
      process.off('warning', note)
    }
  })

  it('end while waiting for another attempt', async () => {
    const server = await two()
    const source = await open(server, { delay: 60_000 })
    server.trick = (_, response) => Boolean(response.writeHead(503, { 'retry-after': '60' }).end())
    const controller = new AbortController()
    const content = contentOf(source, 0, controller.signal)
    await sleep(50)
    controller.abort(new Error('enough'))
    await expect(content).rejects.toThrow('enough')
  })

  it('also in a part of a source', async () => {
    const server = await two()
    const source = selectImages(await open(server), [5, 150]) as EncodedSource
    expect([await contentOf(source, 1), [...source.blocks!]]).toEqual([wanted(150), [0, 1]])
    await expect(contentOf(source, 0, AbortSignal.abort(new Error('before')))).rejects.toThrow('before')
  })
})
