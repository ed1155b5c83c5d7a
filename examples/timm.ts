// Weights of a timm vision transformer in a model for other images, and weights of ours for timm.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { loadSafetensors, saveSafetensors } from 'gmml/io'
import * as torch from 'gmml/torch'
import { timmArguments, visionTransformer, visionTransformerFromTimm } from 'gmml/vision'

torch.manualSeed(0)
const folder = await mkdtemp(join(tmpdir(), 'gmml-timm-'))

// A file such as `save_file(timm.create_model('vit_tiny_patch16_224', pretrained=True).state_dict(), ...)` writes in Python; give
// yours as the first argument. Without one, random weights under the same names.
const given = process.argv[2] ?? join(folder, 'vit_tiny.safetensors')
if (!process.argv[2]) await saveSafetensors(given, visionTransformer('vit_tiny', { numClasses: 1000 }).stateDict())
const { tensors } = await loadSafetensors(given)

const model = visionTransformerFromTimm(tensors).eval()
const logits = torch.noGrad(() => model.logits(torch.randn([1, model.channels, ...model.imageSize])))
console.log(`${model.depth} blocks of width ${model.embedDim}, images of ${model.imageSize.join(' x ')}, ${logits.shape[1]} classes`)

// The same weights for images of 96 x 160 pixels with four channels: positions resampled, patch embedding adapted, no classifier.
const backbone = visionTransformerFromTimm(tensors, { imageSize: [96, 160], channels: 4, numClasses: 0 }).eval()
const images = torch.randn([2, 4, 96, 160])
const tokens = torch.noGrad(() => backbone.call(images))
console.log(`tokens [${tokens.shape.join(', ')}], of them patches [${backbone.patchTokens(tokens).shape.join(', ')}]`)
console.log(`features [${backbone.pool(tokens).shape.join(', ')}]`)

// Back: timm's VisionTransformer(**arguments) loads the file with strict=True.
const file = join(folder, 'ours.safetensors')
await saveSafetensors(file, backbone.stateDict(), { timm: JSON.stringify(timmArguments(backbone)) })
const { metadata } = await loadSafetensors(file)
console.log('for timm:', metadata['timm'])

await rm(folder, { recursive: true })
