import protobuf from 'protobufjs'

import { expected, InputError } from '../errors.js'
import { scope, type DType, type Tensor } from '../torch/index.js'
import { writeAtomic } from './atomic.js'
import { elementSize, writeAll } from './bytes.js'

// The part of the format that is written here, with the field numbers of its specification:
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
const { root } = protobuf.parse(`
  syntax = "proto2";
  message Attribute {
    optional string name = 1;
    optional float f = 2;
    optional int64 i = 3;
    repeated int64 ints = 8;
    optional int32 type = 20;
  }
  message Node {
    repeated string input = 1;
    repeated string output = 2;
    optional string name = 3;
    optional string op_type = 4;
    repeated Attribute attribute = 5;
  }
  message Dimension {
    optional int64 dim_value = 1;
    optional string dim_param = 2;
  }
  message Shape { repeated Dimension dim = 1; }
  message TensorType {
    optional int32 elem_type = 1;
    optional Shape shape = 2;
  }
  message Type { optional TensorType tensor_type = 1; }
  message ValueInfo {
    optional string name = 1;
    optional Type type = 2;
  }
  message Tensor {
    repeated int64 dims = 1;
    optional int32 data_type = 2;
    optional string name = 8;
    optional bytes raw_data = 9;
  }
  message Graph {
    repeated Node node = 1;
    optional string name = 2;
    repeated Tensor initializer = 5;
    repeated ValueInfo input = 11;
    repeated ValueInfo output = 12;
  }
  message OperatorSet {
    optional string domain = 1;
    optional int64 version = 2;
  }
  message Entry {
    optional string key = 1;
    optional string value = 2;
  }
  message Model {
    optional int64 ir_version = 1;
    optional string producer_name = 2;
    optional string producer_version = 3;
    optional Graph graph = 7;
    repeated OperatorSet opset_import = 8;
    repeated Entry metadata_props = 14;
  }
`)

const ATTRIBUTE = { float: 1, int: 2, ints: 7 } as const
const dataTypes: Partial<Record<DType, number>> = {
  float32: 1, uint8: 2, int8: 3, uint16: 4, int16: 5, int32: 6, int64: 7, bool: 9, float16: 10, float64: 11, uint32: 12, uint64: 13,
  bfloat16: 16
}
// What readers of protobuf take as one message.
const LARGEST = 2 ** 31 - 1
const LENGTH_DELIMITED = 2

/** An operator of a graph, of ONNX's own set. https://onnx.ai/onnx/operators */
export interface OnnxNode {
  readonly operator: string
  /** Different from those of the other nodes. */
  readonly name: string
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
  /** Integers. */
  readonly integers?: Readonly<Record<string, number | readonly number[]>>
  readonly floats?: Readonly<Record<string, number>>
}

/** An input or output. A dimension with a name may have any size. */
export interface OnnxValue {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly (number | string)[]
}

/** A graph of ONNX with its weights. */
export interface OnnxModel {
  /** Name of the graph. */
  readonly name: string
  /** Version of the operators: https://onnx.ai/onnx/api/defs.html */
  readonly opset: number
  /** Version of the file format. */
  readonly irVersion: number
  readonly inputs: readonly OnnxValue[]
  readonly outputs: readonly OnnxValue[]
  /** In an order in which they can be computed. */
  readonly nodes: readonly OnnxNode[]
  /** Constants by name. */
  readonly initializers: Readonly<Record<string, Tensor>>
  readonly producer: { readonly name: string; readonly version: string }
  readonly metadata?: Readonly<Record<string, string>>
}

const encode = (message: string, value: object): Uint8Array => root.lookupType(message).encode(value).finish()

// Tag and length of a field that holds a message or bytes.
const prefix = (message: string, field: string, length: number): Uint8Array =>
  protobuf.Writer.create().uint32((root.lookupType(message).fields[field]!.id << 3) | LENGTH_DELIMITED).uint32(length).finish()

function dataType(dtype: DType, name: string): number {
  const type = dataTypes[dtype]
  if (type === undefined) throw expected('a dtype that ONNX has', name, dtype)
  return type
}

const encodedValue = ({ name, dtype, shape }: OnnxValue): object => ({
  name,
  type: {
    tensorType: {
      elemType: dataType(dtype, `'${name}'`),
      shape: { dim: shape.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size })) }
    }
  }
})

function encodedNode({ operator, name, inputs, outputs, integers = {}, floats = {} }: OnnxNode): object {
  const attribute = [
    ...Object.entries(integers).map(([name, value]) =>
      typeof value === 'number' ? { name, i: value, type: ATTRIBUTE.int } : { name, ints: value, type: ATTRIBUTE.ints }
    ),
    ...Object.entries(floats).map(([name, value]) => ({ name, f: value, type: ATTRIBUTE.float }))
  ]
  return { opType: operator, name, input: inputs, output: outputs, attribute }
}

/**
 * Writes an ONNX model, its tensors one at a time (no second copy of all of them in memory), atomically.
 *
 * @throws InputError for a dtype that the format does not have and for a model of more than 2 GB, which it cannot hold in one file, before
 *   the file is touched.
 */
export async function saveOnnx(path: string, model: OnnxModel): Promise<void> {
  const { name, opset, irVersion, inputs, outputs, nodes, initializers, producer, metadata = {} } = model
  // A message is the bytes of its fields one after the other, so the tensors' data need not pass through the encoder.
  const tensors = Object.entries(initializers).map(([name, tensor]) => {
    const { dtype, shape } = tensor
    const bytes = shape.reduce((product, size) => product * size, elementSize(dtype))
    const described = encode('Tensor', { name, dims: shape, dataType: dataType(dtype, `'${name}'`) })
    const head = Buffer.concat([described, prefix('Tensor', 'rawData', bytes)])
    return { tensor, bytes, head: Buffer.concat([prefix('Graph', 'initializer', head.length + bytes), head]) }
  })
  const graph = encode('Graph', {
    name, node: nodes.map(encodedNode), input: inputs.map(encodedValue), output: outputs.map(encodedValue)
  })
  const graphSize = tensors.reduce((sum, { head, bytes }) => sum + head.length + bytes, graph.length)
  const head = encode('Model', {
    irVersion, producerName: producer.name, producerVersion: producer.version, opsetImport: [{ domain: '', version: opset }],
    metadataProps: Object.entries(metadata).map(([key, value]) => ({ key, value }))
  })
  const size = head.length + graphSize
  if (size > LARGEST - 16) throw new InputError(`'${path}' would have ${size} bytes, and an ONNX file holds at most ${LARGEST}`)
  await writeAtomic(path, async (file) => {
    for (const part of [head, prefix('Model', 'graph', graphSize), graph]) await writeAll(file, part)
    for (const { tensor, head } of tensors) {
      await writeAll(file, head)
      await writeAll(file, new Uint8Array(scope(() => tensor.toTypedArray()).buffer))
    }
  })
}
