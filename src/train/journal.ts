import { join } from 'node:path'

import { TensorBoardWriter, type EncodedImage } from '../io/index.js'
import { writing, type RunFolder } from './run-folder.js'

type Line = Readonly<Record<string, number | null>>

/** What a run writes down of itself: metrics.jsonl, and event files for TensorBoard if they are wanted. */
export class Journal {
  readonly #folder: RunFolder
  readonly #board: TensorBoardWriter | null

  private constructor(folder: RunFolder, board: TensorBoardWriter | null) {
    this.#folder = folder
    this.#board = board
  }

  /** Forgets what was written of steps after `step`: a run that goes on measures them again. */
  static async open(folder: RunFolder, step: number, options: { readonly tensorboard: boolean }): Promise<Journal> {
    await folder.truncateMetrics(step)
    const events = join(folder.path, 'tensorboard')
    const board = options.tensorboard ? await writing(`'${events}'`, () => TensorBoardWriter.open(events, step)) : null
    return new Journal(folder, board)
  }

  /** Figures at a step, in TensorBoard under `group`. Null for what was not finite. */
  async write(group: 'step' | 'epoch', line: Line & { readonly step: number }): Promise<void> {
    await this.#folder.appendMetrics(line)
    const named = Object.entries(line).filter((entry): entry is [string, number] => entry[0] !== 'step' && entry[1] !== null)
    await this.#onBoard((board) => board.scalars(line.step, Object.fromEntries(named.map(([name, value]) => [`${group}/${name}`, value]))))
  }

  async picture(step: number, name: string, image: EncodedImage): Promise<void> {
    await this.#onBoard((board) => board.image(step, name, image))
  }

  async #onBoard(write: (board: TensorBoardWriter) => Promise<void>): Promise<void> {
    const board = this.#board
    if (board) await writing(`the events for TensorBoard in '${this.#folder.path}'`, () => write(board))
  }
}
