import { isAbsolute, join } from 'node:path'
import { expected } from '../errors.js'
import type { FilePart } from './content.js'
import type { NamedContent } from './decode.js'
import type { SourceBase } from './source.js'

/** Colour images that are stored encoded (JPEG, PNG, ...) and decoded when asked for. */
export interface EncodedSource extends SourceBase {
  readonly kind: 'encoded'
  readonly channels: 3
  /** What lies among the images and cannot be read: links that lead nowhere or in a circle, sub-folders without permission. */
  readonly unreadable: readonly string[]
  /**
   * The image `index`. Where the bytes are no part of a local file they are fetched; the signal says that nobody waits for them any more.
   *
   * @throws InputError for an index that there is not; BrokenImageError if this image has no content, though others may have.
   */
  content(index: number, signal?: AbortSignal): FilePart | Promise<Uint8Array<ArrayBuffer>>
  /**
   * First positions of the blocks that are read as a whole (a shard, a row group), ascending from 0: images of one block are asked for close
   * to each other. null if any order is as good.
   */
  readonly blocks: Int32Array | null
}

/** The classes of images by their names: each once, in order, and for each image its number. */
export function numberClasses(names: readonly string[]): { classes: string[]; labels: Int32Array } {
  const classes = [...new Set(names)].sort()
  const numbers = new Map(classes.map((name, number) => [name, number]))
  return { classes, labels: Int32Array.from(names, (name) => numbers.get(name)!) }
}

type FileList = Pick<EncodedSource, 'path' | 'unreadable' | 'classes' | 'labels'> & { readonly files: readonly string[] }

/** A source of these image files. @param root - The folder that relative paths start from. */
export function fileSource({ root, files, ...list }: FileList & { readonly root: string }): EncodedSource {
  const at = (index: number): string => {
    const file = files[index]
    if (file === undefined) throw expected(`an integer from 0 to ${files.length - 1}`, 'index', index)
    return file
  }
  return {
    kind: 'encoded',
    ...list,
    length: files.length,
    channels: 3,
    blocks: null,
    name: at,
    content(index) {
      const file = at(index)
      return { path: isAbsolute(file) ? file : join(root, file) }
    }
  }
}

/** An image of a source, with its bytes or where they are. In messages a file goes by its path, a part of one by the name in the source. */
export async function namedContent(source: EncodedSource, index: number, signal?: AbortSignal): Promise<NamedContent> {
  const content = await source.content(index, signal)
  const wholeFile = 'path' in content && content.offset === undefined
  return { content, name: wholeFile ? content.path : source.name(index) }
}
