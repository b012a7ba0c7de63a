"""Learning-rate schedules over a whole training, stepped after every optimiser step.

`num_steps` is the total number of steps of the optimiser; the optimiser holds the base rate.
"""

import math
from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from vidclf.errors import VidclfError


def constant(optimizer: Optimizer, num_steps: int | float) -> LRScheduler:
    """Return a schedule that leaves the rate as it is."""
    return ConstantLR(optimizer, factor=1.0)


def cosine(optimizer: Optimizer, num_steps: int | float, warmup: float | int = 0.0) -> LRScheduler:
    """Return a linear rise over a `warmup` share of the steps, then half a cosine down to 0 (arXiv:1608.03983)."""
    if not 0 <= warmup < 1:
        raise VidclfError(f"scheduler.warmup={warmup}: must be a share of the training, 0 or more and below 1.")
    rising = round(warmup * _finite(num_steps))
    falling = CosineAnnealingLR(optimizer, T_max=max(1, round(num_steps) - rising))
    if rising == 0:
        return falling
    rise = LinearLR(optimizer, start_factor=1 / (rising + 1), total_iters=rising)
    return SequentialLR(optimizer, [rise, falling], milestones=[rising])


def step(
    optimizer: Optimizer, num_steps: int | float, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1
) -> LRScheduler:
    """Return a rate that falls to `gamma` of itself at each of `milestones`, shares of the training."""
    return MultiStepLR(optimizer, [round(share * _finite(num_steps)) for share in milestones], gamma)


def one_cycle(optimizer: Optimizer, num_steps: int | float, warmup: float | int = 0.3) -> LRScheduler:
    """Return one rise to the base rate over a `warmup` share of the steps and one fall (arXiv:1708.07120)."""
    if not 0 <= warmup <= 1:
        raise VidclfError(f"scheduler.warmup={warmup}: must be a share of the training, from 0 to 1.")
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(
        optimizer, max_lr=rates, total_steps=round(_finite(num_steps)), pct_start=warmup, cycle_momentum=False
    )


def _finite(num_steps: int | float) -> int | float:
    if math.isinf(num_steps):
        raise VidclfError(
            "scheduler: it needs the length of the training, which has no end. Set trainer.max_epochs, or use "
            "scheduler=constant."
        )
    return num_steps
