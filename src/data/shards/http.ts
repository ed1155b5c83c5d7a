import { setTimeout as sleep } from 'node:timers/promises'
import pRetry from 'p-retry'
import { expected } from '../../errors.js'
import { shownPath } from './names.js'
import type { ByteRange } from './tar.js'

export interface HttpOptions {
  /** How often a request is made at most. */
  readonly attempts?: number
  /** Milliseconds to wait before the second attempt; twice as long before each further one, up to a minute, and a random part more. */
  readonly delay?: number
  /** Milliseconds without a byte after which an attempt has failed. */
  readonly silence?: number
}

// With these, a server may be away for about a minute.
const defaults = { attempts: 6, delay: 1000, silence: 30_000 }
const LONGEST_DELAY = 60_000
/** A server that asks for more time than this is as good as gone. */
const LONGEST_RETRY_AFTER = 300_000

/** Bytes could not be had from a server, though it was asked several times. Other images of that server cannot be had either. */
export class TransferError extends Error {
  override readonly name = 'TransferError'
  readonly code = 'ERR_TRANSFER'

  /**
   * @param url - Without what follows `?`.
   * @param attempts - How often the server was asked.
   * @param status - HTTP status of the last answer; null if there was none, or it broke off.
   */
  constructor(readonly url: string, readonly attempts: number, readonly status: number | null, reason: string, options?: ErrorOptions) {
    super(`Cannot read '${url}' after ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}: ${reason}`, options)
  }
}

/** What may be otherwise next time. */
class PassingError extends Error {
  constructor(message: string, readonly status: number | null, readonly retryAfter = 0, options?: ErrorOptions) {
    super(message, options)
  }
}

/** What a server says of a file. */
interface Version {
  readonly size: number
  readonly etag: string | null
}

interface Answer extends Version {
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Ends a request when it is not wanted any more, or when nothing has come for a while. */
class Watch {
  readonly #controller = new AbortController()
  readonly #end = (): void => this.#controller.abort()
  #timer: NodeJS.Timeout | undefined
  silent = false

  constructor(private readonly silence: number, private readonly outer: AbortSignal | undefined) {
    outer?.addEventListener('abort', this.#end, { once: true })
    this.progress()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  progress(): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.silent = true
      this.#end()
    }, this.silence)
  }

