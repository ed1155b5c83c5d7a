/** What a test wants in a header, where it is not as it should be. */
export interface Header {
  readonly type?: string
  /** Put into the field as it is. */
  readonly size?: Uint8Array | string
  readonly checksum?: string
  readonly magic?: string
  readonly prefix?: string
}

const zeros = (length: number): Buffer => Buffer.alloc(length)
const padding = (length: number): Buffer => zeros((512 - (length % 512)) % 512)

export const octal = (value: number, digits = 11): string => `${value.toString(8).padStart(digits, '0')}\0`

/** One member of a tar file in POSIX's format. */
export function member(name: string, content: Uint8Array | string = '', header: Header = {}): Buffer {
  const bytes = Buffer.from(content)
  const block = zeros(512)
  block.write(name)
  block.write(`${octal(0o644, 7)}${octal(0, 7)}${octal(0, 7)}`, 100)
  const size = header.size ?? octal(bytes.length)
  block.set(typeof size === 'string' ? Buffer.from(size) : size, 124)
  block.write(octal(0), 136)
  block.write(header.type ?? '0', 156, 'latin1')
  block.write(header.magic ?? 'ustar\x0000', 257, 'latin1')
  block.write(header.prefix ?? '', 345)
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(header.checksum ?? `${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return Buffer.concat([block, bytes, padding(bytes.length)])
}

export const END = zeros(1024)

/** A tar file of these files, in order. */
export const tar = (files: readonly (readonly [name: string, content: Uint8Array | string])[]): Buffer =>
  Buffer.concat([...files.map(([name, content]) => member(name, content)), END])

/** A record of pax. */
export function pax(records: Record<string, string>, type = 'x'): Buffer {
  const text = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`)
    let length = rest + 1
    while (String(length).length + rest !== length) length++
    return `${length} ${key}=${value}\n`
  })
  return member('PaxHeaders/0', text.join(''), { type })
}
