"""Change a run's configuration by a command line."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from vidclf import CONF
from vidclf.command.keys import escaped, has, is_deletion, is_override, key_of, parent_of, sets_run_key, value_at
from vidclf.command.mistakes import unknown_setting
from vidclf.command.verbs import GLOBAL_GROUPS, known_keys, read_conf, settings_of
from vidclf.errors import VidclfError
from vidclf.run.trust import check_plain, check_trusted, walk

# Where to write, which machine to use, what a table may open: always from this command line, never from a run.
CALL_KEYS = (
    *("store.root", "logger", "num_threads", "num_workers", "compile", "trust", "resume", "dataset.anywhere"),
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy"),
    *("trainer.default_root_dir", "trainer.model_registry"),
)
FETCH = "backbone.fetch"  # a run cannot ask for a download
TORCHVISION = "vidclf.models.backbones.torchvision_models."  # whose older runs do not say whether to fetch
CHECKPOINTS = "${hydra:runtime.output_dir}/checkpoints"  # where a run's callbacks write
DEMOS = {  # that write themselves to their root, and their YAML
    "vidclf.data.datasets.demo.Demo": "dataset/demo",
    "vidclf.data.datasets.demo.films.DemoEvents": "dataset/demo_events",
}


def apply_to_run(
    run: Mapping[str, Any], composed: Mapping[str, Any], overrides: Sequence[str], typed: Sequence[str]
) -> dict[str, Any]:
    """Return a run's configuration changed by a command line: keys are set, groups composed anew, `~key` deleted.

    Args:
        run: plain data from a checkpoint; its strings are taken literally.
        composed: what Hydra made of conf/ and `overrides`, not resolved.
        overrides: those of this job, as Hydra lists them.
        typed: the command line, which tells `key=` from `+key=` and says what is deleted.

    Raises:
        VidclfError: the run is not plain data or not trusted; a key is set or deleted that it does not have.
    """
    check_plain(run)
    run = {**settings_of("train"), **run}  # an older version's run lacks newer settings
    set_here = [key for key in map(key_of, overrides) if key not in GLOBAL_GROUPS]
    deleted = [key_of(argument) for argument in typed if is_deletion(argument)]
    of_verb = [key for key in (*({*composed} - known_keys("train")), *CALL_KEYS) if has(composed, key)]
    _check_overrides(run, composed, typed, set_here, deleted)
    rest, trust = deepcopy(dict(run)), composed["trust"] is True
    # A person who names the model, or trusts the run, allows what the run fetched to be fetched again.
    fetches = value_at(run, FETCH) is True or str(value_at(run, "backbone._target_")).startswith(TORCHVISION)
    fetch = fetches and (trust or "backbone.name" in set_here) and "backbone" not in set_here
    for key in (*of_verb, *CALL_KEYS, FETCH, *set_here, *deleted):
        parent, name = parent_of(rest, key)
        parent.pop(name, None)
    _redirect_output(rest, "")
    check_trusted(rest, Path(CONF), trust)
    applied = escaped(rest)
    if fetch:
        applied["backbone"]["fetch"] = True
    _redirect_output(applied, CHECKPOINTS)
    for key in (*of_verb, *set_here):
        parent, name = parent_of(applied, key, make=True)
        parent[name] = value_at(composed, key)
    for key in deleted:
        parent, name = parent_of(applied, key)
        parent.pop(name, None)
    return applied


def _check_overrides(
    run: Mapping[str, Any],
    composed: Mapping[str, Any],
    typed: Sequence[str],
    set_here: Sequence[str],
    deleted: Sequence[str],
) -> None:
    """Raise VidclfError for an override of a key that the run does not have."""
    for argument in filter(is_override, typed):
        key, value = key_of(argument), argument.partition("=")[2]
        if key == "experiment" and value != "null":
            raise VidclfError(
                f"{argument}: a run keeps its own settings. Name the settings that should differ instead."
            )
        known = argument[0] in "+~" or key in CALL_KEYS or not sets_run_key(key, {*set_here}) or has(run, key)
        if not known:
            raise VidclfError(f"The run has other settings: {unknown_setting(argument, run)}")
        if key in deleted and not (has(run, key) or has(composed, key)):
            raise VidclfError(f"{argument}: there is no such setting to delete.")


def _redirect_output(run: Mapping[str, Any], checkpoints: str) -> None:
    """Point the run's callbacks and demo data at this job's folder, not at the paths stored in its checkpoint."""
    for path, node in walk(run):
        if path[0] == "callbacks" and isinstance(node, dict) and "dirpath" in node:
            node["dirpath"] = checkpoints
        if isinstance(node, dict) and (name := DEMOS.get(str(node.get("_target_")))):
            node["root"] = read_conf(name)["root"]
