"""`vidclf VERB key=value ...`: all that happens before a verb starts, and the one way in which it ends.

The configuration is composed, applied to a run's where the verb starts from one, and checked for unknown keys and for
trust. Only then is `vidclf/VERB.py` imported, and its `run(config, run)` called.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidclf import CONF, __version__

INTERRUPTED, TERMINATED = 130, 143  # exit statuses after Ctrl-C and after SIGTERM


def main() -> None:
    """Run the verb that the command line names, and exit with its status."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in ("--help", "-h", "help"):
        print(usage())
    elif verb == "--version":
        print(__version__)
    elif verb not in verbs():
        sys.exit(f"vidclf: {verb} is no verb; there are {', '.join(verbs())}. See vidclf --help.")
    elif status := call(verb, arguments):
        sys.exit(status)


def verbs() -> dict[str, str]:
    """Return every verb, and what it does: the first line of its YAML."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(Path(CONF).glob("*.yaml"))}
    return {name: text.partition("\n")[0].partition(": ")[2].strip() for name, text in texts.items()}


def usage() -> str:
    """Return what `vidclf --help` prints."""
    lines = [f"  {name:10}{does}" for name, does in verbs().items()]
    return "\n".join(
        [
            "vidclf VERB key=value ...\n",
            *lines,
            "\nExample: vidclf train experiment=demo head=linear sampling.rate_hz=5",
            "`vidclf VERB --help` lists the groups and keys.",
        ]
    )


def call(verb: str, arguments: list[str]) -> int:
    """Run a verb under Hydra; return the exit status: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
    import hydra

    from vidclf.run.config import HYDRA, name_folders, prepare_arguments
    from vidclf.system.ranks import die_with_rank_zero, is_launched_externally, is_rank_zero, shut_down

    failures: list[Exception] = []
    die_with_rank_zero()
    before = signal.signal(signal.SIGTERM, _terminate)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's own printer
    try:
        typed = name_folders(verb, arguments)
        sys.argv[1:] = prepare_arguments(verb, typed)
        if is_launched_externally() and not is_rank_zero():  # rank zero has the folder
            sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=."]
        hydra.main(config_path=CONF, config_name=verb, **HYDRA)(_job(verb, typed, failures))()
    except (KeyboardInterrupt, SystemExit) as end:
        is_terminated = isinstance(end, SystemExit) and end.code == TERMINATED
        # Lightning makes a SystemExit of Ctrl-C.
        if isinstance(end, SystemExit) and not (is_terminated or isinstance(end.__context__, KeyboardInterrupt)):
            raise
        if is_rank_zero():
            print(f"{'Terminated' if is_terminated else 'Interrupted'}. What was written is kept.", file=sys.stderr)
        return TERMINATED if is_terminated else INTERRUPTED
    except Exception as error:
        report(error)
        failures.append(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    shut_down(status=int(bool(failures)))
    return int(bool(failures))


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)


def _job(verb: str, typed: list[str], failures: list[Exception]) -> Callable[[Any], None]:
    """Return the job that Hydra runs, once or for each job of a sweep.

    It reports its errors itself, so that one job of a sweep does not end the others, and sees the command line as it
    was typed, because Lightning starts the other processes of a run with it.
    """

    def job(cfg: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from vidclf.run.config import as_yaml, configure, is_sweep, output_folder
        from vidclf.run.sweep import write_failure
        from vidclf.system.machine import keep_memory, limit_threads
        from vidclf.system.messages import message_for
        from vidclf.system.ranks import die_with_parent
        from vidclf.system.terminal import quiet_lightning

        if multiprocessing.current_process().name.startswith("LokyProcess"):  # joblib's outlive a killed sweep
            die_with_parent()
        sys.argv[1:] = [verb, *typed]
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are relative to it, whatever hydra.job.chdir says
        keep_memory()  # before the first tensor, in each process that a launcher starts
        try:
            _check_sweep(cfg.trainer)
            config, run = configure(cfg, verb, typed)
            if "--cfg" in typed:
                print(as_yaml(config), end="")
                return
            limit_threads()
            module = importlib.import_module(f"vidclf.{verb}")
            quiet_lightning()  # after it is imported: it sets its own levels then
            module.run(config, run)
        except Exception as error:
            report(error)
            failures.append(error)
            if is_sweep():  # the others go on; the sweep's end finds this file
                write_failure(output_folder(), message_for(error) or f"{type(error).__name__}: {error}")

    return job


def _check_sweep(trainer: Any) -> None:
    """Raise VidclfError if a sweep would start with several devices, or its launcher without a sweep."""
    from hydra.core.hydra_config import HydraConfig

    from vidclf.errors import VidclfError
    from vidclf.run.config import is_sweep

    launcher = HydraConfig.get().runtime.choices.get("sweep")
    if not is_sweep():
        if launcher:
            raise VidclfError(f"sweep={launcher}: it starts the jobs of a sweep, and this is one job. Add -m.")
        return
    devices = str(trainer.get("devices", 1))
    if devices not in ("1", "[0]") and not (devices == "auto" and trainer.get("accelerator") == "cpu"):
        raise VidclfError(
            f"trainer.devices={devices}: each process of a sweep would run the whole sweep again. Use "
            "trainer.devices=1 (for several jobs at once: sweep=local_parallel or sweep=slurm), or start each job "
            "without -m."
        )


def report(error: Exception) -> None:
    """Print one sentence for an error that a person can act on, and the stack trace for a mistake in code."""
    from vidclf.system.messages import message_for
    from vidclf.system.ranks import prefix_of_errors
    from vidclf.system.text import sanitize

    prefix = prefix_of_errors(error)
    if prefix is None:
        return
    if isinstance(error, BrokenPipeError):  # the reader of our lines has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    message = message_for(error)
    if message is None:
        traceback.print_exception(error)
    else:
        print(sanitize(f"{prefix}{message}", keep="\n\t"), file=sys.stderr)
