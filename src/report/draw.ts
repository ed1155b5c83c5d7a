import { createRequire } from 'node:module'
import pLimit from 'p-limit'
import sharp from 'sharp'
import type { Spec } from 'vega'

import { wrap } from './text.js'

/** A drawn chart: the same bytes for the same input. */
export interface Chart {
  /** In CSS pixels. */
  readonly width: number
  /** In CSS pixels. */
  readonly height: number
  /** The texts are texts: they can be selected and searched. */
  readonly svg: string
  /** Of {@link DENSITY} pixels per CSS pixel. */
  readonly png: Uint8Array
}

/** Pixels of a PNG per CSS pixel. */
export const DENSITY = 2

const FONT = 'Inter'
const FONT_FILES = ['400Regular/Inter_400Regular.ttf', '600SemiBold/Inter_600SemiBold.ttf']
/** Where an SVG is shown, the font may be missing. */
const FAMILY = `${FONT}, Helvetica, Arial, sans-serif`
const INK = '#333'
const TITLE_SIZE = 16
const TITLE_WEIGHT = 600

/** Width of a text in CSS pixels. */
export type TextWidth = (text: string, fontSize: number, fontWeight?: number | string) => number

/** A title in lines of at most such a width. */
export function titleLines(title: string, limit: number, textWidth: TextWidth): string[] {
  return wrap(title, limit, (text) => textWidth(text, TITLE_SIZE, TITLE_WEIGHT))
}

/** What all charts have in common. */
const config: NonNullable<Spec['config']> = {
  background: 'white',
  title: {
    anchor: 'start', frame: 'bounds', font: FAMILY, fontSize: TITLE_SIZE, fontWeight: TITLE_WEIGHT, color: '#111', lineHeight: 21,
    offset: 14, subtitleFont: FAMILY, subtitleFontSize: 12, subtitleColor: '#666', subtitlePadding: 6
  },
  text: { font: FAMILY },
  axis: {
    domainColor: '#999', tickColor: '#999', gridColor: '#e6e6e6', tickSize: 4, labelPadding: 5, titlePadding: 10,
    labelFont: FAMILY, labelFontSize: 12, labelColor: INK, labelLimit: 0,
    titleFont: FAMILY, titleFontSize: 13, titleFontWeight: 400, titleColor: INK
  },
  legend: {
    labelFont: FAMILY, labelFontSize: 12, labelColor: INK, labelLimit: 0,
    titleFont: FAMILY, titleFontSize: 12, titleFontWeight: 400, titleColor: INK, titleLimit: 0, titlePadding: 8
  }
}

/** Loaded by the first chart: nothing else is to wait for them. */
async function loadLibraries() {
  const [vega, canvas] = await Promise.all([import('vega'), import('@napi-rs/canvas')])
  // A font of our own, since a machine may have none, or others: texts and layout are the same everywhere.
  const { resolve } = createRequire(import.meta.url)
  for (const file of FONT_FILES) {
    if (!canvas.GlobalFonts.registerFromPath(resolve(`@expo-google-fonts/inter/${file}`))) throw new Error(`Cannot load ${file}`)
  }
  const context = canvas.createCanvas(1, 1).getContext('2d')
  const textWidth: TextWidth = (text, fontSize, fontWeight = 400) => {
    context.font = `${fontWeight} ${fontSize}px ${FONT}`
    return context.measureText(text).width
  }
  return { vega, canvas, textWidth }
}

let loading: ReturnType<typeof loadLibraries> | undefined
const libraries = () => (loading ??= loadLibraries())

/** Vega's hook for programs without a browser, which its types lack. */
interface TextMetrics {
  width: (item: { readonly fontSize?: number; readonly fontWeight?: number | string }, text: string) => number
}

async function layOut(spec: Spec): Promise<string> {
  const { vega, textWidth } = await libraries()
  const { textMetrics } = vega as unknown as { readonly textMetrics: TextMetrics }
  const { width } = textMetrics
  const view = new vega.View(vega.parse({ ...spec, config, padding: 16 }), { renderer: 'none', logLevel: vega.Error })
  try {
    textMetrics.width = ({ fontSize = 11, fontWeight }, text) => textWidth(text, fontSize, fontWeight)
    return await view.toSVG()
  } finally {
    textMetrics.width = width // others may use Vega too
    view.finalize()
  }
}

async function rasterise(svg: string): Promise<Omit<Chart, 'svg'>> {
  const { canvas } = await libraries()
  const image = await canvas.loadImage(Buffer.from(svg))
  const { width, height } = image
  const surface = canvas.createCanvas(width * DENSITY, height * DENSITY)
  surface.getContext('2d').drawImage(image, 0, 0, surface.width, surface.height)
  const raw = { width: surface.width, height: surface.height, channels: 4 } as const
  // Without the alpha channel, which is full everywhere. The canvas's own encoder writes files of twice the size.
  return { width, height, png: await sharp(surface.data(), { raw }).removeAlpha().png({ compressionLevel: 9 }).toBuffer() }
}

// The hook is one for the whole process: a chart must not take it away from another.
const oneByOne = pLimit(1)

/**
 * Draws a chart in Vega's grammar, without a browser and without the fonts of the machine.
 *
 * @param describe - Gives the chart; Vega itself is not to cut texts (`limit`), as it would reserve the space for the whole ones.
 */
export async function draw(describe: (textWidth: TextWidth) => Spec): Promise<Chart> {
  const { textWidth } = await libraries()
  const svg = await oneByOne(() => layOut(describe(textWidth)))
  return { svg, ...(await rasterise(svg)) }
}
