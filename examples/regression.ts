// A regression trained by hand: a small network learns the sine from noisy samples.
import * as torch from 'gmml/torch'
import { GELU, Linear, Sequential } from 'gmml/nn'
import { AdamW, cosineSchedule } from 'gmml/optim'

torch.manualSeed(0)
const x = torch.rand([256, 1]).mul(6).sub(3)
const y = x.sin().add(torch.randn([256, 1]).mul(0.05))

const model = new Sequential(new Linear(1, 32), new GELU(), new Linear(32, 32), new GELU(), new Linear(32, 1))
const optimizer = new AdamW(model.parameters(), { weightDecay: 0 })
const steps = 500
const lr = cosineSchedule({ base: 1e-2, final: 1e-4, steps, warmupSteps: 20 })

for (let step = 0; step < steps; step++) {
  const loss = torch.scope(() => {
    const loss = model.call(x).sub(y).square().mean()
    loss.backward()
    optimizer.groups[0]!.lr = lr(step)
    optimizer.step()
    optimizer.zeroGrad()
    return loss.item()
  })
  if (step % 100 === 99) console.log(`step ${step + 1}: loss ${loss.toFixed(5)}`)
}

const error = torch.noGrad(() => model.call(x).sub(x.sin()).abs().max().item())
console.log(`largest error against the sine without noise: ${error.toFixed(3)}`)
