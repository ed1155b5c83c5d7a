import type { FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { fromFdPromise, type Entry, type ZipFile } from 'yauzl'

import { elementSize, readAt } from './bytes.js'
import { Unpickler } from './pickle.js'
import { PyDict, Refusal, Truncated } from './pickle-values.js'
import { StorageList, torchContext, type StorageSpec } from './torch-file-tensors.js'

/** Where the bytes of a storage lie in the file. */
export interface Place {
  readonly position: number
  /** Checksum of the bytes; null where the file has none. */
  readonly checksum: number | null
}

/** What a file of `torch.save` says, before any tensor is read. */
export interface Archive {
  /** The saved object, see `Unpickler`, with a `TensorSpec` for each tensor. */
  readonly value: unknown
  /** The storages in use, and where they are: all different places within the file. */
  readonly places: ReadonlyMap<StorageSpec, Place>
  readonly bigEndian: boolean
}

// What begins a file that PyTorch before 1.6 wrote: a pickle of this number.
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn
const LEGACY_PROTOCOL = 1001
const ZIP = [0x50, 0x4b]
const PICKLE = 0x80
// The pickle of a large model is a few megabytes.
const MAX_PICKLE = 2 ** 30

const starts = (head: Buffer, bytes: readonly number[]) => bytes.every((byte, i) => head[i] === byte)

/** @throws Refusal for any other file. */
export async function readArchive(file: FileHandle, inert: readonly string[]): Promise<Archive> {
  const { size } = await file.stat()
  const head = Buffer.alloc(Math.min(size, 512))
  await readAt(file, head, 0)
  if (starts(head, ZIP)) return readZip(file, size, inert)
  if (head[0] === PICKLE) return readLegacy(file, size, inert)
  if (head.subarray(257, 262).toString('latin1') === 'ustar') {
    throw new Refusal('it is a tar archive, as PyTorch before 0.2 wrote them; load it in Python and save it again with a current PyTorch')
  }
  if (head.toString('latin1').startsWith('version https://git-lfs')) {
    throw new Refusal('it is a pointer of Git LFS, not the file itself; fetch that with: git lfs pull')
  }
  throw new Refusal(`it is no file of torch.save: neither a zip archive nor a pickle${size === 0 ? ', but empty' : ''}`)
}

// ---------- zip archives: the pickle is one record, and each storage another

/** What the library says of an archive, as a reason to refuse the file. */
async function unbroken<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    throw error instanceof Refusal ? error : new Refusal(`it is a broken zip archive: ${(error as Error).message}`)
  }
}

/** Records of a zip archive by their names. Only the directory at its end is read. */
async function listRecords(zip: ZipFile): Promise<Map<string, Entry>> {
  const records = new Map<string, Entry>()
  for await (const entry of zip.eachEntry()) {
    if (records.has(entry.fileName)) throw new Refusal(`it has two records of the name '${entry.fileName}'`)
    records.set(entry.fileName, entry)
  }
  return records
}

/** Where a record's bytes begin. @throws Refusal unless they are stored as they are, within the file. */
async function placeOf(zip: ZipFile, entry: Entry, size: number): Promise<number> {
  const { fileName } = entry
  if (entry.isEncrypted()) throw new Refusal(`its record '${fileName}' is encrypted`)
  if (entry.compressionMethod !== 0) {
    throw new Refusal(`its record '${fileName}' is compressed, which torch.save never does; load it in Python and save it again`)
  }
  if (entry.compressedSize !== entry.uncompressedSize) throw new Refusal(`its record '${fileName}' has two lengths`)
  const { fileDataStart } = await unbroken(() => zip.readLocalFileHeaderPromise(entry, { minimal: true }))
  if (fileDataStart + entry.uncompressedSize > size) throw new Refusal(`its record '${fileName}' ends beyond the file`)
  return fileDataStart
}

// torch.serialization.set_crc32_options(False) writes zeros.
const checksumOf = (entry: Entry) => (entry.crc32 === 0 ? null : entry.crc32)

async function readRecord(file: FileHandle, zip: ZipFile, entry: Entry, size: number): Promise<Buffer> {
  const { fileName, uncompressedSize } = entry
  if (uncompressedSize > MAX_PICKLE) throw new Refusal(`its record '${fileName}' has ${uncompressedSize} bytes, more than ${MAX_PICKLE}`)
  const position = await placeOf(zip, entry, size)
  const bytes = Buffer.alloc(uncompressedSize)
  await readAt(file, bytes, position)
  const checksum = checksumOf(entry)
  if (checksum !== null && crc32(bytes) !== checksum) throw new Refusal(`its record '${fileName}' is damaged: the checksum is another`)
  return bytes
}

function rootOf(records: ReadonlyMap<string, Entry>): string {
  const names = [...records.keys()]
  const root = names.find((name) => /^[^/]+\/data\.pkl$/.test(name))?.slice(0, -'data.pkl'.length)
  if (names.some((name) => /^[^/]+\/constants\.pkl$/.test(name))) {
    throw new Refusal('it is a TorchScript archive, which is a program; in Python: torch.save(torch.jit.load(file).state_dict(), other)')
  }
  if (root !== undefined) return root
  throw new Refusal(`it is a zip archive, but not of torch.save: it has no data.pkl (${names.slice(0, 4).join(', ') || 'no records'})`)
}

