"""Measure twenty linear heads at once over one: a step in a bare loop, and whole epochs under Lightning."""

import statistics
from collections.abc import Callable
from functools import partial

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from experiments.benchmark.setting import Setting, device, now, timed
from vidclf.contracts import PictureFormat, Views
from vidclf.models.aggregation import mean
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.grid import Grid
from vidclf.models.heads.linear import Linear
from vidclf.models.learner import Learner
from vidclf.models.loss import CrossEntropy
from vidclf.models.scaling import Scaling
from vidclf.models.schedules import constant
from vidclf.system.terminal import quiet_lightning

NUM_HEADS, BATCH_SIZE = 20, 128
WIDTHS, CLASSES = (1280, 25_088), (8, 101)
NUM_STEPS = 20  # between two looks at the clock: an epoch
NUM_ROUNDS = 9  # in which one head and all take turns; the first does not count


class EpochEnds(Callback):
    """Notes when each training epoch ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.times.append(now())


class Loader(list):
    """A list of batches as a loader."""


class Unused(nn.Module):
    """A backbone that is never called."""

    picture_format = PictureFormat(size=1, resize=1, mean=(0, 0, 0), std=(1, 1, 1))

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim


def steady(setting: Setting) -> dict[str, dict[str, float]]:
    """Return the seconds of a step of one head and of all by width and classes, bare and under Lightning."""
    quiet_lightning()
    return {f"{width} x {classes}": step_times(width, classes) for width in WIDTHS for classes in CLASSES}


def step_times(width: int, num_classes: int) -> dict[str, float]:
    """Return the median seconds of a step, taking turns."""
    batches = Loader(drawn_batch(width, num_classes) for _ in range(2))
    one, many = classifier(width, num_classes, batches), grid(width, num_classes, batches)
    works = {
        "one_s": bare(one, batches),
        "all_s": bare(many, batches),
        "one_lightning_s": partial(fit, one, batches),
        "all_lightning_s": partial(fit, many, batches),
    }
    rounds = [{name: work() for name, work in works.items()} for _ in range(NUM_ROUNDS)][1:]
    return {name: statistics.median(times[name] for times in rounds) for name in works}


def drawn_batch(width: int, num_classes: int) -> Views:
    inputs = torch.randn(BATCH_SIZE, 1, width, device=device())
    whose = torch.arange(BATCH_SIZE)
    return Views(inputs, torch.randint(num_classes, (BATCH_SIZE,), device=device()), whose, torch.zeros_like(whose))


def classifier(width: int, num_classes: int, batches: list[Views], rate: float = 1e-3) -> Learner:
    made = Learner(
        FrozenBackbone(Unused(width)),
        Scaling(width, "standard"),
        Linear(width, num_classes),
        mean,
        partial(torch.optim.Adam, lr=rate, eps=1e-7, fused=True),  # conf/optimizer/adam.yaml
        constant,
        CrossEntropy(num_classes),
        num_classes,
    )
    made.scaling.fit(batches[0].inputs)
    return made.to(device())


def grid(width: int, num_classes: int, batches: list[Views]) -> Grid:
    rates = torch.logspace(-5, -2, NUM_HEADS).tolist()
    return Grid([classifier(width, num_classes, batches, rate) for rate in rates]).to(device())


def bare(module: Learner, batches: list[Views]) -> Callable[[], float]:
    """Return a function that takes NUM_STEPS steps without Lightning and returns the seconds of a step."""
    module.train()
    many = isinstance(module, Grid)
    optimizer = module.build_optimizer()

    def loss_of(batch: Views) -> torch.Tensor:  # one head's without its accuracy, which costs more than its step
        return module.compute_loss(batch)[0] if many else module.loss(module(batch.inputs), batch.labels)

    def epoch() -> None:
        for number in range(NUM_STEPS):
            loss = loss_of(batches[number % 2])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return lambda: timed(epoch)[0] / NUM_STEPS


def fit(module: Learner, batches: list[Views]) -> float:
    """Return the seconds of a step in an epoch under Lightning, without validation and logging."""
    ends = EpochEnds()
    trainer = L.Trainer(
        callbacks=[ends],
        accelerator=device().replace("cuda", "gpu"),
        devices=1,
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Loader(batches[number % 2] for number in range(NUM_STEPS)))
    return (ends.times[1] - ends.times[0]) / NUM_STEPS
