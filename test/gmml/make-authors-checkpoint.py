"""A checkpoint as the method's authors write them: make-authors-checkpoint.py OUT.pth EXPECTED.pth [json configuration].

The weights are drawn here, in a model of PyTorch. EXPECTED has a batch, and what that model computes on it: loss, prediction.
"""
import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench" / "pytorch"))
import model as gmml  # noqa: E402

out, expected, config = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
torch.set_num_threads(1)
torch.manual_seed(11)
model = gmml.build_model(config)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)

optimizer = torch.optim.AdamW(gmml.decay_groups(model.named_parameters(), 0.04), lr=1e-3)
height, width = config["image_size"]
clean = torch.randn(4, config["channels"], height, width)
mask = (torch.rand(4, 1, height, width) < 0.6).float()
corrupted = torch.where(mask.bool(), torch.randn_like(clean), clean)
gmml.masked_l1(model(corrupted), clean, mask).backward()
optimizer.step()

scaler = torch.amp.GradScaler("cpu")
scaler.scale(torch.zeros(()))
settings = argparse.Namespace(model="vit_small", batch_size=64, epochs=800, lr=5e-4, drop_path_rate=0.1, drop_perc=0.75, drop_replace=0.3,
                              drop_align=1, drop_type="noise", use_fp16=True, global_crops_scale=(0.25, 1.0), data_location="/data",
                              output_dir="checkpoints/", seed=0, dist_url="env://", gpu=0)
torch.save({"SiT_model": {f"module.{name}": tensor for name, tensor in model.state_dict().items()}, "optimizer": optimizer.state_dict(),
            "epoch": 41, "args": settings, "fp16_scaler": scaler.state_dict()}, out)
with torch.no_grad():
    prediction = model(corrupted)
    loss = gmml.masked_l1(prediction, clean, mask)
torch.save({"clean": clean, "corrupted": corrupted, "mask": mask, "prediction": prediction, "loss": loss}, expected)
