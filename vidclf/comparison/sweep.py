"""A sweep from its first job to its last: refused early where it cannot work, and compared at its end."""

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

    A sweep of trainings ends with a table of its runs. Other verbs write into their runs' folders, so what Hydra
    writes for the sweep itself goes to a temporary folder.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        try:
            check_study(config)
        except VidclfError as error:  # Hydra would turn it into a warning
            say(f"{type(error).__name__}: {error}")
            sys.exit(1)
        except HydraException:  # the sweeper raises it again
            return
        self.is_training = config.hydra.job.name == "train"
        if not self.is_training:
            self._use_temporary_folder(config)
        self.folder = Path(config.hydra.sweep.dir)
        if self.is_training:
            say(f"sweep {self.folder} (to go on after an interruption: the same command with hydra.sweep.dir=...)")

    def on_multirun_end(self, config: DictConfig, **_: object) -> None:
        if self.is_training:
            _compare(self.folder)
        failed = [job for job in (self.folder, *jobs_of(self.folder)) if (job / ERROR).is_file()]
        if failed:
            sys.exit(1)

    def _use_temporary_folder(self, config: DictConfig) -> None:
        beside = Path(config.hydra.sweep.dir)  # a disk that other machines see, too
        is_writable = beside.is_dir() and os.access(beside, os.W_OK)
        folder = tempfile.mkdtemp(prefix=".sweep-", dir=beside if is_writable else None)
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = folder


def check_study(config: DictConfig) -> None:
    """Raise VidclfError if a study varies a setting that the chosen parts do not have."""
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
    """Print the table of a sweep; problems with it are said, and end nothing."""
    from vidclf.comparison.show import show  # scikit-learn, matplotlib: only when the jobs are done

    try:
        show([folder], "val")
    except VidclfError as error:
        say(f"No table of the sweep: {error}")
