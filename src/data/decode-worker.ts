import { parentPort } from 'node:worker_threads'
import { decodeCropsHere } from './decode.js'
import { type DecodeOutcome, type DecodeTask, runTask } from './decode-task.js'
import type { Reply, Request } from './worker-pool.js'

async function answer({ id, task }: Request<DecodeTask>): Promise<Reply<DecodeOutcome>> {
  try {
    return { id, result: await runTask(task, decodeCropsHere) }
  } catch (error) {
    return { id, error }
  }
}

// One after the other: a thread has one image in memory, and ends when that is done.
let before = Promise.resolve()
parentPort?.on('message', (request: Request<DecodeTask>) => {
  before = before.then(async () => parentPort!.postMessage(await answer(request)))
})
