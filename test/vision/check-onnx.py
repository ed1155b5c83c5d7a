"""Checks ONNX files with ONNX's own checker and strict shape inference, and prints what is in them as JSON.

    python3 check-onnx.py file.onnx...
"""
import json
import sys

import onnx


def value(info):
    tensor = info.type.tensor_type
    return [onnx.TensorProto.DataType.Name(tensor.elem_type), [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]]


def check(path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    shapes = {info.name: value(info)[1] for info in inferred.graph.value_info}
    return {
        "opset": {entry.domain: entry.version for entry in model.opset_import},
        "producer": [model.producer_name, model.producer_version],
        "metadata": {entry.key: entry.value for entry in model.metadata_props},
        "inputs": {info.name: value(info) for info in model.graph.input},
        "outputs": {info.name: value(info) for info in model.graph.output},
        "initializers": {tensor.name: list(tensor.dims) for tensor in model.graph.initializer},
        "nodes": [[node.op_type, node.name] for node in model.graph.node],
        # Results whose shape could not be told from the graph.
        "unknown": [node.name for node in model.graph.node for name in node.output
                    if name not in shapes and name not in [info.name for info in model.graph.output]],
    }


print(json.dumps([check(path) for path in sys.argv[1:]]))
