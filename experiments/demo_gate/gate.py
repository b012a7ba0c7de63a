"""Measure whether the demo's clips and `tiny`'s weights are good: what they must show, they show by a margin.

    python experiments/demo_gate/gate.py                 # about ten minutes on two cores
    python experiments/demo_gate/gate.py --checks conv3d # a 3D network from scratch, on frames; some minutes more

Heads are small and trained here, so that the clips are judged apart from the package's training loop. Every
check has bounds; the results go to results.json beside this file, and the exit status is 1 if any bound is missed.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from vidclf.data.datasets.demo import Demo
from vidclf.data.decoding import decode_frames, probe
from vidclf.data.sampling import Rate, Uniform
from vidclf.data.transforms import BackboneTransform
from vidclf.models.backbones.frozen import Frozen
from vidclf.models.backbones.tiny import Tiny
from vidclf.terminal import track

NUM_CLASSES = 8
NUM_STEPS = 16
SEEDS = (0, 1, 2)


class Clips:
    """The demo's clips as numbers: labels, groups, and `tiny`'s features of the sampled frames."""

    def __init__(self, root: Path) -> None:
        self.videos = Demo(root).videos()
        self.labels = torch.tensor([video.label for video in self.videos])
        self.groups = torch.tensor([int(video.group[1:]) for video in self.videos])
        self.test = self.groups <= 7
        self.uniform = torch.empty(len(self.videos), NUM_STEPS, 0)
        self.rates: dict[int, list[Tensor]] = {1: [], 5: []}

    def extract(self) -> None:
        """Fill `uniform` (clips, 16, D) and `rates`: rate_hz -> (frames, D) for each clip."""
        backbone = Frozen(Tiny())
        transform = BackboneTransform(Tiny.preset)
        uniform = []
        for video in track(self.videos, len(self.videos), "Extracting features of", "clips"):
            info = probe(video.path)
            samples = [Uniform(NUM_STEPS), *(Rate(rate) for rate in self.rates)]
            views = [sample(info.num_frames, info.fps).flatten() for sample in samples]
            frames, place = torch.cat(views).unique(return_inverse=True)
            features = backbone(transform(decode_frames(video.path, frames[None])))[0][place]
            first, *others = features.split([len(view) for view in views])
            uniform.append(first)
            for rate, part in zip(self.rates, others, strict=True):
                self.rates[rate].append(part)
        self.uniform = torch.stack(uniform)

    def validation(self, seed: int) -> Tensor:
        """Return a fifth of the training clips: whole (class, group)s, stratified."""
        train = (~self.test).nonzero()[:, 0]
        keys = self.labels[train] * 100 + self.groups[train]
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        _, chosen = next(folds.split(train, self.labels[train], keys))
        return train[torch.from_numpy(chosen)]


class FrameMLP(nn.Sequential):
    """The tutorial's dense network."""

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = []
        for before, after in zip((width, 1024, 512, 256), (1024, 512, 256, 128), strict=True):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(0.5)]
        super().__init__(*layers, nn.Linear(128, NUM_CLASSES))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)


class LastState(nn.Module):
    """A GRU over the frames; it can use their order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 128), nn.ReLU())
        self.gru = nn.GRU(128, 128, batch_first=True)
        self.name = nn.Sequential(nn.Dropout(0.2), nn.Linear(128, NUM_CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        return self.name(self.gru(self.enter(features))[0][:, -1])


class MeanPool(nn.Module):
    """A network on every frame, averaged; it cannot use their order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
        self.name = nn.Linear(128, NUM_CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        return self.name(self.enter(features).mean(1))


class AttentionPool(nn.Module):
    """A learned query over the frames, told nothing of their places; it cannot use their order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 128))
        self.query = nn.Parameter(torch.randn(1, 1, 128))
        self.pool = nn.MultiheadAttention(128, 4, batch_first=True)
        self.name = nn.Linear(128, NUM_CLASSES)

    def forward(self, features: Tensor) -> Tensor:
        steps = self.enter(features)
        pooled, _ = self.pool(self.query.expand(len(steps), -1, -1), steps, steps)
        return self.name(F.relu(pooled[:, 0]))


class Conv3d(nn.Sequential):
    """A small 3D network on (N, 3, 16, 64, 64)."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after, stride in ((3, 16, (1, 2, 2)), (16, 32, 2), (32, 64, 2), (64, 128, 2)):
            layers += [nn.Conv3d(before, after, 3, stride, 1), nn.BatchNorm3d(after), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, NUM_CLASSES))


def fit(model: nn.Module, inputs: Tensor, labels: Tensor, num_epochs: int, batch_size: int = 64) -> nn.Module:
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
def log_probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([model(part).log_softmax(1) for part in inputs.split(64)])


