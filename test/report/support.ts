import sharp from 'sharp'

/** Pixels of a picture. */
export interface Pixels {
  readonly width: number
  readonly height: number
  readonly channels: number
  readonly at: (x: number, y: number) => [red: number, green: number, blue: number]
}

export async function decode(png: Uint8Array): Promise<Pixels> {
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true })
  const { width, height, channels } = info
  return {
    width, height, channels,
    at: (x, y) => {
      const first = (Math.round(y) * width + Math.round(x)) * channels
      return [data[first]!, data[first + 1]!, data[first + 2]!]
    }
  }
}

/** Brightness as the eye sees it, 0 to 255. */
export const brightness = ([red, green, blue]: readonly number[]) => 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!

/** Texts of an SVG, in its order; the lines of one are put together. */
export const texts = (svg: string) =>
  Array.from(svg.matchAll(/<text[^>]*>(.*?)<\/text>/g), ([, text]) => text!.replaceAll('</tspan><', '</tspan> <').replace(/<[^>]*>/g, ''))

/** Where the plot is in an SVG: the corner that its first group is moved to. */
export function corner(svg: string): readonly [left: number, top: number] {
  const [, left, top] = /<g fill="none"[^>]*translate\(([\d.]+),([\d.]+)\)/.exec(svg)!
  return [Number(left), Number(top)]
}
