"""Prints what TensorBoard itself reads in a folder of event files, as JSON: scalars by tag, sizes of images by tag."""
import io
import json
import sys

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = events.Tags()
print(json.dumps({
    "scalars": {tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in tags["scalars"]},
    "images": {tag: [[event.step, event.width, event.height, list(Image.open(io.BytesIO(event.encoded_image_string)).size)]
                     for event in events.Images(tag)] for tag in tags["images"]},
}))
