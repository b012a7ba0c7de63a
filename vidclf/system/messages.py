"""Which errors the command line prints as one sentence: those that a person can act on."""

import errno
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from vidclf.errors import VidclfError
from vidclf.system.ranks import is_lost_peer

PACKAGE = str(Path(__file__).parents[1])
MAX_SHOWN = 500  # characters of a library's message
UNUSABLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL)
NO_ACCESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def message_for(error: BaseException) -> str | None:
    """Return the sentence for an error that a setting, a file or the machine caused; None for a mistake in code."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    cause = error.__cause__
    if isinstance(error, InstantiationException) and cause is not None:
        target = (re.findall("'(.+?)'", str(error)) or ["a class"])[0].rpartition(".")[2]
        return message_for(cause) or (None if raised_in_user_code(cause) else f"{target}: {_in_one_line(cause)}")
    if isinstance(error, OSError) and error.errno in UNUSABLE:
        return f"{str(error.filename)[:MAX_SHOWN]}: cannot be used ({error.strerror}). Choose another path."
    if isinstance(error, OSError) and error.errno in NO_ACCESS:
        return f"{error.filename or 'A file'}: no access ({error.strerror}). Fix that, or work in another folder."
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's
        return (
            "A process of the sweep was killed (out of memory?), so all jobs have stopped. Finished jobs are kept: "
            "repeat the command with hydra.sweep.dir=DIR to go on, or with hydra.launcher.n_jobs=1 to run one job at a "
            "time. vidclf compare DIR part=val shows the jobs that are done."
        )
    if is_lost_peer(error):
        return (
            "Another process of this run ended (killed? out of memory?), so all have stopped. Everything written so "
            f"far is kept; resume=DIR goes on. ({str(error).splitlines()[0][:200]})"
        )
    if isinstance(error, RuntimeError) and '"srun"' in str(error):  # submitit's
        return (
            "sweep=slurm: this machine has no srun, so no SLURM. Start it where SLURM is, or use sweep=local_parallel."
        )
    if not isinstance(error, VidclfError) and _restores_a_checkpoint(error):
        return f"resume: the checkpoint does not fit this training, or is damaged ({_in_one_line(error)}). Train again."
    if isinstance(error, VidclfError | HydraException | OmegaConfBaseException) or rejects_a_setting(error):
        return f"{type(error).__name__}: {error}"
    return None


def refusal_of(constructor: Callable, settings: Mapping[str, object], error: Exception) -> str:
    """Return the sentence for a constructor's refusal of its settings: those that it mentions, otherwise all."""
    reason = _in_one_line(error).rstrip(".")
    words = {*re.findall(r"[\w.-]+", reason)} - {"0", "1", "0.0", "1.0", "None", "True", "False"}
    named = [key for key in settings if key in words] or [key for key, value in settings.items() if str(value) in words]
    values = ", ".join(f"{key}={settings[key]}" for key in named or settings)[:MAX_SHOWN]
    return f"{constructor.__qualname__}({values}): {reason}. Change these settings."


def _in_one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_SHOWN]


def raised_in_user_code(error: BaseException) -> bool:
    """Return whether a file that is neither vidclf's nor an installed package's is on the way to `error`."""
    return place_in_user_code(error) is not None


def place_in_user_code(error: BaseException) -> str | None:
    """Return the last such place, as `my_heads.py line 14`, or None."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    folders = PACKAGE, *installed, *_folders("hydra", "omegaconf")
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [f"{os.path.basename(file)} line {line}" for file, line in places if not _is_inside(file, *folders)]
    return users[-1] if users else None


def rejects_a_setting(error: BaseException) -> bool:
    """Return whether Lightning, Hydra or an optimiser of torch raised `error`, so that a setting is to blame."""
    files = _files_of(error)
    raising = _folders("hydra", "lightning", "omegaconf", "torch.optim")
    return bool(files) and _is_inside(files[-1], *raising) and not raised_in_user_code(error)


def _restores_a_checkpoint(error: BaseException) -> bool:
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(
        code.co_filename.endswith("checkpoint_connector.py") and re.match("_?(restore|resume)", code.co_name)
        for code in frames
    )


def _files_of(error: BaseException) -> list[str]:
    return [frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)]


def _folders(*names: str) -> list[str]:
    return [os.path.dirname(str(sys.modules[name].__file__)) for name in names if name in sys.modules]


def _is_inside(file: str, *folders: str) -> bool:
    return file.startswith(("<", *(f"{folder}{os.sep}" for folder in folders)))
