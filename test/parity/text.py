"""How PyTorch prints tensors: text.py <cases.json> <elements.bin> prints a JSON list of texts.

A case is {"dtype", "shape", "offset", "then"?, "options"?}: elements from a byte of the file on, a list of steps (see STEPS), and what
torch.set_printoptions is given.
"""
import json
import sys
import warnings

import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)

STEPS = {
    "transpose": lambda x: x.transpose(0, -1),
    "expand": lambda x: x.expand(2, *x.shape),
    "requires_grad": lambda x: x.requires_grad_(),
    "parameter": torch.nn.Parameter,
    "detach": lambda x: x.detach(),
    "exp": torch.exp,
    "add": lambda x: x + 1,
    "clone": lambda x: x.clone(),
    "select": lambda x: x.select(0, 0),
    "unbind": lambda x: x.unbind()[0],
    "fill_": lambda x: x.fill_(2),
    "double": lambda x: x.double(),
    "conj": lambda x: x.conj(),
    "neg": lambda x: x.conj().imag,
    "complex32": lambda x: x.to(torch.complex32),
    "meta": lambda x: x.to("meta"),
    "sparse": lambda x: x.to_sparse(),
    "sparse1": lambda x: x.to_sparse(1),
    "csr": lambda x: x.to_sparse_csr(),
    "csc": lambda x: x.to_sparse_csc(),
    "bsr": lambda x: x.to_sparse_bsr((1, 1)),
    "bsc": lambda x: x.to_sparse_bsc((1, 1)),
    "mkldnn": lambda x: x.to_mkldnn(),
    "quantize": lambda x: torch.quantize_per_tensor(x, 1e-5, 3, torch.qint8),
    "quantize_channels": lambda x: torch.quantize_per_channel(
        x, torch.full((x.shape[0],), 0.5, dtype=torch.float64), torch.ones(x.shape[0], dtype=torch.int64), 0, torch.quint8),
    "nested": lambda x: torch.nested.as_nested_tensor(list(x.unbind())),
}


def text_of(case, elements) -> str:
    shape = torch.Size(case["shape"])
    dtype = getattr(torch, case["dtype"])
    if shape.numel():
        x = torch.frombuffer(elements, dtype=dtype, count=shape.numel(), offset=case["offset"]).clone().reshape(shape)
    else:
        x = torch.empty(shape, dtype=dtype)
    for step in case.get("then", []):
        x = STEPS[step](x)
    torch.set_printoptions(profile="default", **case.get("options", {}))
    return repr(x)


with open(sys.argv[1], encoding="utf-8") as file, open(sys.argv[2], "rb") as data:
    elements = bytearray(data.read())
    json.dump([text_of(case, elements) for case in json.load(file)], sys.stdout)
