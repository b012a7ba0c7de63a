"""Which folder the jobs of a sweep leave theirs in, known where it was called."""

from pathlib import Path

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_folders: list[Path] = []


class NoteFolder(Callback):
    """Notes the folder of a sweep of trainings before its first job begins."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        if config.hydra.job.name == "train":
            _folders[:] = [Path(config.hydra.sweep.dir)]


def folder_of_sweep() -> Path | None:
    """Return the folder of the sweep of trainings that this process was called for, once; None: it was no sweep."""
    return _folders.pop() if _folders else None
