"""Loads exported encoders in PyTorch and writes the tokens that they give.

    python3 load-exports.py images.safetensors tokens.safetensors backbone-timm backbone.pth    by the model of bench/pytorch
    python3 load-exports.py images.safetensors tokens.safetensors backbone-timm                 by timm itself
"""
import json
import pathlib
import sys

import torch

sys.path.append(str(pathlib.Path(__file__).parents[2] / "bench/pytorch"))
import model as reference  # noqa: E402

torch.set_num_threads(1)
source, target, folder, *state_dict = sys.argv[1:]
images = reference.load_tensors(source)["images"]


def plain(arguments):
    """The model of the timm export's arguments. What it does not know must be as in every model here."""
    names = {"embed_dim": "dim", "depth": "depth", "num_heads": "heads", "mlp_ratio": "mlp_ratio"}
    assert arguments["qkv_bias"] and arguments["class_token"] and not arguments["reg_tokens"] and not arguments["fc_norm"]
    return reference.build_backbone({
        "model": {ours: arguments[theirs] for theirs, ours in names.items()}, "image_size": arguments["img_size"],
        "patch_size": arguments["patch_size"], "channels": arguments["in_chans"],
    })


def tokens(model, compute):
    model.eval()
    with torch.no_grad():
        return compute(images)


if state_dict:
    with open(f"{folder}/config.json") as file:
        arguments = json.load(file)["model_args"]
    states = {"timm": reference.load_tensors(f"{folder}/model.safetensors"), "pytorch": torch.load(state_dict[0], weights_only=True)}
    results = {}
    for name, state in states.items():
        model = plain(arguments)
        model.load_state_dict(state, strict=True)
        results[name] = tokens(model, model)
else:
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    config = model.pretrained_cfg
    results = {"timm": tokens(model, model.forward_features), "mean": torch.tensor(config["mean"]), "std": torch.tensor(config["std"])}
    if model.num_classes:
        results["logits"] = tokens(model, model)
reference.save_tensors(results, target)
