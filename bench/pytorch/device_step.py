"""Runs and times GMML training steps on a device, in each of the ways that PyTorch has. Protocol: README.md."""
import gc
import sys
import time
from contextlib import nullcontext
from functools import partial

import torch

from model import ReconstructionHead, build_model, decay_groups, default_layers, load_tensors, masked_l1
from ops import runtime, serve
from step import memory_mb

COMPILE = {"compile": None, "reduce-overhead": "reduce-overhead", "max-autotune": "max-autotune"}


def import_timm():
    """timm's transformer and version, or None twice: then model.py stands for it."""
    try:
        import timm
        from timm.models.vision_transformer import VisionTransformer
        return VisionTransformer, timm.__version__
    except ImportError:
        return None, None
    except Exception as error:  # what it imports is of another version: a torchvision of another torch, say
        print(f"timm cannot be imported: {error}", file=sys.stderr)
        return None, None


class TimmGroupMaskedModel(torch.nn.Module):
    """timm's transformer with the reconstruction of model.py: the same keys, the same mathematics."""

    def __init__(self, transformer, config: dict):
        super().__init__()
        model, size, patch = config["model"], config["image_size"], config["patch_size"]
        self.patch = patch
        self.layers = tuple(default_layers(model["depth"]))
        self.backbone = transformer(img_size=size, patch_size=patch, in_chans=config["channels"], num_classes=0, global_pool="",
                                    embed_dim=model["dim"], depth=model["depth"], num_heads=model["heads"],
                                    drop_path_rate=config["drop_path"], norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
        self.head_recons = ReconstructionHead(model["dim"], config["channels"], patch)

    def forward(self, corrupted):
        backbone = self.backbone
        x = backbone.norm_pre(backbone.patch_drop(backbone._pos_embed(backbone.patch_embed(corrupted))))
        total = 0
        for number, block in enumerate(backbone.blocks, start=1):
            x = block(x)
            if number in self.layers:
                total = total + x
        tokens = backbone.norm(total / len(self.layers))[:, 1:]
        return self.head_recons(tokens, (corrupted.shape[2] // self.patch, corrupted.shape[3] // self.patch))


def clip_each(parameters, limit: float):
    """Each gradient by its own norm, for all of them at once; clip_grad_norm_ in a loop does the same many times slower."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, (limit / (norms + 1e-6)).clamp_(max=1).unbind())


class Trainer:
    def __init__(self, config: dict):
        if config.get("threads"):
            torch.set_num_threads(config["threads"])
        torch.manual_seed(config.get("seed", 0))
        self.device, self.mode = torch.device(config["device"]), config.get("mode", "eager")
        self.amp = {None: None, "bfloat16": torch.bfloat16}[config.get("amp")]
        # Float32 means float32 where that is asked for, in convolutions too.
        torch.backends.cudnn.allow_tf32 = self.amp is not None
        transformer = import_timm()[0]
        model = TimmGroupMaskedModel(transformer, config) if transformer else build_model(config)
        if config.get("weights"):
            model.load_state_dict(load_tensors(config["weights"]))
        self.model = model.to(self.device)
        self.parameters = list(self.model.parameters())
        self.clip = config.get("clip", 3.0)
        self.forward = self.loss if self.mode not in COMPILE else torch.compile(self.loss, mode=COMPILE[self.mode])
        self.optimizer = self.make_optimizer(config)
        names = ("corrupted", "clean", "mask")
        if config.get("inputs"):
            file = load_tensors(config["inputs"])
            self.batches = [[file[f"{name}.{i}"].to(self.device) for name in names] for i in range(config["batches"])]
        else:
            self.batches = [self.random_batch(config)]
        self.current = [tensor.clone() for tensor in self.batches[0]]
        self.step = self.capture() if self.mode == "cudagraph" else self.eager

    def make_optimizer(self, config: dict):
        groups = decay_groups(self.model.named_parameters(), config.get("weight_decay", 0.04))
        lr = config.get("lr", 5e-4)
        if self.mode == "cudagraph":
            # A learning rate that is a number would stay as it was at the capture.
            return torch.optim.AdamW(groups, lr=torch.tensor(lr, device=self.device), fused=True, capturable=True)
        return torch.optim.AdamW(groups, lr=lr, **({"fused": True} if config.get("optimizer") == "adamw_fused" else {}))

    def random_batch(self, config: dict):
        size = config["image_size"]
        clean = torch.randn(config["batch"], config["channels"], size, size, device=self.device)
        mask = torch.rand(config["batch"], 1, size, size, device=self.device) < 0.64
        return [torch.where(mask, torch.randn_like(clean), clean), clean, mask]

    def loss(self, corrupted, clean, mask):
        return masked_l1(self.model(corrupted), clean, mask)

    def eager(self):
        if self.mode in ("reduce-overhead", "max-autotune"):
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.amp) if self.amp else nullcontext():
            loss = self.forward(*self.current)
        loss.backward()
        if self.clip:
            clip_each(self.parameters, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def capture(self):
        """The whole step as one CUDA graph, as PyTorch's notes on CUDA graphs have it."""
        # The steps that warm up must not train: weights and moments are put back.
        saved = [parameter.detach().clone() for parameter in self.parameters]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.eager()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.eager()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, saved):
                parameter.copy_(value)
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()

        def replay():
            graph.replay()
            return loss
        return replay

    def curve(self, steps: int) -> list[float]:
        losses = []
        for i in range(steps):
            for tensor, value in zip(self.current, self.batches[i % len(self.batches)]):
                tensor.copy_(value)
            losses.append(self.step().item())
        return losses

    def time(self, steps: int) -> dict:
        self.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            loss = self.step()
        self.synchronize()
        seconds = time.perf_counter() - start
        return {"steps": steps, "seconds": seconds, "loss": loss.item()}

    def host(self, steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            self.synchronize()
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        return seconds

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def forget(device: torch.device) -> dict:
    """Gives unused memory back, and begins to count anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return {}


def memory(device: torch.device) -> dict:
    if device.type != "cuda":
        return {"reservedMiB": memory_mb()["peak_rss_mb"], "allocatedMiB": None}
    return {"reservedMiB": torch.cuda.max_memory_reserved(device) / 2**20,
            "allocatedMiB": torch.cuda.max_memory_allocated(device) / 2**20}


def probe(config: dict) -> dict:
    """The memory of a step with so large a batch; null where it does not fit."""
    device = torch.device(config["device"])
    forget(device)
    try:
        trainer = Trainer(config)
        trainer.time(2)
        answer = memory(device)
    except torch.OutOfMemoryError:
        answer = {"reservedMiB": None, "allocatedMiB": None}
    trainer = None
    forget(device)
    total = torch.cuda.mem_get_info(device)[1] / 2**20 if device.type == "cuda" else None
    return answer | {"totalMiB": total}


def main():
    trainer = None

    def answer(request: dict) -> dict:
        nonlocal trainer
        if "probe" in request:
            return probe(request["probe"])
        if "model" in request:
            device = torch.device(request["device"])
            trainer = None
            # Not so much as imported in eager mode: the compiler takes memory.
            if request.get("mode") in COMPILE:
                torch._dynamo.reset()
            forget(device)
            start = time.perf_counter()
            trainer = Trainer(request)
            return runtime() | {"timm": import_timm()[1], "seconds": time.perf_counter() - start}
        if trainer is None:
            raise ValueError("expected a configuration before the first steps, received none")
        if "curve" in request:
            return {"losses": trainer.curve(request["curve"])}
        if "host" in request:
            return {"seconds": trainer.host(request["host"])}
        if "forget" in request:
            return forget(trainer.device)
        if "memory" in request:
            return memory(trainer.device)
        return trainer.time(request["steps"])

    serve(runtime(), answer)


if __name__ == "__main__":
    main()
