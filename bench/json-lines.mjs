// Both ends of the protocol of bench/pytorch: one JSON object per line, an answer for each request, a greeting first.
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/**
 * Starts a server in a process of its own, so that its memory and its threads are its own.
 * @param {string} name for messages
 * @param {string} command
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} [env]
 */
export async function startServer(name, command, args, env = process.env) {
  const child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const ended = new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => resolve(signal ?? code))
  })
  // A write to a process that has died fails too; what is reported is that it died.
  child.stdin.on('error', () => {})
  const read = async () => {
    const { value, done } = await Promise.race([lines.next(), ended.then(() => lines.next())])
    if (done) throw new Error(`${name} ended (${await ended}) where an answer was expected`)
    const answer = JSON.parse(value)
    if (answer.error) throw new Error(`${name}: ${answer.error}`)
    return answer
  }
  const greeting = await read()
  return {
    name,
    greeting,
    /** @param {object} request */
    ask(request) {
      child.stdin.write(JSON.stringify(request) + '\n')
      return read()
    },
    async stop() {
      child.stdin.end()
      await ended
    },
    /** Ends it whatever it is doing. */
    kill() {
      child.kill('SIGKILL')
    }
  }
}

/**
 * The other end, in the process that was started.
 * @param {object} greeting
 * @param {(request: any) => object | Promise<object>} answer
 */
export async function serve(greeting, answer) {
  console.log(JSON.stringify(greeting))
  for await (const line of createInterface({ input: process.stdin })) {
    let reply
    try {
      reply = await answer(JSON.parse(line))
    } catch (error) {
      console.error(error)
      reply = { error: `${error.name}: ${error.message}` }
    }
    console.log(JSON.stringify(reply))
  }
}
