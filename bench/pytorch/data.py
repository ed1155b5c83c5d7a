"""The PyTorch side of data.mjs: Pillow decodes, torchvision crops, resizes and flips, as in the usual training scripts."""

import time

import PIL
import torch
import torchvision
from ops import serve
from PIL import Image, features
from torchvision import transforms

transform = transforms.Compose([
    transforms.RandomResizedCrop(224, scale=(0.05, 1), interpolation=transforms.InterpolationMode.BICUBIC),
    transforms.RandomHorizontalFlip(),
    transforms.PILToTensor(),
])


def answer(request: dict) -> dict:
    torch.manual_seed(request["seed"])
    start = time.process_time()
    for file in request["files"]:
        with open(file, "rb") as stream:
            image = Image.open(stream).convert("RGB")
        for _ in range(request["crops"]):
            transform(image)
    return {"seconds": time.process_time() - start}


if __name__ == "__main__":
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__}
    serve(versions | {"libjpeg_turbo": features.version("libjpeg_turbo")}, answer)
