import { expected } from '../../errors.js'
import { imageExtensions } from '../folder.js'
import type { Member, Visitor } from './tar.js'

/** The images of a shard. */
export interface ShardImages {
  /** Where each begins in the shard, and how many bytes it has. */
  readonly offsets: Float64Array
  readonly lengths: Float64Array
  /** Paths in the shard. */
  readonly names: readonly string[]
  /** The class of each; null where it has none. */
  readonly labels: readonly (string | null)[]
  /** Classes of samples without an image. */
  readonly strayLabels: number
}

/** What is known of the sample that is being read. */
interface Sample {
  readonly key: string
  image: Member | null
  /** From its `.cls`, which counts more, or its `.json`. */
  cls: string | null
  json: string | null
}

/** A description of an image is no longer than this. */
const LONGEST = 16 << 20

const labelNames = ['label', 'class'] as const

/**
 * Gathers samples in WebDataset's layout: members that follow each other and have the same path up to the first dot of the file name. What
 * follows that dot says what a member is: the image (`jpg`, ...), its class as text (`cls`), an object that may have it (`json`).
 */
export class SampleReader {
  readonly #shard: string
  readonly #offsets: number[] = []
  readonly #lengths: number[] = []
  readonly #names: string[] = []
  readonly #labels: (string | null)[] = []
  #strayLabels = 0
  #sample: Sample | null = null

  /** @param shard - What it is called in messages. */
  constructor(shard: string) {
    this.#shard = shard
  }

  /** @throws InputError for a sample with two images, two classes, or a class that cannot be read. */
  readonly visit: Visitor = (member) => {
    const { name, length } = member
    const dot = name.indexOf('.', name.lastIndexOf('/') + 1)
    // As WebDataset has it, a file without an ending, or with nothing before it, is none of a sample.
    if (dot <= name.lastIndexOf('/') + 1) return null
    const key = name.slice(0, dot)
    const ending = name.slice(dot + 1).toLowerCase()
    if (this.#sample?.key !== key) this.#begin(key)
    const sample = this.#sample!
    if ((imageExtensions as readonly string[]).includes(ending)) {
      if (sample.image) throw expected('one image', this.#at(key), `${ends(sample.image.name)} and ${ending}`)
      sample.image = member
    }
    if (ending !== 'cls' && ending !== 'json') return null
    if (sample[ending] !== null) throw expected(`one .${ending}`, this.#at(key), 'two')
    if (length > LONGEST) throw expected(`at most ${LONGEST} bytes of .${ending}`, this.#at(key), length)
    return (content) => {
      sample[ending] = ending === 'cls' ? content.toString('utf8').trim() : this.#labelOf(content, key)
    }
  }

  /** All images of the shard, once it is read to its end. */
  finish(): ShardImages {
    this.#add()
    return {
      offsets: Float64Array.from(this.#offsets),
      lengths: Float64Array.from(this.#lengths),
      names: this.#names,
      labels: this.#labels,
      strayLabels: this.#strayLabels
    }
  }

  #begin(key: string): void {
    this.#add()
    this.#sample = { key, image: null, cls: null, json: null }
  }

  #add(): void {
    if (!this.#sample) return
    const { key, image, cls, json } = this.#sample
    const label = cls ?? json
    this.#sample = null
    if (!image) {
      if (label) this.#strayLabels++
      return
    }
    if (cls === '') throw expected('a class', `the .cls of ${this.#at(key)}`, 'nothing')
    this.#offsets.push(image.offset)
    this.#lengths.push(image.length)
    this.#names.push(image.name.replace(/^\.\//, ''))
    this.#labels.push(label || null)
  }

  #labelOf(content: Buffer, key: string): string | null {
    const at = `the .json of ${this.#at(key)}`
    let record: unknown
    try {
      record = JSON.parse(content.toString('utf8'))
    } catch {
      throw expected('JSON', at, content.toString('utf8').trim())
    }
    if (typeof record !== 'object' || record === null) return null
    const found = labelNames.filter((name) => Object.hasOwn(record, name))
    if (found.length > 1) throw expected(`one of ${labelNames.join(', ')}`, at, found.join(' and '))
    const label = found.length > 0 ? (record as Record<string, unknown>)[found[0]!] : null
    if (label === null || label === '') return null
    if (typeof label !== 'string' && typeof label !== 'number') throw expected(`a text or a number as ${found[0]}`, at, label)
    return String(label)
  }

  #at(key: string): string {
    return `sample '${key}' of shard '${this.#shard}'`
  }
}

const ends = (name: string): string => name.slice(name.lastIndexOf('.') + 1)
