import { Presets, SingleBar } from 'cli-progress'

import type { EpochReport, PretrainHooks, RunStart, StepReport } from '../train/index.js'

const percent = (part: number) => `${(100 * part).toFixed(part < 0.0995 ? 1 : 0)} %`

/** Hours, minutes and seconds, the largest two that count. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?'
  const whole = Math.round(seconds)
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)]
  if (hours > 0) return `${hours} h ${minutes} min`
  return minutes > 0 ? `${minutes} min ${whole % 60} s` : `${whole} s`
}

function describeStart(start: RunStart): string {
  const { images, classes, parameters, device, precision, threads, resumedFrom } = start
  const where = device === 'cpu' ? `${threads} CPU threads` : device
  const resumed = resumedFrom ? `, going on after step ${resumedFrom.step}` : ''
  const sorts = classes ? ` in ${classes} classes` : ''
  return `${images} images${sorts}, ${(parameters / 1e6).toFixed(2)} M parameters, ${where}, ${precision}${resumed}`
}

// Above this part of the time the network waits for the images.
const SLOW_LOADING = 0.1

const HINT = "the images come slower than the network takes them: try more --workers, smaller image files, or --hold; 'gmml data' measures"

/** Shows a run: a bar on a terminal, else a line now and then. Messages go to standard error, so that standard output can be piped. */
export class ProgressDisplay implements PretrainHooks {
  readonly #terminal = process.stderr.isTTY
  #bar: SingleBar | null = null
  #last: { readonly time: number; readonly step: number } | null = null
  #rate = 0
  #lastLine = -Infinity
  /** Reports in a row that say that images come slowly. */
  #slow = 0
  #hinted = false

  readonly onStart = (start: RunStart): void => this.print(describeStart(start))

  readonly onStep = (report: StepReport): void => {
    const { step, steps, epoch, epochs, loss, lr, imagesPerSecond, dataShare, skipped } = report
    const eta = duration(this.#remaining(step, steps))
    const figures = {
      epoch: `${epoch}/${epochs}`, loss: loss.toFixed(4), lr: lr.toExponential(2), speed: imagesPerSecond.toFixed(1),
      waiting: percent(dataShare), left: eta
    }
    const hint = dataShare > SLOW_LOADING ? ` (${HINT})` : ''
    if (this.#terminal) {
      // Once, and not for the first images, for which threads were started.
      this.#slow = hint ? this.#slow + 1 : 0
      if (this.#slow === 2 && !this.#hinted) {
        this.#hinted = true
        this.print(`waiting for data ${figures.waiting}${hint}`)
      }
      this.#bar ??= this.#startBar(steps)
      this.#bar.update(step, figures)
      return
    }
    // A log file wants a line every few seconds, not one per report.
    if (performance.now() - this.#lastLine < 5000 && step < steps) return
    this.#lastLine = performance.now()
    const skips = skipped ? `  ${skipped} skipped` : ''
    this.print(
      `step ${step}/${steps}  epoch ${figures.epoch}  loss ${figures.loss}  lr ${figures.lr}  ${figures.speed} images/s  ` +
        `waiting for data ${figures.waiting}${skips}  ${eta} left${hint}`
    )
  }

  readonly onEpoch = ({ epoch, loss, seconds, accuracy }: EpochReport): void => {
    const measured = accuracy === null ? '' : `, accuracy ${percent(accuracy)} on held-out images`
    this.print(`epoch ${epoch}: loss ${loss.toFixed(4)}, ${duration(seconds)}${measured}`)
  }

  readonly onNotice = (message: string): void => this.print(message)

  readonly onBroken = ({ message }: Error): void => this.print(`left out: ${message}`)

  /** A line of its own, above the bar. */
  print(line: string): void {
    if (this.#bar) process.stderr.write('\r\x1b[K')
    process.stderr.write(`${line}\n`)
  }

  stop(): void {
    this.#bar?.stop()
    this.#bar = null
  }

  #startBar(steps: number): SingleBar {
    const format = '{bar} {percentage} %  epoch {epoch}  loss {loss}  lr {lr}  {speed} images/s  waiting {waiting}  {left} left'
    const bar = new SingleBar({ format, hideCursor: true, stream: process.stderr, barsize: 20 }, Presets.shades_classic)
    bar.start(steps, 0, { epoch: '-', loss: '-', lr: '-', speed: '-', waiting: '-', left: '?' })
    return bar
  }

  // Seconds that are left, from a running mean of the speed.
  #remaining(step: number, steps: number): number {
    const time = performance.now() / 1000
    if (this.#last && step > this.#last.step) {
      const rate = (step - this.#last.step) / (time - this.#last.time)
      this.#rate = this.#rate ? 0.9 * this.#rate + 0.1 * rate : rate
    }
    this.#last = { time, step }
    return this.#rate ? (steps - step) / this.#rate : Infinity
  }
}
