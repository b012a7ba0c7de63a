"""Draw the README's image: one row a class, eight frames of a clip from first to last.

python experiments/demo/picture.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

from vidclf.data.datasets.demo import Demo
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.sampling import Uniform

demo = Demo("data/demo")
first = {video.label: video for video in reversed(demo.videos())}
figure, axes = plt.subplots(4, 2, figsize=(12, 3.6), layout="constrained")
for label, axis in enumerate(axes.flat):
    path = first[label].path
    frames = decode_frames(path, Uniform(8)(inspect(path).num_frames, 25.0)[0])
    axis.imshow(torch.cat(frames.unbind(), dim=-1).permute(1, 2, 0))
    axis.set_title(demo.class_names[label], fontsize=9)
    axis.axis("off")
figure.savefig(Path(__file__).with_name("clips.png"), dpi=70)
