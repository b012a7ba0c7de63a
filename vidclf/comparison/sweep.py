"""Checks a sweep before its first job, and compares its runs after the last."""

import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path

from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vidclf.errors import VidclfError
from vidclf.run.sweep import ERROR, jobs_of
from vidclf.system.terminal import say


class SweepCallback(Callback):
    """Hydra calls this before and after the jobs of a sweep.

    A training sweep ends with a table of its runs. Other verbs write into the folders of their runs, so Hydra's files
    on the sweep itself go to a temporary folder.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        try:
            check_study(config)
        except VidclfError as error:  # Hydra would only warn
            say(f"{type(error).__name__}: {error}")
            sys.exit(1)
        except HydraException:  # the sweeper raises it again
            return
        self.is_training = config.hydra.job.name == "train"
        if not self.is_training:
            self._use_temporary_folder(config)
        self.folder = Path(config.hydra.sweep.dir)
        if self.is_training:
            say(f"sweep {self.folder} (to continue after an interruption: the same command with hydra.sweep.dir=...)")

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        if self.is_training:
            _compare(self.folder)
        failed = [job for job in (self.folder, *jobs_of(self.folder)) if (job / ERROR).is_file()]
        if failed:
            sys.exit(1)

    def _use_temporary_folder(self, config: DictConfig) -> None:
        beside = Path(config.hydra.sweep.dir)  # on a disk that other machines may share
        is_writable = beside.is_dir() and os.access(beside, os.W_OK)
        folder = tempfile.mkdtemp(prefix=".sweep-", dir=beside if is_writable else None)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = folder


def check_study(config: DictConfig) -> None:
    """Raise VidclfError if a study varies a setting that the chosen options do not have."""
    choices = config.hydra.runtime.choices
    study = choices.get("study")
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    for key in params if study else ():
        group, dot, _ = str(key).partition(".")
        if dot and OmegaConf.select(config, str(key), default=config) is config:
            raise VidclfError(
                f"study={study} varies {key}, which {group}={choices.get(group)} does not have. Choose another "
                f"{group}, or vary something else with -m KEY=A,B."
            )


def _compare(folder: Path) -> None:
    """Print the table of a sweep; if it fails, only print why."""
    from vidclf.comparison.show import show  # imports scikit-learn and matplotlib: only after the jobs

    try:
        show([folder], "val")
    except VidclfError as error:
        say(f"No table of the sweep: {error}")