  /** A body that nobody has read to its end is given up, too. */
  close(): void {
    clearTimeout(this.#timer)
    this.outer?.removeEventListener('abort', this.#end)
    this.#end()
  }
}

/** Seconds or a date, as milliseconds from now. */
function retryAfterOf(response: Response): number {
  const text = response.headers.get('retry-after') ?? ''
  const wanted = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now()
  return wanted > 0 ? Math.min(wanted, LONGEST_RETRY_AFTER) : 0
}

const passing = (status: number): boolean => status === 408 || status === 425 || status === 429 || status >= 500

/** What the server has of the range. @throws InputError for what will be the same next time. */
function checkAnswer(response: Response, url: string, range: ByteRange, known: Version | null): Version & { readonly length: number } {
  const { status, statusText, headers } = response
  const at = `'${shownPath(url)}'`
  if (passing(status)) throw new PassingError(`HTTP ${status} ${statusText}`.trim(), status, retryAfterOf(response))
  const changed = (what: string): Error => expected('the file that was there when the images were listed', at, what)
  if (status === 416) throw known ? changed('a shorter one') : expected('a tar file', at, 'an empty file')
  if (status === 200) throw expected('a server that gives parts of files (HTTP 206 for Range)', at, 'the whole file (HTTP 200)')
  if (status !== 206) throw expected('a file that may be read', at, `HTTP ${status} ${statusText}`.trim())
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '') ?? []
  if (total === undefined) throw expected('an answer that tells the length of the file (Content-Range)', at, headers.get('content-range'))
  const version = { size: Number(total), etag: headers.get('etag') }
  if (known && known.size !== version.size) throw changed(`one of ${version.size} bytes instead of ${known.size}`)
  if (known?.etag && version.etag && known.etag !== version.etag) {
    throw changed(`another version (ETag ${version.etag} instead of ${known.etag})`)
  }
  const length = Math.min(range.length, version.size - range.offset)
  if (Number(first) !== range.offset || Number(last) - range.offset + 1 !== length) {
    throw new PassingError(`the answer has bytes ${first} to ${last} of those from ${range.offset} to ${range.offset + length - 1}`, status)
  }
  return { ...version, length }
}

async function readBody(response: Response, length: number, watch: Watch): Promise<Uint8Array<ArrayBuffer>> {
  const body: AsyncIterable<Uint8Array> | null = response.body
  if (body === null) throw new PassingError('the answer has no body', response.status)
  const bytes = new Uint8Array(length)
  let filled = 0
  for await (const chunk of body) {
    watch.progress()
    if (filled + chunk.length > length) throw new PassingError(`the answer has more than ${length} bytes`, response.status)
    bytes.set(chunk, filled)
    filled += chunk.length
  }
  if (filled < length) throw new PassingError(`the answer broke off after ${filled} of ${length} bytes`, response.status)
  return bytes
}

// The network may come back; a name that does not exist and a certificate that does not hold stay as they are.
const lasting = /^(?:ENOTFOUND|ERR_INVALID_URL|CERT_\w+|ERR_TLS_\w+|DEPTH_ZERO_\w+|SELF_SIGNED_\w+|UNABLE_TO_\w+)$/

async function attempt(url: string, range: ByteRange, known: Version | null, silence: number, signal?: AbortSignal): Promise<Answer> {
  signal?.throwIfAborted()
  const watch = new Watch(silence, signal)
  try {
    // A body that is packed for the way would have other lengths.
    const headers = { range: `bytes=${range.offset}-${range.offset + range.length - 1}`, 'accept-encoding': 'identity' }
    const response = await fetch(url, { headers, signal: watch.signal })
    watch.progress()
    const { size, etag, length } = checkAnswer(response, url, range, known)
    return { bytes: await readBody(response, length, watch), size, etag }
  } catch (error) {
    signal?.throwIfAborted()
    if (watch.silent) throw new PassingError(`nothing came for ${silence / 1000} s`, null)
    // fetch fails with a TypeError whatever happens on the network, a body with the socket's own error.
    const cause = ((error as Error).cause ?? error) as NodeJS.ErrnoException
    if (error instanceof PassingError || (error as Error).name === 'InputError') throw error
    if (lasting.test(cause.code ?? '')) throw expected('a server that can be reached', `'${shownPath(url)}'`, cause.code)
    throw new PassingError(cause.code ?? cause.message, null, 0, { cause })
  } finally {
    watch.close()
  }
}

/** Some bytes of a file on a server; fewer than asked for only at its end. */
async function requestRange(
  url: string, range: ByteRange, known: Version | null, options: HttpOptions, signal?: AbortSignal
): Promise<Answer> {
  const { attempts, delay, silence } = { ...defaults, ...options }
  try {
    return await pRetry(() => attempt(url, range, known, silence, signal), {
      retries: attempts - 1,
      minTimeout: delay,
      maxTimeout: LONGEST_DELAY,
      // From once to twice the delay, or many that failed together would come back together.
      randomize: true,
      shouldRetry: ({ error }) => error instanceof PassingError,
      onFailedAttempt: async ({ error, retriesLeft }) => {
        if (error instanceof PassingError && retriesLeft > 0) await sleep(error.retryAfter, undefined, signal ? { signal } : {})
      },
      ...(signal ? { signal } : {})
    })
  } catch (error) {
    signal?.throwIfAborted()
    if (!(error instanceof PassingError)) throw error
    throw new TransferError(shownPath(url), attempts, error.status, error.message, { cause: error.cause ?? error })
  }
}

/** A file on a server, as it was when it was opened. */
export class HttpFile {
  /** What it is called in messages. */
  readonly name: string

  private constructor(private readonly url: string, private readonly version: Version, private readonly options: HttpOptions) {
    this.name = shownPath(url)
  }

  get size(): number {
    return this.version.size
  }

  /**
   * Asks for the first bytes, by which the file's length is known.
   *
   * @throws InputError for a file that may not be read, and a server that does not give parts of files; TransferError.
   */
  static async open(
    url: string, length: number, options: HttpOptions, signal?: AbortSignal
  ): Promise<{ file: HttpFile; first: Uint8Array<ArrayBuffer> }> {
    const { bytes, size, etag } = await requestRange(url, { offset: 0, length }, null, options, signal)
    return { file: new HttpFile(url, { size, etag }, options), first: bytes }
  }

  /**
   * @returns Fewer bytes than asked for only at the end of the file.
   * @throws InputError if the file is another one by now, TransferError, and the signal's reason.
   */
  async read(range: ByteRange, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const length = Math.min(range.length, this.size - range.offset)
    if (length <= 0) return new Uint8Array(0)
    return (await requestRange(this.url, { offset: range.offset, length }, this.version, this.options, signal)).bytes
  }
}
