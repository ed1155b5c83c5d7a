import { expect, it } from 'vitest'

import { clean, root, runChild } from './support.js'

// Resident memory is measured in a process that does nothing else, with V8's young generation at a fixed size: V8 doubles it once, somewhere around
// step 500, which would be 2 % of so small a process. Before the 300 steps come some in which the allocator reaches its size.
it('300 training steps hold their tensors and their memory', () => {
  const outcome = runChild(`
    import { GroupMaskedModel, corrupt } from ${JSON.stringify(`${root}/dist/gmml/index.js`)}
    import { AdamW, clipGradNorm } from ${JSON.stringify(`${root}/dist/optim/index.js`)}
    import { visionTransformer } from ${JSON.stringify(`${root}/dist/vision/index.js`)}

    torch.setNumThreads(1)
    torch.manualSeed(1)
    const model = new GroupMaskedModel(visionTransformer('vit_micro', { imageSize: 28, patchSize: 4, channels: 1 }))
    const optimizer = new AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.04 })
    const clean = torch.keep(torch.randn([8, 1, 28, 28]))
    const resident = () => process.memoryUsage.rss()
    const losses = []
    const live = new Set()
    const bytes = new Set()
    const memory = []
    const warmUp = 300
    for (let step = 0; step < warmUp + 300; step++) {
      const loss = torch.scope(() => {
        const { corrupted, mask } = corrupt(clean, { budget: 0.75, alien: 0.3 })
        const loss = model.loss(corrupted, clean, mask)
        loss.backward()
        clipGradNorm(model.parameters(), 3)
        optimizer.step()
        optimizer.zeroGrad()
        return loss.detach()
      })
      losses.push(await loss.itemAsync())
      loss.dispose()
      // The first step makes the optimizer's state.
      if (step > 0) { live.add(torch.memory().tensors); bytes.add(torch.memory().bytes.cpu) }
      if (step >= warmUp) memory.push(resident())
    }
    const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length
    const drift = mean(memory.slice(-50)) / mean(memory.slice(0, 50)) - 1
    print({ live: live.size, bytes: bytes.size, steady: drift < 0.02, learned: mean(losses.slice(-20)) < mean(losses.slice(0, 20)) })
    if (drift >= 0.02) console.error('drift ' + drift)
  `, { seconds: 110, flags: ['--max-semi-space-size=1'] })
  expect(outcome).toEqual(clean({ live: 1, bytes: 1, steady: true, learned: true }))
}, 120_000)
