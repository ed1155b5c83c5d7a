// An encoder as an ONNX file, for onnxruntime and others. Arguments: the file to write, and a run's folder (an untrained encoder without).
import { exportBackbone } from 'gmml'
import { exportOnnx, visionTransformer } from 'gmml/vision'

const [out = 'backbone.onnx', run] = process.argv.slice(2)

if (run) {
  await exportBackbone(run, { to: 'onnx', out })
} else {
  const model = visionTransformer('vit_micro', { imageSize: 28, patchSize: 4, numClasses: 10 })
  await exportOnnx(out, model, { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] })
}
console.log(`${out}: takes images [batch, channels, height, width], gives tokens, pooled and, of a classifier, logits`)
