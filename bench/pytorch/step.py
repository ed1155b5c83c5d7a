"""Runs and times GMML training steps, on request. Protocol: README.md."""
import time
from contextlib import nullcontext

import torch

from model import build_model, decay_groups, load_tensors, masked_l1
from ops import runtime, serve


def memory_mb() -> dict[str, float]:
    """Resident memory in MiB, now and at its highest.

    Not getrusage: its maximum survives exec, and so includes the memory of the process that started this one.
    """
    with open("/proc/self/status") as file:
        kib = {key: int(value.split()[0]) for key, value in (line.split(":", 1) for line in file)
               if key in ("VmRSS", "VmHWM")}
    return {"rss_mb": kib["VmRSS"] / 1024, "peak_rss_mb": kib["VmHWM"] / 1024}


def make_inputs(config: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if config.get("inputs"):
        tensors = load_tensors(config["inputs"])
        return tensors["corrupted"], tensors["clean"], tensors["mask"]
    size = config["image_size"]
    height, width = (size, size) if isinstance(size, int) else size
    clean = torch.randn(config["batch"], config["channels"], height, width)
    mask = torch.rand(config["batch"], 1, height, width) < 0.64
    return torch.where(mask, torch.randn_like(clean), clean), clean, mask


class Trainer:
    def __init__(self, config: dict):
        if config.get("threads"):
            torch.set_num_threads(config["threads"])
        torch.manual_seed(config.get("seed", 0))
        self.model = build_model({"drop_path": 0.1} | config)
        if config.get("weights"):
            self.model.load_state_dict(load_tensors(config["weights"]))
        self.inputs = make_inputs(config)
        self.clip = config.get("clip", 3.0)
        self.amp = {None: None, "bfloat16": torch.bfloat16}[config.get("amp")]
        # torch.compile is not so much as called in eager mode: it imports the compiler, which takes memory.
        self.forward = {"eager": lambda: self.loss, "compile": lambda: torch.compile(self.loss)}[
            config.get("mode", "eager")]()
        fused = {"adamw": {}, "adamw_fused": {"fused": True}}[config.get("optimizer", "adamw")]
        groups = decay_groups(self.model.named_parameters(), config.get("weight_decay", 0.04))
        self.optimizer = torch.optim.AdamW(groups, lr=config.get("lr", 5e-4), **fused)

    def loss(self, corrupted, clean, mask):
        return masked_l1(self.model(corrupted), clean, mask)

    def step(self) -> float:
        with torch.autocast("cpu", self.amp) if self.amp else nullcontext():
            loss = self.forward(*self.inputs)
        loss.backward()
        if self.clip:
            for parameter in self.model.parameters():
                torch.nn.utils.clip_grad_norm_(parameter, self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def run(self, steps: int) -> dict:
        seconds, losses = [], []
        for _ in range(steps):
            start = time.perf_counter()
            losses.append(self.step())
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "losses": losses} | memory_mb()


def main():
    trainer = None

    def answer(request: dict) -> dict:
        nonlocal trainer
        if "model" in request:
            trainer = None
            trainer = Trainer(request)
            count = sum(parameter.numel() for parameter in trainer.model.parameters())
            facts = {"ready": True, "parameters": count, "layers": trainer.model.layers}
            return facts | runtime() | memory_mb()
        if trainer is None:
            raise ValueError("expected a configuration before the first steps, received none")
        return trainer.run(request["steps"])

    serve(runtime(), answer)


if __name__ == "__main__":
    main()
