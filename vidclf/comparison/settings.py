"""Names the settings of a run's configuration as the command line does: options and their values, no constructors."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from vidclf.run.compatible import TRAINED_BY, TRAINER, flatten
from vidclf.run.config import CONF, MEASURED_KEYS

# Where data lie, and whether files may be fetched, changes no score.
PATHS = ("dataset.root", "dataset.file", "dataset.lists", "split.lists", "backbone.fetch")


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that may change a score, dotted, as text: `head: mlp`, `head.dropout: 0.5`, `seed: 0`."""
    settings: dict[str, str] = {}
    for key in TRAINED_BY:
        node = config.get(key)
        if isinstance(node, Mapping) and node:
            settings[key] = option_of(key, node)
        elif node is None or node == {}:
            settings[key] = "none"
        below = flatten(node, key) if isinstance(node, Mapping) else ({} if node is None else {key: node})
        settings |= {name: str(value) for name, value in below.items() if not _is_constructor(name)}
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        settings |= {f"trainer.{key}": str(trainer.get(key)) for key in ("max_epochs", *TRAINER)}
    return {key: value for key, value in settings.items() if key not in PATHS and not key.startswith(MEASURED_KEYS)}


def defaults_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that the stages' constructors have and a configuration does not set, as text.

    The constructors are imported: the configuration must be one that this process has built already.
    """
    defaults: dict[str, str] = {}
    for key in TRAINED_BY:
        node = config.get(key)
        if isinstance(node, Mapping) and "_target_" in node:
            with suppress(ValueError):  # of a class in C, which does not say
                for name, parameter in signature(get_object(node["_target_"])).parameters.items():
                    if name not in node and isinstance(parameter.default, bool | int | float | str | None):
                        defaults[f"{key}.{name}"] = str(parameter.default)
    return {key: value for key, value in defaults.items() if key not in PATHS and not key.startswith(MEASURED_KEYS)}


def option_of(group: str, node: Mapping[str, Any]) -> str:
    """Return the name of the option in conf/ that a node was composed from, or of a user's class."""
    target = str(node.get("_target_"))
    same = [(name, option) for name, option in _options(group) if option.get("_target_") == target]
    if not same:
        return target.rpartition(".")[2]
    return max(same, key=lambda pair: sum(node.get(key) == value for key, value in pair[1].items()))[0]


def varying_settings(runs: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys with different values, and those that some runs lack although their option is the same."""
    keys = [*dict.fromkeys(key for settings in runs for key in settings)]
    varied = [key for key in keys if len({settings[key] for settings in runs if key in settings}) > 1]
    groups = {key for key in varied if "." not in key}
    partial = [key for key in keys if key not in varied and any(key not in settings for settings in runs)]
    return [key for key in keys if key in varied or (key in partial and key.partition(".")[0] not in groups)]


def _is_constructor(name: str) -> bool:
    return name.rpartition(".")[2].startswith("_")


@cache
def _options(group: str) -> list[tuple[str, dict[str, Any]]]:
    paths = sorted(Path(CONF, group).glob("*.yaml"))
    loaded: list[tuple[str, Any]] = [(path.stem, OmegaConf.to_container(OmegaConf.load(path))) for path in paths]
    return [(name, option) for name, option in loaded if isinstance(option, dict)]
