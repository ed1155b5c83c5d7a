import { describe, expect, it } from 'vitest'

import { clean, interruptChild, runChild, torchModule } from './support.js'

// A worker inherits --input-type=module.
const worker = (body: string) => `
  import { Worker } from 'node:worker_threads'
  const source = ${JSON.stringify(`
    import { parentPort, workerData } from 'node:worker_threads'
    import * as torch from ${JSON.stringify(torchModule)}
    ${body}
  `)}
  const start = (workerData) => new Worker(source, { eval: true, workerData })
  const done = (thread) => new Promise((resolve, reject) => {
    let message
    thread.on('message', (value) => (message = value))
    thread.once('error', reject)
    thread.once('exit', (code) => resolve({ code, message }))
  })
`

const train = `
  const n = workerData;
  const w = torch.keep(torch.tensor([n], { requiresGrad: true }));
  let loss;
  for (let i = 0; i < 200; i++) torch.scope(() => {
    w.grad = null;
    const l = w.sub(3).square().sum();
    l.backward();
    torch.noGrad(() => { w.sub_(w.grad.mul(0.1)); });
    loss = l.item();
  });
  parentPort.postMessage({ w: Math.round(w.item() * 1000) / 1000, live: torch.memory().tensors });
`

describe('worker threads', () => {
  it('three load the addon at once, train, and exit', () => {
    const outcome = runChild(`${worker(train)}
      print(await Promise.all([1, 20, -5].map((n) => done(start(n)))))
      print(torch.tensor([1, 2]).sum().item())
    `)
    expect(outcome).toEqual(clean([1, 2, 3].map(() => ({ code: 0, message: { w: 3, live: 1 } })), 3))
  })

  it('modes of one are not those of another', () => {
    const outcome = runChild(`${worker(`parentPort.postMessage([torch.isGradEnabled(), torch.memory().tensors]);`)}
      const held = torch.tensor([1])
      const thread = torch.noGrad(() => torch.scope(() => start(0)))
      print(await done(thread))
      print(held.item())
    `)
    expect(outcome).toEqual(clean({ code: 0, message: [true, 0] }, 1))
  })

  it('come and go, one after another', () => {
    const outcome = runChild(`${worker(train)}
      for (let i = 0; i < 8; i++) { const { code } = await done(start(i)); if (code !== 0) print(code) }
    `)
    expect(outcome).toEqual(clean())
  })

  it('may be terminated in the middle of a computation', () => {
    const outcome = runChild(`${worker(`
      parentPort.postMessage('started');
      const x = torch.randn([64, 64], { requiresGrad: true });
      for (;;) { try { torch.scope(() => x.matmul(x).relu().sum().backward()); torch.matmul(x, torch.zeros([3])) } catch {} }
    `)}
      for (let i = 0; i < 6; i++) {
        const thread = start(0)
        await new Promise((resolve) => thread.once('message', resolve))
        await tick(5 * i)
        await thread.terminate()
      }
      print(torch.ones([2]).sum().item())
    `)
    expect(outcome).toEqual(clean(2))
  })
})

describe('the process', () => {
  const work = `
    const x = torch.randn([64, 64], { requiresGrad: true })
    x.matmul(x).sum().backward()
    const y = torch.randn([500, 500]).matmul(torch.randn([500, 500]));
  `
  const read = `void y.toTypedArrayAsync(); torch.empty([9], { device: 'meta' }).toTypedArrayAsync().catch(() => {});`

  it.each([
    ['by itself after work', work],
    ['on process.exit at once', `${work} process.exit(0)`],
    ['on process.exit inside a scope', `${work} torch.scope(() => { torch.zeros([10]); process.exit(0) })`],
    ['on process.exit inside noGrad and autocast', `${work} torch.noGrad(() => torch.autocast('cpu', 'bfloat16', () => process.exit(0)))`],
    ['with a read pending', `${work} ${read}`],
    ['on process.exit with a read pending', `${work} for (let i = 0; i < 20; i++) { ${read} } process.exit(0)`],
    ['with an exception handler', `${work} process.once('uncaughtException', () => process.exit(0))
      torch.scope(() => { throw new Error('x') })`]
  ])('ends %s', (_, script) => {
    expect(runChild(script, { seconds: 30 })).toEqual(clean())
  })

  it('ends with a worker’s work half done', () => {
    expect(runChild(`${worker(`${train} setInterval(() => {}, 1000); parentPort.postMessage('ready');`)}
      const thread = start(1)
      thread.on('message', (message) => { if (message === 'ready') process.exit(0) })
    `, { seconds: 30 })).toEqual(clean())
  })

  it('ends with exit code 1 and its message when a TorchError is not caught', () => {
    const outcome = runChild(`torch.matmul(torch.ones([2, 3]), torch.ones([2, 3]))`)
    expect(outcome.status).toBe(1)
    expect(outcome.stderr).toContain('TorchError: aten::matmul: ')
  })

  it('can be interrupted in the middle of a computation', async () => {
    const script = `setTimeout(() => { print('busy'); const x = torch.randn([300, 300]); for (;;) torch.scope(() => x.matmul(x)) })`
    expect(await interruptChild(script, 'SIGTERM')).toEqual({ status: null, signal: 'SIGTERM' })
  })
})

describe('waiting', () => {
  it('gives what the tensor was when it was asked', () => {
    const outcome = runChild(`
      const x = torch.arange(100000, { dtype: 'float32' })
      const values = x.toTypedArrayAsync()
      const last = x.narrow(0, 99999, 1).itemAsync()
      x.zero_()
      x.dispose()
      print([(await values)[99999], await last])
    `)
    expect(outcome).toEqual(clean([99999, 99999]))
  })

  it('lets the event loop go on', () => {
    const outcome = runChild(`
      let turns = 0
      const timer = setInterval(() => turns++, 1)
      const x = torch.ones([3])
      for (let i = 0; i < 200; i++) await x.sum().itemAsync().then(() => tick(1))
      clearInterval(timer)
      print(turns > 50)
    `)
    expect(outcome).toEqual(clean(true))
  })
})
