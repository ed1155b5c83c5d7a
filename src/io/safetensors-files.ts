import { open, readFile, stat, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

import { describe, InputError } from '../errors.js'
import { MAX_HEADER, parseUnique, readHeader, type Header } from './safetensors-header.js'

// As Hugging Face names them.
const MODEL = 'model.safetensors'

/** Where the index of the shards of `path` is. */
export const indexOf = (path: string) => `${path}.index.json`

/** Name of one shard, counted from 1. */
export function shardOf(path: string, number: number, count: number): string {
  const digits = (n: number) => String(n).padStart(5, '0')
  return `${path.replace(/\.safetensors$/, '')}-${digits(number)}-of-${digits(count)}.safetensors`
}

/** Whether `file` is named like a shard of `path`. */
export function isShardOf(file: string, path: string): boolean {
  const numbers = /-(\d+)-of-(\d+)\.safetensors$/.exec(file)
  return numbers !== null && file === shardOf(path, Number(numbers[1]), Number(numbers[2]))
}

/** A file that is open, with its header. */
export interface OpenFile {
  readonly path: string
  readonly file: FileHandle
  readonly header: Header
}

async function kindOf(path: string): Promise<'file' | 'folder' | 'nothing'> {
  try {
    return (await stat(path)).isDirectory() ? 'folder' : 'file'
  } catch {
    return 'nothing'
  }
}

/** The files of an index by tensor. @throws InputError for what is no index. */
export async function readIndex(path: string): Promise<ReadonlyMap<string, string>> {
  const refuse = (reason: string): never => {
    throw new InputError(`${path} is no legal index of safetensors files: ${reason}`)
  }
  const { size } = await stat(path)
  if (size > MAX_HEADER) refuse(`it has ${size} bytes, more than the ${MAX_HEADER} of any header`)
  const { weight_map: files } = parseUnique(await readFile(path), 'it', refuse)
  if (typeof files !== 'object' || files === null || Array.isArray(files)) refuse('it has no weight_map')
  const map = new Map<string, string>()
  for (const [tensor, file] of Object.entries(files as object) as [string, unknown][]) {
    // A file beside the index and nowhere else: the index may be anyone's.
    const plain = typeof file === 'string' && file !== '' && file !== '.' && file !== '..' && !/[/\\\0]/.test(file)
    if (!plain) refuse(`tensor ${describe(tensor)} should be in ${describe(file)}, which is no name of a file beside it`)
    map.set(tensor, file as string)
  }
  return map
}

// Shards and index must say the same: else the files are of different writings.
async function openIndexed(path: string, opened: OpenFile[]): Promise<void> {
  const map = await readIndex(path)
  const refuse = (reason: string): never => {
    throw new InputError(`${path} does not fit its files: ${reason}`)
  }
  for (const name of new Set(map.values())) {
    const shard = join(dirname(path), name)
    if ((await kindOf(shard)) !== 'file') refuse(`'${name}' is missing`)
    opened.push(await openOne(shard))
  }
  const found = new Set<string>()
  for (const { path: shard, header } of opened) {
    for (const { name } of header.entries) {
      const expected = map.get(name)
      if (expected !== basename(shard)) {
        const otherwise = expected === undefined ? 'does not mention' : `says of '${expected}'`
        refuse(`tensor ${describe(name)} is in '${basename(shard)}', which the index ${otherwise}`)
      }
      found.add(name)
    }
  }
  for (const [name, file] of map) if (!found.has(name)) refuse(`'${file}' has no tensor ${describe(name)}`)
}

async function openOne(path: string): Promise<OpenFile> {
  const file = await open(path, 'r')
  try {
    return { path, file, header: await readHeader(file, path) }
  } catch (error) {
    await file.close()
    throw error
  }
}

async function locate(path: string): Promise<string> {
  const kind = await kindOf(path)
  if (kind === 'file') return path
  const file = kind === 'folder' ? join(path, MODEL) : path
  for (const candidate of [file, indexOf(file)]) if ((await kindOf(candidate)) === 'file') return candidate
  if (kind === 'folder') throw new InputError(`The folder ${path} has neither ${MODEL} nor ${indexOf(MODEL)}`)
  return path
}

/**
 * Opens the file or files that `path` names and checks all headers: a file, the index of shards, the path of a file that was written in
 * shards, or a folder with `model.safetensors` or its index. They are closed when `use` is done.
 *
 * @throws InputError for a malformed file, before `use` is called.
 */
export async function withFiles<T>(path: string, use: (files: readonly OpenFile[]) => Promise<T>): Promise<T> {
  const found = await locate(path)
  const opened: OpenFile[] = []
  try {
    if (found.endsWith('.json')) await openIndexed(found, opened)
    else opened.push(await openOne(found))
    return await use(opened)
  } finally {
    for (const { file } of opened) await file.close()
  }
}
