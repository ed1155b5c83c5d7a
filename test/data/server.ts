import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** Answers a request in its own way; true if it did. */
export type Trick = (request: IncomingMessage, response: ServerResponse, count: number) => boolean | void

export interface FileServer {
  /** With a slash at its end. */
  readonly address: string
  /** Ranges asked for, `file first-last`, in order. */
  readonly requests: string[]
  /** Files by name; may be changed. */
  readonly files: Map<string, Uint8Array>
  etag: string
  trick: Trick
  /** Connections that are open. */
  connections(): Promise<number>
}

/** A server of files that answers requests for ranges, gone after the test. `trick` may answer before it does. */
export async function serve(files: Readonly<Record<string, Uint8Array>>): Promise<FileServer> {
  const server = createServer((request, response) => {
    const file = decodeURIComponent(new URL(request.url!, 'http://host').pathname.slice(1))
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? []
    served.requests.push(`${file} ${first}-${last}`)
    if (served.trick(request, response, served.requests.length)) return
    const bytes = served.files.get(file)
    if (!bytes) return void response.writeHead(404).end()
    if (Number(first) >= bytes.length) return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
    const part = bytes.subarray(Number(first), Number(last) + 1)
    const range = `bytes ${first}-${Number(first) + part.length - 1}/${bytes.length}`
    response.writeHead(206, { 'content-range': range, 'content-length': part.length, etag: served.etag }).end(part)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(() => resolve()))
  })
  const served: FileServer = {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    requests: [],
    files: new Map(Object.entries(files)),
    etag: '"one"',
    trick: () => false,
    connections: () => new Promise((resolve, reject) => server.getConnections((error, count) => (error ? reject(error) : resolve(count))))
  }
  return served
}
