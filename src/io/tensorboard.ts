import { appendFile, mkdir } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { crc32c } from '@node-rs/crc32'
import protobuf from 'protobufjs'

import { expected } from '../errors.js'

// The part of the event format that is written here, with TensorBoard's field numbers:
// https://github.com/tensorflow/tensorboard/tree/master/tensorboard/compat/proto (event.proto, summary.proto)
const { root } = protobuf.parse(`
  syntax = "proto3";
  message Image {
    int32 height = 1;
    int32 width = 2;
    int32 colorspace = 3;
    bytes encoded_image_string = 4;
  }
  message Value {
    string tag = 1;
    oneof value {
      float simple_value = 2;
      Image image = 4;
    }
  }
  message Summary { repeated Value value = 1; }
  message SessionLog { int32 status = 1; }
  message Event {
    double wall_time = 1;
    int64 step = 2;
    oneof what {
      string file_version = 3;
      Summary summary = 5;
      SessionLog session_log = 7;
    }
  }
`, { keepCase: true })

const Event = root.lookupType('Event')
const SESSION_START = 1
const RGB = 3

// TensorFlow's checksum of a record: CRC-32C, rotated and shifted so that a checksum of data that holds checksums is no trivial one.
function maskedChecksum(bytes: Uint8Array): number {
  const crc = crc32c(bytes)
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}

/** A record of TensorFlow's record files: length, its checksum, data, their checksum. */
function record(data: Uint8Array): Buffer {
  const framed = Buffer.alloc(data.length + 16)
  framed.writeBigUInt64LE(BigInt(data.length), 0)
  framed.writeUInt32LE(maskedChecksum(framed.subarray(0, 8)), 8)
  framed.set(data, 12)
  framed.writeUInt32LE(maskedChecksum(data), data.length + 12)
  return framed
}

/** A PNG of `height` x `width` pixels, in colour. */
export interface EncodedImage {
  readonly png: Uint8Array
  readonly height: number
  readonly width: number
}

let count = 0

/** Writes figures and pictures for TensorBoard: a file of events in `folder`, complete after each call. */
export class TensorBoardWriter {
  readonly #path: string

  private constructor(path: string) {
    this.#path = path
  }

  /**
   * Begins a file. What earlier files of the folder say of steps after `step` is forgotten by TensorBoard.
   *
   * @param step - Steps done before; 0 for a run that begins.
   */
  static async open(folder: string, step = 0): Promise<TensorBoardWriter> {
    await mkdir(folder, { recursive: true })
    // TensorBoard reads the files of a folder in the order of their names.
    const seconds = String(Math.floor(Date.now() / 1000)).padStart(10, '0')
    const writer = new TensorBoardWriter(join(folder, `events.out.tfevents.${seconds}.${hostname()}.${process.pid}.${count++}`))
    await writer.#append({ file_version: 'brain.Event:2' })
    await writer.#append({ step: step + 1, session_log: { status: SESSION_START } })
    return writer
  }

  /** @param values - Numbers by name; a slash in a name makes a group. @throws InputError for a value that is no number. */
  async scalars(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    for (const [name, value] of Object.entries(values)) if (typeof value !== 'number') throw expected('a number', `'${name}'`, value)
    await this.#append({ step, summary: { value: Object.entries(values).map(([tag, simple_value]) => ({ tag, simple_value })) } })
  }

  /** A picture at a step, under a tag. */
  async image(step: number, tag: string, { png, height, width }: EncodedImage): Promise<void> {
    await this.#append({ step, summary: { value: [{ tag, image: { height, width, colorspace: RGB, encoded_image_string: png } }] } })
  }

  async #append(event: Readonly<Record<string, unknown>>): Promise<void> {
    const encoded = Event.encode(Event.create({ wall_time: Date.now() / 1000, ...event })).finish()
    await appendFile(this.#path, record(encoded))
  }
}
