"""`vidclf VERB key=value ...`, and the one wrapper around every verb's `main`."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path

VERBS = {
    "train": "fit a head on train, choose on val; leaves a run's folder",
    "evaluate": "score a run: vidclf evaluate run=DIR [part=test]",
    "predict": "label videos with a run: vidclf predict run=DIR source=PATH",
    "extract": "fill the feature store, so that later runs start at once",
    "demo": "train, evaluate and predict on the embedded demo, in two minutes",
}
EXAMPLES = {
    "train": "experiment=demo head=linear sampling.rate_hz=5",
    "evaluate": "run=runs/demo/2026-01-31_12-00-00-000000 aggregation=mode",
    "predict": "run=runs/demo/2026-01-31_12-00-00-000000 source=my_videos/",
    "extract": "dataset.root=data/UCF-101 backbone=resnet50",
}
LITERAL = (
    "run",
    "source",
    "resume",
)  # paths, taken as they are: Hydra's grammar has uses for = , ( ~ and spaces
PACKAGE = Path(__file__).parent
CONF = str(PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf")


def main() -> None:
    """Replace this process by `python -m vidclf.VERB ...`, so that whatever restarts it finds the verb."""
    verb, *arguments = sys.argv[1:] or ["--help"]
    if verb in VERBS:
        os.execv(sys.executable, [sys.executable, "-m", f"vidclf.{verb}", *arguments])
    if verb in ("--help", "-h", "help"):
        print("vidclf VERB key=value ...\n")
        print("\n".join(f"  {name:10}{does}" for name, does in VERBS.items()))
        print(f"\nExample: vidclf train {EXAMPLES['train']}\n`vidclf VERB --help` lists the groups and keys.")
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

    name = Path(sys.modules[job.__module__].__file__ or "").stem
    OmegaConf.register_new_resolver("or_else", lambda value, other: value or other, replace=True)
    OmegaConf.register_new_resolver("plain", lambda text: re.sub(r"[^\w.-]+", "-", text)[:200], replace=True)
    OmegaConf.register_new_resolver("vidclf_example", lambda verb: EXAMPLES[verb], replace=True)

    failures: list[Exception] = []

    @wraps(job)
    def caught(cfg: object) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            job(cfg)
        except Exception as error:
            failures.append(error)
            _report(error)
            if HydraConfig.get().mode is RunMode.MULTIRUN:  # Hydra notes which job failed and goes on with the others
                raise

    def run() -> None:
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, not Hydra's printer
        try:
            sys.argv[1:] = prepare_arguments(name, sys.argv[1:])
            hydra.main(config_path=CONF, config_name=name, version_base="1.3")(caught)()
        except KeyboardInterrupt:
            print("Interrupted; what was written is whole, and the same command goes on.", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            if error not in failures:
                _report(error)
            sys.exit(1)
        if failures:
            sys.exit(1)

    return run


def prepare_arguments(name: str, arguments: list[str]) -> list[str]:
    """Return arguments that Hydra understands: paths quoted, and behind `run=DIR` the run's own overrides."""
    quoted = [_quote(argument) for argument in arguments]
    runs = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    if name not in ("evaluate", "predict") or not runs:
        return quoted
    from vidclf.runs import saved_overrides

    return [*saved_overrides(Path(runs[-1]), explicit=arguments), *quoted]


def _quote(argument: str) -> str:
    key, equals, value = argument.partition("=")
    path_exists = key.startswith(("dataset.", "store.", "backbone.weights")) and Path(value).exists()
    if not equals or not value or not (key in LITERAL or path_exists):
        return argument
    from hydra.core.override_parser.types import Quote, QuotedString

    text = value.replace("${", r"\${")
    return f"{key}={QuotedString(text=text, quote=Quote.single).with_quotes()}"


def _report(error: BaseException) -> None:
    """Print one sentence for what the user can mend, the whole story for what is our mistake."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    from vidclf.errors import VidclfError

    mistake = error.__cause__ if isinstance(error, InstantiationException) else None
    if isinstance(mistake, VidclfError):
        error = mistake
    elif mistake is not None and not isinstance(mistake, TypeError | ImportError | AttributeError):
        traceback.print_exception(mistake)
        return
    if isinstance(error, BrokenPipeError):  # whoever read our lines has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif isinstance(error, VidclfError | HydraException | OmegaConfBaseException):
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
