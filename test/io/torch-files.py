"""Files of torch.save for the tests: torch-files.py write FOLDER | read FILE...

`write` makes files in every way that matters and prints what is in each; `read` prints what torch.load finds in files. Both print JSON in
which a tensor is its dtype, shape, strides, offset, bytes, and the number of the memory that it lies in.
"""
import argparse
import collections
import json
import math
import pathlib
import sys
import warnings

import numpy as np
import torch

warnings.simplefilter("ignore")


def describe(value, memories: dict):
    """The value as JSON, without what JavaScript does not tell apart (list and tuple, int and float)."""
    inside = lambda child: describe(child, memories)  # noqa: E731
    if isinstance(value, torch.Tensor):
        plain = value.detach().resolve_conj().resolve_neg()
        storage = value.untyped_storage()
        memory = memories.setdefault(storage._cdata, (len(memories), storage))[0]
        data = plain.contiguous().clone().flatten().view(torch.uint8) if plain.numel() else torch.empty(0, dtype=torch.uint8)
        return {"tensor": str(value.dtype).removeprefix("torch."), "shape": list(value.shape), "strides": list(value.stride()),
                "offset": value.storage_offset(), "memory": memory, "grad": value.requires_grad, "bytes": bytes(data.tolist()).hex()}
    if isinstance(value, np.ndarray):
        return {"array": str(value.dtype), "shape": list(value.shape), "bytes": np.ascontiguousarray(value).tobytes().hex()}
    if isinstance(value, np.generic):
        return inside(value.item())
    if isinstance(value, dict):
        return {"dict": [[inside(key), inside(element)] for key, element in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [inside(element) for element in value]}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((inside(element) for element in value), key=json.dumps)}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, argparse.Namespace):
        return {"object": "argparse.Namespace", "state": inside(vars(value))}
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and (not math.isfinite(value) or (value == 0 and math.copysign(1, value) < 0)):
        return {"number": repr(value)}
    if isinstance(value, int) and abs(value) >= 2**53:
        return {"integer": str(value)}
    if isinstance(value, (int, float)):
        return int(value) if value == int(value) else value
    raise TypeError(f"{type(value)} is not described")


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
          torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8]


def contents() -> dict:
    torch.manual_seed(0)
    base = torch.arange(60, dtype=torch.float32)
    grid = base.view(3, 4, 5)
    dtypes = {str(dtype): torch.randn(2, 3).to(dtype) for dtype in FLOATS}
    dtypes |= {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in INTEGERS}
    dtypes |= {"bool": torch.tensor([True, False]), "complex64": torch.randn(3, dtype=torch.complex64),
               "complex128": torch.randn(3, dtype=torch.complex128), "extremes": torch.tensor([2**63 - 1, -2**63]),
               "special": torch.tensor([math.nan, math.inf, -math.inf, -0.0])}
    values = torch.randn(4, dtype=torch.complex64)
    strided = {"all": grid, "transposed": grid.transpose(0, 2), "sliced": grid[1:, ::2, 3], "expanded": base[7].expand(2, 3),
               "again": grid, "channels last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
               "empty": torch.empty(0), "empty 2": torch.empty(3, 0, 2), "end of memory": base[60:], "number": torch.tensor(3.5),
               "conjugate": values.conj(), "negative": values.clone().conj().imag, "real": torch.view_as_real(values.clone())[:, 1]}
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    module[2].weight = torch.nn.Parameter(module[0].weight.t())
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    module(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    shared = [1, 2]
    nested = {"ints": [0, 1, -1, 255, 256, 65535, 65536, 2**31 - 1, -2**31, 2**53 - 1, 2**53 + 1, -2**63, 2**70, -2**70],
              "floats": [0.5, -0.0, math.nan, math.inf, -math.inf, 1e300], "flags": (True, False, None), "text": "naïve ☃ 🦉", "": "",
              "bytes": b"\x00\xff", "byte array": bytearray(b"abc"), "set": {1, "a"}, "frozen": frozenset([2]), "complex": 1 - 2j,
              "by number": {0: "a", 5: "b"}, "mixed": {"a": 1, 2: 3, None: 4}, "tuple keys": {(1, 2): 3}, "deep": {"a": [{"b": ({},)}]},
              "size": torch.Size([2, 3]), "dtype": torch.bfloat16, "device": torch.device("cuda", 1), "cpu": torch.device("cpu"),
              "ordered": collections.OrderedDict(b=1, a=2), "counter": collections.Counter("aab"),
              "default": collections.defaultdict(list, {"a": [1]}), "shared": [shared, shared], "__proto__": {"polluted": True},
              "args": argparse.Namespace(lr=5e-4, model="vit_small", drop=None, scales=(0.25, 1.0), nested=argparse.Namespace(a=1)),
              "parameter": torch.nn.Parameter(torch.ones(2)), "frozen parameter": torch.nn.Parameter(torch.ones(2), requires_grad=False),
              "leaf": torch.ones(2, requires_grad=True)}
    numpy = {"float64": np.float64(0.1), "float32": np.float32(0.5), "int64": np.int64(-3), "bool": np.bool_(True), "complex": np.complex128(1j),
             "matrix": np.arange(6, dtype=np.float32).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
             "big-endian": np.arange(3, dtype=">i4"), "half": np.arange(3, dtype=np.float16), "flags": np.array([True, False]),
             "number": np.array(2.5), "none": np.zeros((0, 2)), "complex array": np.array([1 + 2j])}
    return {"dtypes": dtypes, "strided": strided, "nested": nested, "numpy": numpy, "state": module.state_dict(),
            "tied": {"module": module.state_dict(), "optimizer": optimizer.state_dict()}, "tensor": grid, "nothing": None, "empty": {}}


def write(folder: pathlib.Path):
    described = {}
    for name, value in contents().items():
        variants = {"": {}, "-legacy": {"_use_new_zipfile_serialization": False}}
        if name in ("nested", "numpy", "tied"):
            variants |= {f"-protocol{protocol}": {"pickle_protocol": protocol} for protocol in range(6) if protocol != 2}
            variants |= {f"-legacy-protocol{protocol}": {"pickle_protocol": protocol, "_use_new_zipfile_serialization": False}
                         for protocol in (3, 5)}
        if name == "dtypes":
            variants |= {"-unchecked": {}}
        for variant, options in variants.items():
            torch.serialization.set_crc32_options(variant != "-unchecked")
            torch.save(value, folder / f"{name}{variant}.pth", **options)
            described[f"{name}{variant}"] = describe(value, {})
    torch.serialization.set_crc32_options(True)
    print(json.dumps(described))


def read(path: pathlib.Path) -> dict:
    """What is found in each way of loading, which must be the same, and where the bytes lie."""
    ways = {"plain": {"weights_only": False}, "weights only": {"weights_only": True}, "mapped": {"weights_only": True, "mmap": True}}
    loaded = {name: torch.load(path, **options) for name, options in ways.items()}
    described = {name: describe(value, {}) for name, value in loaded.items()}
    reader = torch._C.PyTorchFileReader(str(path))
    offsets = [reader.get_record_offset(name) for name in reader.get_all_records() if name.startswith("data/")]
    # A tensor of a state dict is an OrderedDict's.
    kinds = {key: type(value).__name__ for key, value in loaded["plain"].items()} if isinstance(loaded["plain"], dict) else {}
    return {"found": described, "offsets": offsets, "kinds": kinds}


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    if command == "write":
        write(pathlib.Path(*paths))
    else:
        print(json.dumps([read(pathlib.Path(path)) for path in paths]))
