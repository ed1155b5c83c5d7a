"""The PyTorch side of data.mjs: Pillow decodes, torchvision crops, resizes and changes, as in the usual training scripts."""

import resource
import time

import PIL
import torch
import torchvision
from ops import serve
from PIL import Image, features
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import functional as F
from torchvision.transforms.v2 import functional as F2

SIDE = 224
BICUBIC = transforms.InterpolationMode.BICUBIC
cut = [transforms.RandomResizedCrop(SIDE, scale=(0.05, 1), interpolation=BICUBIC), transforms.RandomHorizontalFlip()]
to_crop = transforms.Compose([*cut, transforms.PILToTensor()])
# The views of GMML, with what torchvision has for them.
to_view = transforms.Compose([
    *cut,
    transforms.RandomApply([transforms.ColorJitter(0.1, 0.1, 0.1, 0.01)], 0.3),
    transforms.RandomApply([transforms.GaussianBlur(17, (0.1, 2))], 0.1),
    transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
])


def opened(file):
    with open(file, "rb") as stream:
        return Image.open(stream).convert("RGB")


def crops(request):
    torch.manual_seed(request["seed"])
    start = time.process_time()
    for file in request["files"]:
        image = opened(file)
        for _ in range(request["crops"]):
            to_crop(image)
    return {"seconds": time.process_time() - start}


def decode(request):
    """From file to all pixels: Pillow's, or torchvision's own decoder."""
    start = time.process_time()
    for file in request["files"]:
        if request.get("decoder") == "torchvision":
            decode_jpeg(read_file(file), mode=ImageReadMode.RGB)
        else:
            opened(file)
    return {"seconds": time.process_time() - start}


def resize(request):
    """From pixels to crops: of an image by Pillow, of a tensor by ATen."""
    seconds = 0
    # Of tensors only the functions of version 2 resize bytes as they are.
    resized_crop = F2.resized_crop if request.get("decoder") == "torchvision" else F.resized_crop
    for file in request["files"]:
        image = opened(file)
        if request.get("decoder") == "torchvision":
            # Interleaved, as Pillow gives them: the form in which the kernel is fastest.
            image = F.pil_to_tensor(image)[None].contiguous(memory_format=torch.channels_last)
        start = time.process_time()
        for left, top, width, height in request["rectangles"]:
            resized_crop(image, top, left, height, width, [SIDE, SIDE], BICUBIC, antialias=True)
        seconds += time.process_time() - start
    return {"seconds": seconds}


class Views(Dataset):
    def __init__(self, files, views):
        self.files, self.views = files, views

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        image = opened(self.files[index])
        return [to_view(image) for _ in range(self.views)]


def join(images):
    """First view 0 of all images, then view 1."""
    return torch.stack([view for views in zip(*images) for view in views])


def processor_time():
    """Of this process, and of its children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def load(request):
    """Whole batches of a DataLoader, the start and the end of its processes included."""
    batch, files = request["batchSize"], request["files"]
    # One pass over as many batches as there are in all epochs: the processes start once.
    count = len(files) // batch * batch * request["epochs"]
    files = (files * request["epochs"])[:count]
    torch.manual_seed(request["seed"])
    cpu, clock = processor_time(), time.perf_counter()
    loader = DataLoader(
        Views(files, request["views"]), batch, shuffle=True, num_workers=request["workers"], collate_fn=join, drop_last=True
    )
    count = sum(len(images) for images in loader) // request["views"]
    wall = time.perf_counter() - clock
    return {"seconds": processor_time() - cpu, "wall": wall, "images": count}


TASKS = {"crops": crops, "decode": decode, "resize": resize, "load": load}


def answer(request: dict) -> dict:
    return TASKS[request["task"]](request)


if __name__ == "__main__":
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "pillow": PIL.__version__}
    serve(versions | {"libjpeg_turbo": features.version("libjpeg_turbo")}, answer)
