// Weights in safetensors files: whole, in part, mapped, in shards, converted without holding all of them.
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { inspectSafetensors, loadSafetensors, saveSafetensors } from 'gmml/io'
import { visionTransformer } from 'gmml/vision'

const folder = await mkdtemp(join(tmpdir(), 'gmml-safetensors-'))
const path = join(folder, 'model.safetensors')

// A model's weights, and back into another model.
const model = visionTransformer('vit_micro', { imageSize: 32, patchSize: 4 })
await saveSafetensors(path, model.stateDict(), { note: 'random weights' })
const { tensors, metadata } = await loadSafetensors(path)
visionTransformer('vit_micro', { imageSize: 32, patchSize: 4 }).loadStateDict(tensors)
console.log(`${Object.keys(tensors).length} tensors, ${metadata['note']}`)

// What is in a file, without reading it; then two tensors of it, mapped into memory instead of copied.
const { tensors: described } = await inspectSafetensors(path)
console.log('pos_embed:', described['pos_embed'])
const some = await loadSafetensors(path, { names: ['cls_token', 'pos_embed'], map: true })
console.log('read:', Object.keys(some.tensors).sort().join(' '))

// The same in bfloat16 and in files of at most half a megabyte. Each tensor is converted when its turn comes.
const mapped = await loadSafetensors(path, { map: true })
const converted = Object.fromEntries(Object.entries(mapped.tensors).map(([name, tensor]) => [
  name, { dtype: 'bfloat16' as const, shape: tensor.shape, make: () => tensor.to('bfloat16') }
]))
await saveSafetensors(path, converted, {}, { maxShardBytes: 500_000 })
console.log((await readdir(folder)).sort().join('\n'))
const again = await loadSafetensors(folder)
console.log(`${Object.keys(again.tensors).length} tensors of ${again.tensors['pos_embed']!.dtype}`)

await rm(folder, { recursive: true })