async function readZip(file: FileHandle, size: number, inert: readonly string[]): Promise<Archive> {
  const zip = await unbroken(() => fromFdPromise(file.fd, { autoClose: false, lazyEntries: true }))
  const records = await unbroken(() => listRecords(zip))
  const root = rootOf(records)
  const pickle = await readRecord(file, zip, records.get(`${root}data.pkl`)!, size)
  const order = records.get(`${root}byteorder`)
  const byteOrder = order ? (await readRecord(file, zip, order, size)).toString('latin1') : 'little'
  if (!['little', 'big'].includes(byteOrder)) throw new Refusal(`its byte order is '${byteOrder.slice(0, 20)}', neither little nor big`)
  const storages = new StorageList()
  const value = new Unpickler(pickle, torchContext(storages, inert)).load()
  const places = new Map<StorageSpec, Place>()
  for (const spec of storages.all.values()) {
    const entry = records.get(`${root}data/${spec.key}`)
    if (!entry) throw new Refusal(`it lacks the data of storage '${spec.key}' (record '${root}data/${spec.key}')`)
    if (entry.uncompressedSize !== spec.byteLength) {
      throw new Refusal(`storage '${spec.key}' has ${entry.uncompressedSize} bytes where ${spec.byteLength} are needed`)
    }
    places.set(spec, { position: await placeOf(zip, entry, size), checksum: checksumOf(entry) })
  }
  requireApart(places)
  return { value, places, bigEndian: byteOrder === 'big' }
}

/** @throws Refusal where storages share bytes of the file: a small file would become large tensors. */
function requireApart(places: ReadonlyMap<StorageSpec, Place>): void {
  const filled = [...places].filter(([spec]) => spec.byteLength > 0).sort(([, a], [, b]) => a.position - b.position)
  for (const [i, [spec, { position }]] of filled.entries()) {
    const before = filled[i - 1]
    if (before && before[1].position + before[0].byteLength > position) {
      throw new Refusal(`storages '${before[0].key}' and '${spec.key}' overlap in the file`)
    }
  }
}

// ---------- PyTorch before 1.6: five pickles one after another, then each storage as its length and its bytes

interface LegacyHeader {
  readonly value: unknown
  readonly keys: readonly unknown[]
  readonly storages: StorageList
  readonly bigEndian: boolean
  /** Where the storages begin. */
  readonly end: number
}

function parseLegacy(bytes: Buffer, inert: readonly string[]): LegacyHeader {
  const storages = new StorageList()
  const context = torchContext(storages, inert)
  let end = 0
  const next = () => {
    const machine = new Unpickler(bytes, context, end)
    const value = machine.load()
    end = machine.end
    return value
  }
  if (next() !== LEGACY_MAGIC) throw new Refusal('it is a pickle, but not one of torch.save')
  const protocol = next()
  if (protocol !== LEGACY_PROTOCOL) throw new Refusal(`its version is ${String(protocol)}, only ${LEGACY_PROTOCOL} is known`)
  const system = next()
  const value = next()
  const keys = next()
  if (!Array.isArray(keys)) throw new Refusal('it does not list its storages')
  return { value, keys, storages, bigEndian: system instanceof PyDict && system.entries.get('little_endian') === false, end }
}

/** Where the pickles end is known only when they are read: of a large file first the beginning, then more. */
async function readLegacyHeader(file: FileHandle, size: number, inert: readonly string[]): Promise<LegacyHeader> {
  for (let length = 2 ** 20; ; length *= 8) {
    const bytes = Buffer.alloc(Math.min(length, size, MAX_PICKLE))
    await readAt(file, bytes, 0)
    try {
      return parseLegacy(bytes, inert)
    } catch (error) {
      if (!(error instanceof Truncated) || bytes.length < length) throw error
    }
  }
}

async function readLegacy(file: FileHandle, size: number, inert: readonly string[]): Promise<Archive> {
  const { value, keys, storages, bigEndian, end } = await readLegacyHeader(file, size, inert)
  const places = new Map<StorageSpec, Place>()
  let at = end
  for (const key of keys) {
    const spec = storages.all.get(String(key))
    if (!spec) throw new Refusal(`it lists the storage '${String(key)}', which no tensor is in`)
    if (places.has(spec)) throw new Refusal(`it lists the storage '${spec.key}' twice`)
    const length = Buffer.alloc(8)
    const got = await readAt(file, length, at)
    const count = spec.byteLength / (spec.dtype ? elementSize(spec.dtype) : 1)
    const written = Number(bigEndian ? length.readBigInt64BE() : length.readBigInt64LE())
    if (got < 8 || at + 8 + spec.byteLength > size) throw new Refusal(`the data of storage '${spec.key}' end beyond the file`)
    if (written !== count) throw new Refusal(`storage '${spec.key}' has ${written} elements where ${count} are needed`)
    places.set(spec, { position: at + 8, checksum: null })
    at += 8 + spec.byteLength
  }
  for (const spec of storages.all.values()) if (!places.has(spec)) throw new Refusal(`it lacks the data of storage '${spec.key}'`)
  return { value, places, bigEndian }
}
