"""Show how far Lightning's loops are: bars on a terminal and in a notebook, elsewhere lines."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from vidclf.system.ranks import is_rank_zero
from vidclf.system.terminal import INTERVAL_S, say, shows_bars


class EpochLines(ProgressBar):
    """Prints a line for each epoch of training, and a line a minute while a part is scored."""

    def __init__(self) -> None:
        super().__init__()
        self.started, self.said, self.num_scored = 0.0, 0.0, 0

    def disable(self) -> None: ...

    def enable(self) -> None: ...

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        names = ("train/loss", "val/loss", "val/top1")
        scores = [f"{name} {trainer.callback_metrics[name]:.4f}" for name in names if name in trainer.callback_metrics]
        last = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else "?"
        seconds = time.monotonic() - self.started
        say(f"epoch {trainer.current_epoch + 1}/{last}: {', '.join([*scores, f'{seconds:.1f} s'])}")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.said, self.num_scored = time.monotonic(), 0

    def on_predict_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.num_scored += 1
        if time.monotonic() - self.said >= INTERVAL_S:
            self.said = time.monotonic()
            say(f"scored {self.num_scored} of {sum(trainer.num_predict_batches)} batches")


class EpochBar(RichProgressBar):
    """Lightning's bar, with epochs counted from 1, as results do."""

    def _get_train_description(self, current_epoch: int) -> str:
        last = self.trainer.max_epochs or 0
        return f"Epoch {current_epoch + 1}{f'/{last}' if last > 0 else ''}".ljust(len(self.validation_description))


def progress_bars() -> list[ProgressBar]:
    """Return what shows Lightning's progress on stderr; nothing in processes other than the first."""
    if not is_rank_zero():
        return []
    # Drawn at every batch, the bar takes longer than a batch of stored features.
    return [EpochBar(refresh_rate=10, console_kwargs={"stderr": True}) if shows_bars() else EpochLines()]
