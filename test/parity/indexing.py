"""What PyTorch's indexing gives: indexing.py <cases.json> prints one JSON result for each case.

A case is {"shape", "index", "value"?}. The tensor is float64, its elements are 0, 1, 2, ... An index is a number, null, "...",
true, false, {"slice": [start, stop, step]} or {"tensor": [elements], "shape", "dtype"}. A value is a number or {"drop", "ones"}:
a tensor of the indexed part's shape without its first "drop" dimensions and with size 1 where "ones" says so.
Results: {"shape", "values", "grad", "valueGrad"?}, or {"error"}.
"""
import json
import sys

import torch

torch.set_num_threads(1)


def index_of(item):
    if item == "...":
        return ...
    if not isinstance(item, dict):
        return item
    if "slice" in item:
        return slice(*item["slice"])
    return torch.tensor(item["tensor"], dtype=getattr(torch, item["dtype"])).reshape(item["shape"])


def counted(shape) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape).requires_grad_()


def value_of(spec, part) -> torch.Tensor:
    shape = list(part.shape)[spec["drop"]:]
    return counted([1 if one else size for size, one in zip(shape, spec["ones"] + [False] * len(shape))])


def answer(case) -> dict:
    x = counted(case["shape"])
    index = tuple(index_of(item) for item in case["index"])
    leaves = [x]
    try:
        result = x[index]
        if "value" in case:
            value = case["value"]
            if isinstance(value, dict):
                value = value_of(value, result)
                leaves.append(value)
            result = x.clone()
            result[index] = value
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return {"error": str(error)}
    probe = torch.arange(result.numel(), dtype=torch.float64).cos().reshape(result.shape)
    grads = torch.autograd.grad((result * probe).sum(), leaves)
    out = {"shape": list(result.shape), "values": result.flatten().tolist(), "grad": grads[0].flatten().tolist()}
    return out | ({"valueGrad": grads[1].flatten().tolist()} if len(grads) > 1 else {})


with open(sys.argv[1], encoding="utf-8") as file:
    json.dump([answer(case) for case in json.load(file)], sys.stdout)
