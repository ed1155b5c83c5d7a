// A vision transformer as Hugging Face's transformers reads and writes it. Argument: the folder of a ViTModel, made here if there is none.
import { existsSync } from 'node:fs'

import * as torch from 'gmml/torch'
import { loadHuggingFace, saveHuggingFace, visionTransformer } from 'gmml/vision'

const folder = process.argv[2] ?? 'runs/huggingface'
if (!existsSync(folder)) {
  // from transformers import ViTModel; ViTModel.from_pretrained("runs/huggingface", add_pooling_layer=False)
  const fresh = visionTransformer('vit_micro', { imageSize: 28, patchSize: 4 })
  await saveHuggingFace(folder, fresh, { mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5] })
}

const { model, mean, std } = await loadHuggingFace(folder)
model.eval()
const images = torch.randn([2, model.channels, ...model.imageSize])
const features = torch.noGrad(() => model.features(images))
console.log(`normalise by mean ${mean?.join(', ')} and deviation ${std?.join(', ')}; features: ${features.shape.join(' x ')}`)
