"""What PyTorch gives for calls drawn by the bulk test: reference.py <in> <out>, each a pair of files .json and .bin.

In: `specs`, tensors as dtype, shape, strides, offset and the place of their memory in the binary file, and `calls`: operator,
overload, arguments (tensors by number), seed, and the gradients that the outputs are given. Out: for each call its results, the
arguments it wrote into and the gradients of its leaves, or the error.
"""
import json
import sys
import types
import warnings

import torch


class Memory:
    """Elements one after another; a result says where its own begin."""

    def __init__(self):
        self.chunks = []
        self.length = 0

    def add(self, tensor: torch.Tensor) -> dict:
        plain = torch.empty(tensor.numel(), dtype=tensor.dtype)
        plain.view(tensor.shape).copy_(tensor.detach())
        chunk = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        chunk += b"\0" * (-len(chunk) % 16)
        start, self.length = self.length, self.length + len(chunk)
        self.chunks.append(chunk)
        return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "strides": list(tensor.stride()),
                "start": start, "length": plain.numel() * plain.element_size()}


def make(spec: dict, memory: bytearray) -> torch.Tensor:
    dtype = getattr(torch, spec["dtype"])
    if spec["elements"]:
        # A copy, so that memory is aligned as that of any tensor.
        base = torch.frombuffer(memory, dtype=dtype, count=spec["elements"], offset=spec["start"]).clone()
    else:
        base = torch.empty(0, dtype=dtype)
    tensor = base.as_strided(spec["shape"], spec["strides"], spec["offset"])
    return tensor.conj() if spec.get("conjugated") else tensor


CONSTANTS = {
    "ScalarType": lambda name: getattr(torch, name),
    "Layout": lambda name: getattr(torch, name),
    "Device": torch.device,
    "MemoryFormat": lambda name: getattr(torch, f"{name}_format" if name in ("contiguous", "preserve") else name),
    "str": str,
    "int": int,
    "float": float,
    "complex": lambda parts: complex(*map(float, parts)),
}


def decode(value, tensor):
    if isinstance(value, list):
        return [decode(item, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensor(value)
    ((kind, content),) = value.items()
    return CONSTANTS[kind](content)


def encode(value, memory: Memory):
    if isinstance(value, torch.Tensor):
        return memory.add(value)
    if isinstance(value, (list, tuple)):
        return [encode(item, memory) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, complex):
        return [encode(value.real, memory), encode(value.imag, memory)]
    return str(value).removeprefix("torch.")


# As the dispatcher numbers them.
NAMES = "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool qint8 quint8 qint32 bfloat16"
DTYPES = dict(enumerate(NAMES.split())) | {27: "uint16", 28: "uint32", 29: "uint64"}


def run(call: dict, args: list):
    positional = [value for given, value in args if not given["keyword"]]
    keywords = {given["name"]: value for given, value in args if given["keyword"]}
    natural = getattr(torch, call["name"], None)
    # What is written in Python may have another signature and another meaning.
    if call["natural"] and isinstance(natural, types.BuiltinFunctionType):
        try:
            return natural(*positional, **keywords)
        except TypeError:  # Python's own signature is another one
            torch.manual_seed(call["seed"])
    result = getattr(getattr(torch.ops.aten, call["name"]), call["overload"])(*positional, **keywords)
    return DTYPES[result] if call["dtype"] and isinstance(result, int) else result


def tensors_in(value) -> list:
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in tensors_in(item)] if isinstance(value, (list, tuple)) else []


def evaluate(call: dict, tensor, memory: Memory) -> dict:
    leaves = []

    def place(given, written):
        made = tensor(given["tensor"])
        if not given["leaf"]:
            return made
        leaves.append(made.requires_grad_())
        return made.clone() if written else made

    args = [(given, decode(given["value"], lambda value: place(value, given["written"]))) for given in call["args"]]
    torch.manual_seed(call["seed"])
    try:
        result = run(call, args)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    written = [value for given, value in args if given["target"]]
    reply = {"results": encode(result, memory), "written": encode(written, memory)}
    outputs = []
    for output in tensors_in([result, written]) if leaves else []:
        if output.requires_grad and (output.is_floating_point() or output.is_complex()) and not any(output is known for known in outputs):
            outputs.append(output)
    if outputs:
        try:
            cotangents = [tensor(number) for number in call["cotangents"]]
            reply["gradients"] = encode(torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True), memory)
        except Exception as error:
            reply["gradientError"] = f"{type(error).__name__}: {error}"
    return reply


def main(given: str, out: str):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with open(f"{given}.json") as file:
        request = json.load(file)
    with open(f"{given}.bin", "rb") as file:
        content = bytearray(file.read())
    memory = Memory()
    specs = request["specs"]
    replies = [evaluate(call, lambda number: make(specs[number], content), memory) for call in request["calls"]]
    with open(f"{out}.json", "w") as file:
        json.dump(replies, file)
    with open(f"{out}.bin", "wb") as file:
        file.write(b"".join(memory.chunks))


if __name__ == "__main__":
    main(*sys.argv[1:])
