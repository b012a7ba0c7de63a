"""Measure whether the demo's clips and `tiny`'s weights show by a margin what they must show.

    python experiments/demo_gate/gate.py

It uses the package's heads with a separate training loop, so that the clips are judged apart from the package's loop.
Every check has bounds. The results are written to results.json beside this file; the exit status is 1 if a bound is
missed.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidclf.data.datasets.demo import Demo
from vidclf.data.datasets.demo.clips import TEST_GROUPS
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.sampling import Uniform
from vidclf.data.transforms import BackboneTransform
from vidclf.models.backbones.tiny import Tiny
from vidclf.models.backbones.tiny3d import Tiny3D
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.heads.attention_pool import AttentionPool
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mean_pool import MeanPool
from vidclf.models.heads.recurrent import GRU
from vidclf.models.scaling import Scaling
from vidclf.system.terminal import track

SEEDS = (0, 1, 2)
HEADS = {"gru": GRU, "mean_pool": MeanPool, "attention_pool": AttentionPool}
BOUNDS = {  # of every seed: check, order of the frames, lowest, highest
    ("gru", "in order"): (0.95, 1.0),
    ("gru", "reversed"): (0.15, 0.35),
    ("gru", "shuffled"): (0.0, 0.70),
    ("mean_pool", "in order"): (0.0, 0.66),
    ("attention_pool", "in order"): (0.0, 0.66),
    ("tiny3d", "in order"): (0.95, 1.0),
    ("tiny3d", "reversed"): (0.15, 0.35),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("data/demo"))
    parser.add_argument("--checks", nargs="*", choices=[*HEADS, "tiny3d"], default=[*HEADS, "tiny3d"])
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()
    videos = Demo(options.root).videos()
    labels = torch.tensor([video.label for video in videos])
    test = torch.tensor([int(video.group[1:]) in TEST_GROUPS for video in videos])
    transform, sample = BackboneTransform(Tiny.picture_format), Uniform(16)
    views = [
        transform(decode_frames(video.path, sample(inspect(video.path).num_frames, 25)))
        for video in track(videos, len(videos), "Decoding", "clips")
    ]
    images = torch.cat(views)  # (N, 16, 3, 64, 64)
    features = torch.cat(
        [FrozenBackbone(Tiny())(view) for view in track(views, len(views), "Extracting features of", "clips")]
    )
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in options.checks:
        inputs = images if name == "tiny3d" else features
        results[name] = {seed: check(name, inputs, labels, test, seed) for seed in SEEDS}
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    kept = [report(name, results[name]) for name in options.checks]
    sys.exit(not all(kept))


def check(name: str, inputs: Tensor, labels: Tensor, test: Tensor, seed: int) -> dict[str, float]:
    """Train on the training clips; return the test accuracy with the frames in order, reversed and shuffled."""
    torch.manual_seed(seed)
    if name == "tiny3d":
        backbone = Tiny3D()
        model = fit(nn.Sequential(backbone, Linear(backbone.feature_dim, 8)), inputs[~test], labels[~test], 20, 32)
    else:
        scaling = Scaling(inputs.shape[-1], "standard")
        scaling.fit(inputs[~test])
        model = nn.Sequential(scaling, HEADS[name](inputs.shape[-1], 8))
        model = fit(model, inputs[~test], labels[~test], 40, 64)
    clips = inputs[test]
    shuffled = torch.stack([clip[torch.randperm(len(clip))] for clip in clips])
    orders = {"in order": clips, "reversed": clips.flip(1), "shuffled": shuffled}
    return {order: accuracy(model, inputs, labels[test]) for order, inputs in orders.items()}


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, num_epochs: int, batch_size: int) -> nn.Module:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    num_steps = num_epochs * -(-len(inputs) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=num_steps)
    model.train()
    for _ in range(num_epochs):
        for rows in torch.randperm(len(inputs)).split(batch_size):
            loss = F.cross_entropy(model(inputs[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    named = torch.cat([model(part).argmax(1) for part in inputs.split(64)])
    return round((named == labels).float().mean().item(), 4)


def report(name: str, of_seeds: dict[int, dict[str, float]]) -> bool:
    """Print a line for every order and return whether all are within their bounds."""
    good = True
    for order in of_seeds[SEEDS[0]]:
        low, high = BOUNDS.get((name, order), (0.0, 1.0))
        values = [scores[order] for scores in of_seeds.values()]
        kept = all(low <= value <= high for value in values)
        print(f"{name:15} {order:9} {values}  {'' if kept else f'NOT within {low} .. {high}'}", flush=True)
        good &= kept
    return good


if __name__ == "__main__":
    main()
