"""`vidclf VERB key=value ...`, and the one wrapper around every verb's `main`."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError
from vidclf.system.errors import is_of_ones_own, is_refusal
from vidclf.system.ranks import (
    end_with_the_first,
    is_first,
    is_loss_of_another,
    is_started_from_outside,
    reports_the_error,
    shut_down,
)
from vidclf.system.text import sanitize

RUN = "run=runs/demo/2026-01-31_12-00-00-000000"
# Each with what it does, and an example of its arguments.
VERBS = {
    "train": (
        "fit a head on train, choose on val; leaves a run's folder",
        "experiment=demo head=linear sampling.rate_hz=5",
    ),
    "evaluate": ("score a run, or several: vidclf evaluate run=DIR [part=test]", f"{RUN} aggregation=mode"),
    "predict": ("label videos with a run: vidclf predict run=DIR source=PATH", f"{RUN} source=my_videos/"),
    "compare": (
        "tables of runs, with how sure their differences are: vidclf compare DIR... or a sweep's folder",
        "runs/demo/2026-01-31_12-00-00-000000 runs/demo_gru/2026-01-31_12-05-00-000000",
    ),
    "check": (
        "look through a data set first: its files, its split, what could cheat",
        "dataset=folder dataset.root=my_videos dataset.group=parent split=grouped",
    ),
    "extract": (
        "fill the feature store, so that later runs start at once",
        "dataset.root=data/UCF-101 backbone=resnet50",
    ),
    "demo": ("train, evaluate and predict on the embedded demo, in two minutes", ""),
}


class JobError(Exception):
    """A job of a sweep has failed, and has told why."""


def main() -> None:
    """Replace this process by `python -m vidclf.VERB ...`, so that whatever restarts it finds the verb."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in VERBS:
        os.execv(sys.executable, [sys.executable, "-m", f"vidclf.{verb}", *arguments])
    if verb in ("--help", "-h", "help"):
        print("vidclf VERB key=value ...\n")
        print("\n".join(f"  {name:10}{does}" for name, (does, _) in VERBS.items()))
        print(f"\nExample: vidclf train {VERBS['train'][1]}\n`vidclf VERB --help` lists the groups and keys.")
        return
    if verb == "--version":
        from vidclf import __version__

        print(__version__)
        return
    sys.exit(f"vidclf: {verb} is no verb; there are {', '.join(VERBS)}. See vidclf --help.")


