"""`vidclf VERB key=value ...`: all that happens before a verb starts, and the one way in which it ends.

The configuration is composed, applied to a run's where the verb starts from one, and checked for unknown keys and for
trust. Only then is `vidclf/VERB.py` imported, and its `run(config, run)` called.
"""

import importlib
import multiprocessing
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidclf import CONF, __version__
from vidclf.command.help import help_on
from vidclf.command.mistakes import did_you_mean
from vidclf.command.verbs import read_verb, verbs
from vidclf.errors import VidclfError
from vidclf.system.text import redact

INTERRUPTED, TERMINATED = 130, 143  # exit statuses after Ctrl-C and after SIGTERM
HELP = ("--help", "-h", "help")


@dataclass
class Progress:
    """The state of this process's jobs when it ends: the errors, and the command that goes on."""

    go_on: str
    failures: list[Exception] = field(default_factory=list)


def main() -> None:
    """Run the verb that the command line names, and exit with its status."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in HELP or {*HELP} & {*arguments}:
        print(_help_or_exit(verb if verb not in HELP else "".join(arguments[-1:])))
    elif verb == "--version":
        print(__version__)
    elif verb not in verbs():
        meant = f" Put a verb before it: vidclf train {redact(verb)}." if "=" in verb else did_you_mean(verb, verbs())
        sys.exit(f"vidclf: {redact(verb)} is no verb.{meant} There are {', '.join(verbs())}. See vidclf --help.")
    elif status := call(verb, arguments):
        sys.exit(status)


def _help_or_exit(topic: str) -> str:
    try:
        return help_on(topic)
    except VidclfError as error:
        sys.exit(f"vidclf: {error}")


def call(verb: str, arguments: list[str]) -> int:
    """Run a verb under Hydra; return the exit status: 0, 1 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
    import hydra

    from vidclf.run.config import HYDRA, explain
    from vidclf.run.words import name_folders, prepare_arguments
    from vidclf.system.ranks import die_with_rank_zero, is_launched_externally, is_rank_zero, shut_down
    from vidclf.system.terminal import say

    progress = Progress(shlex.join(["vidclf", verb, *arguments]))
    die_with_rank_zero()
    before = signal.signal(signal.SIGTERM, _terminate)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's own printer
    typed = arguments
    try:
        typed = name_folders(verb, arguments)
        sys.argv[1:] = prepare_arguments(verb, typed)
        if is_launched_externally() and not is_rank_zero():  # rank zero has the folder
            sys.argv += ["hydra.output_subdir=null", "hydra.run.dir=."]
        hydra.main(config_path=CONF, config_name=verb, **HYDRA)(_job(verb, typed, progress))()
    except (KeyboardInterrupt, SystemExit) as end:
        is_terminated = isinstance(end, SystemExit) and end.code == TERMINATED
        # Lightning makes a SystemExit of Ctrl-C.
        if isinstance(end, SystemExit) and not (is_terminated or isinstance(end.__context__, KeyboardInterrupt)):
            raise
        how = "Terminated" if is_terminated else "Interrupted"
        say(f"{how}. What was written is kept. To go on: {progress.go_on}")
        return TERMINATED if is_terminated else INTERRUPTED
    except Exception as error:
        report(explain(error, verb, typed))
        progress.failures.append(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    shut_down(status=int(bool(progress.failures)))
    return int(bool(progress.failures))


def _terminate(*_: object) -> None:
    sys.exit(TERMINATED)


def _job(verb: str, typed: list[str], progress: Progress) -> Callable[[Any], None]:
    """Return the job that Hydra runs, once or for each job of a sweep.

    It reports its errors itself, so that one job of a sweep does not end the others, and sees the command line as it
    was typed, because Lightning starts the other processes of a run with it.
    """

    def job(cfg: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from vidclf.run.config import as_yaml, check_keys, configure, explain, is_sweep, output_folder
        from vidclf.run.sweep import remove_unused, write_failure
        from vidclf.system.machine import keep_memory, limit_threads
        from vidclf.system.messages import message_for
        from vidclf.system.ranks import die_with_parent
        from vidclf.system.terminal import quiet_lightning

        if multiprocessing.current_process().name.startswith("LokyProcess"):  # joblib's outlive a killed sweep
            die_with_parent()
        sys.argv[1:] = [verb, *typed]
        os.chdir(HydraConfig.get().runtime.cwd)  # paths are relative to it, whatever hydra.job.chdir says
        if _may_name_own_classes(typed) and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # last, so that its files hide no installed module
        keep_memory()  # before the first tensor, in each process that a launcher starts
        try:
            _check_sweep(cfg.trainer)
            check_keys(cfg, verb)
            if "--cfg" not in typed:
                _announce(cfg, verb)
            config, run = configure(cfg, verb, typed)
            if "--cfg" in typed:
                print(redact(as_yaml(config)), end="")
                return
            limit_threads()
            module = importlib.import_module(f"vidclf.{verb}")
            quiet_lightning()  # after it is imported: it sets its own levels then
            module.run(config, run)
        except (KeyboardInterrupt, SystemExit):
            progress.go_on = _how_to_go_on(verb, typed) or progress.go_on
            if not is_sweep() and read_verb(verb).starts_from == "resume":
                remove_unused(output_folder())
            raise
        except Exception as error:
            error = explain(error, verb, typed)
            report(error)
            progress.failures.append(error)
            if is_sweep():  # the others go on; the sweep's end finds this file
                write_failure(output_folder(), message_for(error) or f"{type(error).__name__}: {error}")
            elif read_verb(verb).starts_from == "resume":
                remove_unused(output_folder())

    return job


def _may_name_own_classes(typed: Sequence[str]) -> bool:
    """Return whether a person asks for classes of the current folder; a folder of a stranger's is not searched."""
    from vidclf.command.keys import has_own_options

    names = {word.lstrip("+").partition("=")[0] for word in typed}
    return "trust=true" in typed or any(name.endswith("_target_") for name in names) or has_own_options(typed)


def _announce(cfg: Any, verb: str) -> None:
    """Say what will be done and where its results will be, before torch is imported, which takes seconds."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vidclf.run.config import output_folder
    from vidclf.system.terminal import say

    facts, choices = read_verb(verb), HydraConfig.get().runtime.choices
    trains = facts.starts_from == "resume"
    named = cfg.resume if trains else cfg.get("run")
    if named is None:
        dataset, *others = (str(choices[stage]) for stage in facts.stages)
        what = f"{dataset} with {', '.join(others)}"
    else:
        what = ", ".join(named) if OmegaConf.is_list(named) else str(named)
    kept = str(output_folder() if trains else facts.keeps.format_map(cfg))
    folder = f"{os.getcwd()}{os.sep}"
    say(f"{verb}: {what}" + (f" -> {kept.removeprefix(folder)}" if kept else ""))


def _how_to_go_on(verb: str, typed: Sequence[str]) -> str:
    """Return the command that goes on with an interrupted training or sweep; empty for other verbs."""
    from hydra.core.hydra_config import HydraConfig

    from vidclf.run.config import CALL_KEYS, is_sweep, key_of, output_folder

    if read_verb(verb).starts_from != "resume":
        return ""
    if is_sweep():
        others = [word for word in typed if not word.startswith("hydra.sweep.dir=")]
        return shlex.join(["vidclf", verb, *others, f"hydra.sweep.dir={HydraConfig.get().sweep.dir}"])
    folder = output_folder()
    if not (folder / "checkpoints" / "last.ckpt").is_file():
        return ""
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    here = [word for word in typed if key_of(word) in CALL_KEYS and key_of(word) != "resume"]  # the run does not say it
    if any("_target_=" in word for word in typed) and "trust=true" not in here:
        here.append("trust=true")
    return shlex.join(["vidclf", verb, f"resume={shown}", *here])


def _check_sweep(trainer: Any) -> None:
    """Raise VidclfError if a sweep would start with several devices, or its launcher without a sweep."""
    from hydra.core.hydra_config import HydraConfig

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
        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    else:
        print(sanitize(f"{prefix}{redact(message)}", keep="\n\t"), file=sys.stderr)
