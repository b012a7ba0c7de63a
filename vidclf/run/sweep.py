"""What is looked at before the first job of a sweep begins, and the folder that its jobs leave theirs in."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vidclf.errors import VidclfError
from vidclf.system.terminal import say
from vidclf.system.text import sanitize

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # whose jobs are known before they run
_folders: list[Path] = []  # of a sweep of trainings
_passing: list[Path] = []  # of others: what Hydra writes into them is removed


class BeginSweep(Callback):
    """Refuses, before anything is written, what would be a mix of two sweeps; notes the sweep's folder."""

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        try:
            check_study(config)
            if config.hydra.job.name == "train":
                check_folder(config)
        except VidclfError as error:  # Hydra makes a warning of it
            say(f"{type(error).__name__}: {error}")
            sys.exit(1)
        except HydraException:  # the sweeper says so, too, and that one ends the work
            return
        if config.hydra.job.name == "train":
            _folders[:] = [Path(config.hydra.sweep.dir)]
            say(f"sweep {_folders[0]} (if it is broken off: the same again, with hydra.sweep.dir=...)")
        else:
            _leave_nothing(config)


def folder_of_sweep() -> Path | None:
    """Return the folder of the sweep of trainings that this process was called for, once; None: it was no sweep."""
    return _folders.pop() if _folders else None


def remove_passing() -> None:
    """Remove what Hydra wrote for a sweep that leaves nothing of its own, such as evaluate's."""
    while _passing:
        shutil.rmtree(_passing.pop(), ignore_errors=True)


def check_study(config: DictConfig) -> None:
    """Raise VidclfError if a study varies what the parts that were chosen do not have."""
    study = config.hydra.runtime.choices.get("study")
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    groups = config.hydra.runtime.choices
    for key in params if study else ():
        group, dot, _ = str(key).partition(".")
        if dot and OmegaConf.select(config, str(key), default=config) is config:
            raise VidclfError(
                f"study={study} varies {key}, which {group}={groups.get(group)} does not have. Choose another {group}, "
                "or say what shall be varied by -m KEY=A,B."
            )


def check_folder(config: DictConfig) -> None:
    """Raise VidclfError if the folder of a sweep of trainings holds jobs of another sweep.

    A job that is there must be this sweep's of that number, with the configuration that it would be trained by.
    """
    from vidclf.run.jobs import read_job
    from vidclf.system.text import first_five

    folder = Path(config.hydra.sweep.dir)
    if config.hydra.sweeper._target_ != BASIC or not folder.is_dir():
        return
    there = {path.name for path in folder.iterdir() if (path / ".hydra").is_dir() or (path / "checkpoints").is_dir()}
    if not there:
        return
    asked = set()
    for path, settings in _jobs(config):
        asked.add(path.name)
        if path.parent == folder.absolute() and path.name in there and settings is not None:
            read_job(path, settings)
    if others := sorted(there - asked):
        raise VidclfError(
            f"hydra.sweep.dir={sanitize(str(folder))}: it holds {len(others)} jobs that this sweep does not have: "
            f"{sanitize(first_five(others))}. This one has {sanitize(first_five(sorted(asked)))}. To go on with the "
            "sweep in that folder, call it as before; for another one, name another folder, or none."
        )


def _jobs(config: DictConfig) -> Iterator[tuple[Path, dict | None]]:
    """Yield of each job its folder, and what it will be asked; None: that begins with another run's settings."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from vidclf.build.parts import settle_precision
    from vidclf.run.config import asked

    loader = GlobalHydra.instance().config_loader()
    varied = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    overrides = OverridesParser.create(config_loader=loader).parse_overrides([*varied, *given])  # type: ignore[misc]
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    before = HydraConfig.instance().cfg
    try:
        for number, own in enumerate(jobs):
            job = loader.load_sweep_config(config, own)
            with open_dict(job.hydra.job):
                job.hydra.job.num, job.hydra.job.id = number, str(number)
            HydraConfig.instance().set_config(job)
            folder = Path(job.hydra.sweep.dir, job.hydra.sweep.subdir).absolute()
            with read_write(job.hydra.runtime), open_dict(job.hydra.runtime):
                job.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(job)
            settings = deepcopy(job)
            with read_write(settings), open_dict(settings):
                del settings["hydra"]
            yield folder, None if settings.resume is not None else settle_precision(asked(settings, "train")[0])
    finally:
        HydraConfig.instance().cfg = before


def _leave_nothing(config: DictConfig) -> None:
    """Let Hydra write its own files into a folder that goes when the sweep has ended."""
    beside = Path(config.hydra.sweep.dir)  # on a disk that other machines see, too
    may_write = beside.is_dir() and os.access(beside, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix=".sweep-", dir=beside if may_write else None))
    _passing.append(folder)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweep.dir = str(folder)
