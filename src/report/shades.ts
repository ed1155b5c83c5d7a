import type { Scale } from 'vega'

/** Red, green and blue, 0 to 255. */
export type Colour = readonly [red: number, green: number, blue: number]

/** Colours of shares; in between they are mixed. Steep at first, so that what is rare shows. */
const STOPS: readonly (readonly [share: number, colour: Colour])[] = [
  [0, [247, 250, 253]], [0.02, [222, 235, 247]], [0.1, [176, 209, 235]], [0.3, [107, 165, 213]], [0.6, [40, 105, 173]], [1, [8, 48, 107]]
]
/** From this share on, white is more readable on the colour than black; either has a contrast of 4.5 at least, as WCAG 2.1 asks. */
const DARK_FROM = 0.52

/** What has no share. */
export const EMPTY: Colour = [232, 232, 232]

/** The shades in Vega's grammar. */
export const shadeScale: Scale = {
  name: 'share',
  type: 'linear',
  domain: STOPS.map(([share]) => share),
  range: STOPS.map(([, colour]) => `rgb(${colour.join(',')})`),
  interpolate: 'rgb'
}

/** Colour of a share. */
export function shade(share: number): Colour {
  const above = Math.max(1, STOPS.findIndex(([stop]) => share <= stop))
  const [[from, low], [to, high]] = [STOPS[above - 1]!, STOPS[above]!]
  const mix = (i: 0 | 1 | 2) => Math.round(low[i] + ((share - from) / (to - from)) * (high[i] - low[i]))
  return [mix(0), mix(1), mix(2)]
}

/** Colour of a text on the colour of a share: grey for nothing. */
export function inkOn(share: number): string {
  if (share === 0) return '#6c7781'
  return share < DARK_FROM ? '#000' : '#fff'
}
