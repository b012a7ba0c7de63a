"""Call a verb as the command line does, but in this process: a new one imports for eight seconds."""

import contextlib
import io
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from hydra._internal.hydra import Hydra

from vidclf import cli
from vidclf.cli import main
from vidclf.run.config import CONF

# Cheap, and real: the embedded demo's network with random weights, and a network of 16 numbers behind it.
# A sheet of one view: drawing the usual 16 takes longer than everything else.
SMALL = (
    "backbone=tiny",
    "++backbone.weights=null",
    "sampling.rate_hz=10",
    "head.widths=[16]",
    "trainer.max_epochs=2",
    "num_threads=1",
    "callbacks.view_sheets.num_views=1",
)
SETS_MODE = ("-", "study=", "sweep=", "hydra", "+hydra")  # how the arguments begin that can set hydra.mode


class Outcome(NamedTuple):
    """The exit status of a verb, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def run(self) -> Path:
        """The folder of a training, from the last line that it printed."""
        return Path(self.out.splitlines()[-1].removeprefix("run "))


def call(verb: str, *arguments: str, folder: Path) -> Outcome:
    """Run `vidclf VERB ARGUMENTS` in `folder`; later calls do not notice it."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.object(sys, "argv", ["vidclf", verb, *arguments]),
        patch.object(sys, "path", [str(folder), *sys.path]),
        patch.dict(os.environ),
        _composed_once(arguments),
        _small_sheet(verb),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _restored_state(),
    ):
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    said = re.sub(rf"^{verb}: .*\n", "", err.getvalue())  # without the line that every verb begins with
    return Outcome(status, out.getvalue(), said)


def copy_package(folder: Path) -> Path:
    """Copy the package and conf/ into `folder`, for tests that add files to them."""
    shutil.copytree(Path(cli.__file__).parent, folder / "vidclf", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONF, folder / "vidclf" / "conf", dirs_exist_ok=True)
    return folder


def run_copy(folder: Path, module: str, *arguments: str) -> str:
    """Run `python -m MODULE ARGUMENTS` in a process that imports the copy in `folder`; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", module, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _composed_once(arguments: Sequence[str]) -> contextlib.AbstractContextManager:
    """Spare Hydra a second configuration, composed only to look at hydra.mode, where no argument can have set it."""
    if any(argument.startswith(SETS_MODE) for argument in arguments):
        return contextlib.nullcontext()
    return patch.object(Hydra, "get_mode", return_value=None)


def _small_sheet(verb: str) -> contextlib.AbstractContextManager:
    """Let `evaluate` draw one view instead of 16, which takes a third of its time."""
    if verb != "evaluate":
        return contextlib.nullcontext()
    from vidclf.evaluation import tensorboard

    return patch.object(tensorboard, "draw_sheet", partial(tensorboard.draw_sheet, num_views=1))


@contextlib.contextmanager
def _restored_state() -> Iterator[None]:
    """Restore what a verb sets for its whole process: logging, random state, determinism, modules of the folder.

    One thread: networks this small wait for other threads longer than they compute.
    """
    root, modules = logging.getLogger(), set(sys.modules)
    handlers, level, random = root.handlers[:], root.level, torch.get_rng_state()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        torch.set_rng_state(random)
        torch.set_num_threads(num_threads)
        torch.use_deterministic_algorithms(False)
        for name in set(sys.modules) - modules:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").resolve().is_relative_to(Path.cwd().resolve()):
                del sys.modules[name]