def accuracy(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return (log_probabilities(model, inputs).argmax(1) == labels).float().mean().item()


def standardise(train: Tensor, *others: Tensor) -> list[Tensor]:
    flat = train.flatten(0, -2)
    mean, std = flat.mean(0), flat.std(0) + 1e-3
    return [(part - mean) / std for part in (train, *others)]


def check_order(clips: Clips, model_class: Callable[[int], nn.Module], seed: int) -> dict[str, float]:
    """Train on all training clips' 16 frames; test them in order, reversed and shuffled."""
    torch.manual_seed(seed)
    train, test = standardise(clips.uniform[~clips.test], clips.uniform[clips.test])
    labels = clips.labels[clips.test]
    model = fit(model_class(train.shape[-1]), train, clips.labels[~clips.test], num_epochs=60)
    shuffled = torch.stack([clip[torch.randperm(NUM_STEPS)] for clip in test])
    orders = {"in order": test, "reversed": test.flip(1), "shuffled": shuffled}
    return {order: accuracy(model, inputs, labels) for order, inputs in orders.items()}


def check_frames(clips: Clips, rate_hz: int, validation: str, seed: int) -> dict[str, float]:
    """Train the tutorial's network on single frames; `val` on frames or groups held back, `test` on clips."""
    torch.manual_seed(seed)
    features, clip = torch.cat(clips.rates[rate_hz]), owners(clips.rates[rate_hz])
    train = ~clips.test[clip]
    if validation == "frame_level":
        held = train & (torch.rand(len(clip)) < 0.2)
    else:
        held = torch.isin(clip, clips.validation(seed))
    train &= ~held
    scale = features[train].amax(0).clamp(min=1e-6)  # the tutorial's: divided by the maximum
    features = features / scale
    labels = clips.labels[clip]
    model = fit(FrameMLP(features.shape[1]), features[train], labels[train], num_epochs=60, batch_size=128)
    scores = {"val frames": accuracy(model, features[held], labels[held])}
    for part, rows in {"val": held, "test": clips.test[clip]}.items():
        mean, of = mean_probabilities(model, features[rows], clip[rows])
        scores[part] = (mean.argmax(1) == clips.labels[of]).float().mean().item()
    return scores


def owners(parts: list[Tensor]) -> Tensor:
    lengths = torch.tensor([len(part) for part in parts])
    return torch.arange(len(parts)).repeat_interleave(lengths)


def mean_probabilities(model: nn.Module, features: Tensor, clip: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed probabilities of the frames of each clip, and which clips these are."""
    of, place = clip.unique(return_inverse=True)
    sums = torch.zeros(len(of), NUM_CLASSES).index_add(0, place, log_probabilities(model, features).exp())
    return sums, of


def check_conv3d(clips: Clips, seed: int) -> dict[str, float]:
    """Train a 3D network from scratch on 16 frames of 64 x 64 pixels."""
    torch.manual_seed(seed)
    transform = BackboneTransform(Tiny.preset)
    pictures = []
    for video in track(clips.videos, len(clips.videos), "Decoding", "clips"):
        view = Uniform(NUM_STEPS)(probe(video.path).num_frames, 25)
        pictures.append(transform(decode_frames(video.path, view))[0].transpose(0, 1))  # (3, 16, 64, 64)
    inputs = torch.stack(pictures)
    model = fit(Conv3d(), inputs[~clips.test], clips.labels[~clips.test], num_epochs=25, batch_size=32)
    return {"in order": accuracy(model, inputs[clips.test], clips.labels[clips.test])}


CHECKS: dict[str, Callable[[Clips, int], dict[str, float]]] = {
    "gru": lambda clips, seed: check_order(clips, LastState, seed),
    "mean_pool": lambda clips, seed: check_order(clips, MeanPool, seed),
    "attention_pool": lambda clips, seed: check_order(clips, AttentionPool, seed),
    "mlp_1hz_group": lambda clips, seed: check_frames(clips, 1, "group", seed),
    "mlp_1hz_frame_level": lambda clips, seed: check_frames(clips, 1, "frame_level", seed),
    "mlp_5hz_group": lambda clips, seed: check_frames(clips, 5, "group", seed),
    "conv3d": check_conv3d,
}
BOUNDS = {  # of every seed: check, score, lowest, highest
    ("gru", "in order"): (0.95, 1.0),
    ("gru", "reversed"): (0.15, 0.35),
    ("gru", "shuffled"): (0.0, 0.70),
    ("mean_pool", "in order"): (0.0, 0.66),
    ("attention_pool", "in order"): (0.0, 0.66),
    ("mlp_1hz_group", "test"): (0.55, 0.64),
    ("mlp_1hz_group", "val - test"): (-0.1, 0.1),
    ("mlp_1hz_frame_level", "val frames"): (0.95, 1.0),
    ("mlp_1hz_frame_level", "val - test"): (0.2, 1.0),
    ("mlp_5hz_group", "test"): (0.0, 0.66),
    ("conv3d", "in order"): (0.95, 1.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("data/demo"))
    parser.add_argument("--checks", nargs="*", choices=CHECKS, default=[name for name in CHECKS if name != "conv3d"])
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results.json"))
    options = parser.parse_args()
    clips = Clips(options.root)
    if options.checks != ["conv3d"]:
        clips.extract()
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    for name in options.checks:
        results[name] = {str(seed): measure(name, clips, seed) for seed in SEEDS}
        options.results.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(not all(report(name, results[name]) for name in options.checks))


def measure(name: str, clips: Clips, seed: int) -> dict[str, float]:
    scores = CHECKS[name](clips, seed)
    if "val" in scores:
        scores["val - test"] = scores["val"] - scores["test"]
    return {score: round(value, 4) for score, value in scores.items()}


def report(name: str, of_seeds: dict[str, dict[str, float]]) -> bool:
    """Print a line for every score and return whether all keep their bounds."""
    good = True
    for score in of_seeds["0"]:
        low, high = BOUNDS.get((name, score), (-1.0, 1.0))
        values = [scores[score] for scores in of_seeds.values()]
        kept = all(low <= value <= high for value in values)
        print(f"{name:22} {score:12} {values}  {'' if kept else f'NOT within {low} .. {high}'}", flush=True)
        good &= kept
    return good


if __name__ == "__main__":
    main()
