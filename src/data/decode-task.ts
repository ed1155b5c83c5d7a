import { BrokenImageError } from './broken.js'
import type { Size } from './crop.js'
import type { Crops, NamedContent } from './decode.js'
import { type CropPlan, planCrops } from './draw.js'

/** One image to be decoded and cut, by whoever. All of it can be sent to a thread. */
export interface DecodeTask extends NamedContent {
  readonly plan: CropPlan
  readonly size: Size
  /** [views, 3, height, width]: filled with what is decoded. In shared memory, or a thread fills its own copy. */
  readonly planes: Uint8Array
}

/** What became of a task. An image that is broken is an outcome, no error. */
export type DecodeOutcome =
  | { readonly shifts: readonly (readonly [x: number, y: number] | null)[]; /** Of the whole image, upright. */ readonly imageSize: Size }
  | { readonly broken: { readonly file: string; readonly reason: string } }

/** Cuts an image into `planes`: {@link decodeCrops} and its likes. */
export type Cut = (image: NamedContent, crops: Crops, size: Size, planes: Uint8Array) => Promise<void>

/** Does a task. Its crops are a function of its plan and the image's size alone. */
export async function runTask({ content, name, plan, size, planes }: DecodeTask, cut: Cut): Promise<DecodeOutcome> {
  let crops: ReturnType<typeof planCrops> = []
  let imageSize = { width: 0, height: 0 }
  const draw = (width: number, height: number) => {
    imageSize = { width, height }
    return (crops = planCrops(plan, width, height, size))
  }
  try {
    await cut({ content, name }, draw, size, planes)
    return { shifts: crops.map(({ shift }) => shift ?? null), imageSize }
  } catch (error) {
    if (!(error instanceof BrokenImageError)) throw error
    return { broken: { file: error.file, reason: error.reason } }
  }
}
