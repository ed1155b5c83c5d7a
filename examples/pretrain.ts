// Pretraining on the embedded images, then what the encoder's features are worth. Give a folder of your own as first argument.
import { measureKnn, pretrain } from 'gmml'

const images = process.argv[2] ?? 'data/fashion-mnist-mini/train'
const out = process.argv[3] ?? 'runs/example'

const { exported, loss } = await pretrain(
  { images, out, model: 'vit_micro', epochs: 1, limit: 1024, dropPath: 0 },
  { onStep: ({ step, steps, loss }) => console.log(`step ${step}/${steps}: loss ${loss.toFixed(4)}`) }
)
console.log(`last epoch's loss ${loss.toFixed(4)}, encoder in ${exported}`)

if (!process.argv[2]) {
  const test = 'data/fashion-mnist-mini/held-out'
  console.log('kNN accuracy:', await measureKnn({ subject: out, train: images, test, limit: 1000 }))
}
