"""Make the weights of `tiny` again: a network that names handwritten digits in still images.

    python experiments/tiny/train.py --weights tiny.safetensors

Digits of any size and place, hardly tilted, lie over crops of two photographs. The network is trained on the
handwriting of the demo's train groups and tested on that of its test groups. A second task, painting the background
of the digit, keeps the scene in the features, as in networks trained on ImageNet. On one machine the result is the
same to the bit. The numbers are in the README in this folder.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from vidclf.data.datasets.demo.clips import OTHER_SAMPLES, SIDE, TEST_SAMPLES, cut_background, draw, handwriting
from vidclf.data.transforms import BackboneTransform
from vidclf.models.backbones.tiny import STAGES, Tiny

SAMPLES = {"train": OTHER_SAMPLES, "test": TEST_SAMPLES}
NUM_STEPS = 1600
NUM_NAMING_STEPS = 500  # without painting; painting from the start, it learned digits four times as slowly
BATCH_SIZE = 64
LEARNING_RATE = 2e-3  # at its highest; OneCycle
NUM_BACKGROUNDS = 1000
NUM_TEST_IMAGES = 2000
MAPS = (STAGES[-1][-1], 4, 4)  # of an image: channels, rows, columns


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--weights", type=Path, default=Path("tiny.safetensors"), help="the file to write")
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    begin = time.perf_counter()
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True)
    random = np.random.default_rng(options.seed)
    backgrounds = torch.stack([cut_background(SIDE, random) for _ in range(NUM_BACKGROUNDS)])
    backbone = initialise(Tiny(weights=None).requires_grad_(True))
    namer = nn.Linear(backbone.feature_dim, 10)
    painter = nn.Conv2d(STAGES[-1][-1], 3, 1)
    fit(backbone, namer, painter, backgrounds)
    accuracy = {name: measure(backbone, namer, backgrounds, part) for name, part in SAMPLES.items()}
    save_file({name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}, options.weights)
    facts = {
        "accuracy": accuracy,
        "seconds": round(time.perf_counter() - begin),
        "sha256": hashlib.sha256(options.weights.read_bytes()).hexdigest(),
    }
    print(json.dumps(facts))


def initialise(backbone: Tiny) -> Tiny:
    """Draw weights anew; with PyTorch's initial weights a network this deep does not begin to learn."""
    for layer in backbone.layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return backbone


def fit(backbone: Tiny, namer: nn.Linear, painter: nn.Conv2d, backgrounds: Tensor) -> None:
    parameters = [*backbone.parameters(), *namer.parameters(), *painter.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=NUM_STEPS, pct_start=0.2)
    paintings = paint(backgrounds)
    for step in range(NUM_STEPS):
        images, digits, chosen = draw_batch(backgrounds, OTHER_SAMPLES, BATCH_SIZE)
        features = backbone(images)[:, 0]
        naming = F.cross_entropy(namer(features), digits)
        painting = F.mse_loss(painter(features.unflatten(1, MAPS)), paintings[chosen])
        loss = naming if step < NUM_NAMING_STEPS else naming + painting
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {NUM_STEPS}: naming {naming:.3f}, painting {painting:.3f}", flush=True)


def paint(backgrounds: Tensor) -> Tensor:
    """Return the backgrounds (size, 3, 4, 4) as small as the feature maps, standardised."""
    small = F.adaptive_avg_pool2d(backgrounds.float(), MAPS[1:])
    std, mean = torch.std_mean(small, (0, 2, 3), keepdim=True)
    return (small - mean) / std


@torch.no_grad()
def measure(backbone: Tiny, namer: nn.Linear, backgrounds: Tensor, samples: slice) -> float:
    images, digits, _ = draw_batch(backgrounds, samples, NUM_TEST_IMAGES)
    named = torch.cat([namer(backbone(part)[:, 0]).argmax(1) for part in images.split(100)])
    return (named == digits).float().mean().item()


def draw_batch(backgrounds: Tensor, samples: slice, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (size, 1, 3, 64, 64), normalised, the digits in them (size,), and which background each has."""
    digits = torch.randint(10, (size,))
    ink = torch.stack([pick(handwriting(digit)[samples]) for digit in digits.tolist()])
    chosen = torch.randint(len(backgrounds), (size,))
    images = draw(backgrounds[chosen], ink[:, 0], random_poses(size))
    return BackboneTransform(Tiny.picture_format)(images[:, None]), digits, chosen


def pick(samples: Tensor) -> Tensor:
    return samples[torch.randint(len(samples), (1,))]


def random_poses(size: int) -> Tensor:
    x, y, log_size, angle = torch.rand(4, size, dtype=torch.float64)
    return torch.stack([1.6 * x - 0.8, 1.6 * y - 0.8, 0.3 * 4**log_size, (angle - 0.5) * math.radians(40)], dim=1)


if __name__ == "__main__":
    main()
