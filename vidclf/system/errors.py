"""What the command line prints as a sentence instead of a stack trace."""

import os
import sys
import sysconfig
import traceback
from pathlib import Path

OURS = str(Path(__file__).parents[1])


class VidclfError(Exception):
    """Something the user can act on: what, got, allowed, what to do."""


def is_of_ones_own(error: BaseException) -> bool:
    """Whether a file that is neither ours nor installed is on the way to `error`."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return any(not _lies_in(file, OURS, *installed, *_folders("hydra", "omegaconf")) for file in _files_of(error))


def is_refusal(error: BaseException) -> bool:
    """Whether Lightning, Hydra or an optimiser of torch raised `error`, so that a setting is to blame."""
    files = _files_of(error)
    raising = _folders("hydra", "lightning", "omegaconf", "torch.optim")
    return bool(files) and _lies_in(files[-1], *raising) and not is_of_ones_own(error)


def _files_of(error: BaseException) -> list[str]:
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def _folders(*names: str) -> list[str]:
    return [os.path.dirname(str(sys.modules[name].__file__)) for name in names if name in sys.modules]


def _lies_in(file: str, *folders: str) -> bool:
    return file.startswith(("<", *(f"{folder}{os.sep}" for folder in folders)))
