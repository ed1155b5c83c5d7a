"""The vision transformer and the GMML model as a PyTorch user would write them: what gmml is compared with.

State-dict keys are timm's for the transformer, and backbone.* / head_recons.* for the whole model.
"""
import json
import math

import torch
import torch.nn.functional as F
from torch import nn


class DropPath(nn.Module):
    """Drops a residual branch for whole samples and scales up what is kept."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if self.rate == 0 or not self.training:
            return x
        keep = 1 - self.rate
        return x * x.new_empty(x.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class PatchEmbed(nn.Module):
    def __init__(self, patch: int, channels: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    def __init__(self, image_size=224, patch_size=16, channels=3, dim=192, depth=12, heads=3, mlp_ratio=4.0,
                 drop_path=0.0):
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        patches = (height // patch_size) * (width // patch_size)
        self.patch_embed = PatchEmbed(patch_size, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.apply(init_linear)

    def embed(self, image):
        patches = self.patch_embed(image)
        cls = self.cls_token.expand(len(patches), -1, -1)
        return torch.cat((cls, patches), dim=1) + self.pos_embed

    def forward(self, image):
        """Normalised tokens [B, 1 + N, D], the CLS token first."""
        x = self.embed(image)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward_mean(self, image, layers):
        """Mean of the token maps after these blocks (counted from 1), normalised, without CLS: [B, N, D]."""
        x = self.embed(image)
        total = 0
        for number, block in enumerate(self.blocks[:max(layers)], start=1):
            x = block(x)
            if number in layers:
                total = total + x
        return self.norm(total / len(layers))[:, 1:]


class ReconstructionHead(nn.Module):
    def __init__(self, dim: int, channels: int, patch: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim), nn.GELU(),
                                 nn.Linear(dim, dim), nn.GELU())
        self.convTrans = nn.ConvTranspose2d(dim, channels, kernel_size=patch, stride=patch)
        self.apply(init_linear)

    def forward(self, tokens, grid):
        x = self.mlp(tokens)
        return self.convTrans(x.transpose(1, 2).unflatten(2, grid))


class GroupMaskedModel(nn.Module):
    def __init__(self, backbone: VisionTransformer, layers=None):
        super().__init__()
        dim, channels, patch, _ = backbone.patch_embed.proj.weight.shape
        self.patch = patch
        self.layers = tuple(layers or default_layers(len(backbone.blocks)))
        self.backbone = backbone
        self.head_recons = ReconstructionHead(dim, channels, patch)

    def forward(self, corrupted):
        """The reconstructed image, in the shape of the corrupted one."""
        grid = (corrupted.shape[2] // self.patch, corrupted.shape[3] // self.patch)
        return self.head_recons(self.backbone.forward_mean(corrupted, self.layers), grid)


def default_layers(depth: int) -> list[int]:
    """Blocks at 1/2, 2/3, 5/6 and 1 of the depth, halves rounded up; a shallow model has fewer of them."""
    return sorted({(depth * sixths + 3) // 6 for sixths in (3, 4, 5, 6)} - {0})


def init_linear(module: nn.Module):
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def masked_l1(prediction, clean, mask):
    """L1 over the masked elements of the batch; mask is [B, 1, H, W] or [B, C, H, W], bool or 0 / 1."""
    difference = (prediction.float() - clean).abs()
    mask = mask.expand_as(difference)
    return (difference * mask).sum() / mask.sum()


def build_backbone(config: dict) -> VisionTransformer:
    """From {"model": {dim, depth, heads, mlp_ratio, layers}, image_size, patch_size, channels, drop_path}."""
    shape = {key: value for key, value in config["model"].items() if key != "layers"}
    return VisionTransformer(config["image_size"], config["patch_size"], config["channels"],
                             drop_path=config.get("drop_path", 0.0), **shape)


def build_model(config: dict) -> GroupMaskedModel:
    return GroupMaskedModel(build_backbone(config), config["model"].get("layers"))


def decay_groups(parameters, weight_decay: float) -> list[dict]:
    """Two optimizer groups of (name, parameter) pairs: biases and 1-D parameters are not decayed."""
    decayed, plain = [], []
    for name, parameter in parameters:
        (plain if parameter.ndim <= 1 or name.endswith(".bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


# Tensor files are read and written here, so that torch is all that these scripts need to be installed.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def load_tensors(path: str) -> dict[str, torch.Tensor]:
    """Reads a safetensors file."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = memoryview(file.read())
    header.pop("__metadata__", None)
    if sum(end - begin for begin, end in (entry["data_offsets"] for entry in header.values())) != len(data):
        raise ValueError(f"{path}: the tensors of the header do not add up to the {len(data)} bytes of data")
    tensors = {}
    for name, entry in header.items():
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path}: {name} is {end - begin} bytes, which is not {entry['dtype']} {shape}")
        tensor = torch.empty(shape, dtype=dtype)
        if end > begin:
            # A copy for each tensor: frombuffer wants writable memory, aligned for the dtype.
            tensor = torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape)
        tensors[name] = tensor
    return tensors


def save_tensors(tensors: dict[str, torch.Tensor], path: str):
    """Writes a safetensors file."""
    header, chunks, offset = {}, [], 0
    # Widest element first keeps every tensor aligned.
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        chunk = bytearray(tensor.numel() * tensor.dtype.itemsize)
        if chunk:
            torch.frombuffer(chunk, dtype=tensor.dtype).copy_(tensor.detach().reshape(-1))
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(chunk)]}
        chunks.append(chunk)
        offset += len(chunk)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(chunks)