def verb(job: Callable) -> Callable[[], None]:
    """Return the `main` of a verb: `job(cfg)` under Hydra, with errors as sentences and exit status 1."""
    import hydra
    from omegaconf import OmegaConf

    from vidclf.run.config import CONF, HYDRA, as_yaml, asked, name_folders, prepare

    name = Path(sys.modules[job.__module__].__file__ or "").stem
    register: Any = OmegaConf.register_resolver  # before OmegaConf 2.4 another one has its name
    register = register if "replace" in signature(register).parameters else OmegaConf.register_new_resolver
    register("or_else", lambda value, other: value or other, replace=True)
    register("numbers_to", lambda last: ",".join(map(str, range(1, last + 1))), replace=True)
    register("plain", lambda text: re.sub(r"[^\w.-]+", "-", text)[:200], replace=True)
    register("vidclf_example", lambda verb: VERBS[verb][1], replace=True)

    def show(cfg: Any) -> None:
        print(as_yaml(asked(cfg, name)[0]), end="")

    def run() -> None:
        failures: list[Exception] = []
        end_with_the_first()
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's printer
        try:
            given = name_folders(name, sys.argv[1:])
            sys.argv[1:] = [*prepare(name, given), *_beside_the_first()]
            noting = _noting(show if "--cfg" in given else job, failures, given)
            hydra.main(config_path=CONF, config_name=name, **HYDRA)(noting)()
        except (KeyboardInterrupt, SystemExit) as end:
            if isinstance(end, SystemExit) and not isinstance(end.__context__, KeyboardInterrupt):
                raise
            # Lightning makes a SystemExit of Ctrl-C.
            if is_first():
                print("Interrupted; what was written before is whole.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if not isinstance(error, JobError):  # which has told it itself
                report(error)
            failures.append(error)
        finally:
            _clear_up()
        _compare_the_sweep()
        shut_down(status=len(failures) and 1)
        if failures:
            sys.exit(1)

    return run


def _beside_the_first() -> list[str]:
    """Return what keeps a process that torchrun or SLURM has started beside the first one from writing a folder."""
    return ["hydra.output_subdir=null", "hydra.run.dir=."] if is_started_from_outside() and not is_first() else []


def _clear_up() -> None:
    from vidclf.run.sweep import remove_passing

    remove_passing()


def _compare_the_sweep() -> None:
    """Print what the jobs of a sweep of trainings came to, also where some have failed; never an error of its own."""
    from vidclf.run.sweep import folder_of_sweep

    if (folder := folder_of_sweep()) is None:
        return
    try:
        from vidclf.compare import show

        show([folder], "val")
    except VidclfError as error:
        print(sanitize(f"No table of the sweep: {error}"), file=sys.stderr)
    except Exception as error:
        report(error)


def _noting(job: Callable, failures: list[Exception], given: list[str]) -> Callable[[Any], None]:
    """Return `job`, reporting its errors itself, so that one job of a sweep does not end the others.

    It sees the command line as it was `given`: Lightning starts the other processes of a run with it.
    """

    @wraps(job)
    def caught(cfg: Any) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from vidclf.run.config import output_folder
        from vidclf.system.machine import keep_memory, limit_threads

        sys.argv[1:] = given
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are the caller's, whatever hydra.job.chdir says
        keep_memory()  # before the first tensor, in each process that a launcher starts
        limit_threads()
        try:
            _refuse_several_devices_in_a_sweep(cfg)
            job(cfg)
        except Exception as error:
            failures.append(error)
            report(error)
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # Hydra notes which job failed and goes on with the others
                reason = _sentence(error) or f"{type(error).__name__}: {error}"
                if HydraConfig.get().job.name == "train":
                    from vidclf.comparison.scored import note_failure

                    note_failure(output_folder(), reason)
                raise JobError(reason) from None  # whatever it was, a launcher's process can send this one

    return caught


def _refuse_several_devices_in_a_sweep(cfg: Any) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    devices = cfg.trainer.get("devices", 1)
    one = str(devices) in ("1", "[0]") or (str(devices) == "auto" and cfg.trainer.get("accelerator") == "cpu")
    if HydraConfig.get().mode is RunMode.MULTIRUN and not one:
        raise VidclfError(
            f"trainer.devices={devices} under -m: each process would run the whole sweep again. Sweep with "
            "trainer.devices=1 (several jobs at once: sweep=local_parallel or sweep=slurm), or call vidclf once for "
            "each job, without -m."
        )


def report(error: Exception) -> None:
    """Print one sentence for what the user can mend, the whole story for what is our mistake; once for all ranks."""
    if not reports_the_error():
        return
    if isinstance(error, BrokenPipeError):  # whoever read our lines has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    sentence = _sentence(error)
    if sentence is None:
        traceback.print_exception(error)
    else:
        print(sanitize(sentence, keep="\n\t"), file=sys.stderr)


def _sentence(error: BaseException) -> str | None:
    """Return what to say of an error that the user can mend; None for a mistake in some code."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    cause = error.__cause__
    if isinstance(error, InstantiationException) and cause is not None:
        if not isinstance(cause, TypeError | ImportError | AttributeError) or is_of_ones_own(cause):
            return _sentence(cause)
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return f"{error.filename or 'A file'}: no access ({error.strerror}). Mend that, or work in another folder."
    if type(error).__name__ == "TerminatedWorkerError":  # joblib's
        return (
            "A process of the sweep was killed (out of memory?), so all have stopped. What was written before is "
            "whole; the same command with hydra.sweep.dir=DIR goes on with what is missing. Fewer jobs at once: "
            "hydra.launcher.n_jobs=1"
        )
    if is_loss_of_another(error):
        return (
            "Another process of this run has ended (killed? out of memory?), so all have stopped. What was written "
            f"before is whole; go on with resume=DIR. ({str(error).splitlines()[0][:200]})"
        )
    if isinstance(error, HydraException) and re.search("hydra/launcher/(joblib|submitit)", str(error)):
        return f"{type(error).__name__}: {error}\nThe launchers of sweeps are an extra: pip install 'vidclf[sweep]'"
    if isinstance(error, HydraException) and "'head.scaling'" in str(error):
        return "head.scaling: scaling is a stage of its own before the head. Say scaling=auto, standard, max or none."
    if isinstance(error, VidclfError | HydraException | OmegaConfBaseException) or is_refusal(error):
        return f"{type(error).__name__}: {error}"
    return None
