"""What a person chose in a run's configuration: the names of options, and their settings, without constructors."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vidclf.run.compatible import TRAINED_BY, TRAINER, flatten
from vidclf.run.config import CONF, MEASURED_KEYS, key_of, value_at

NAMED = ("dataset", "sampling", "backbone", "head")
SETTLED = ("backbone.precision",)  # by the machine, unless it is said
PLACES = ("dataset.root", "dataset.file", "dataset.lists", "split.lists")  # where data lie changes no score


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what may change a score, dotted, as text: `head: mlp`, `head.dropout: 0.5`, `seed: 0`."""
    chosen: dict[str, str] = {}
    for key in TRAINED_BY:
        node = config.get(key)
        if isinstance(node, Mapping) and node:
            chosen[key] = option_of(key, node)
        elif node is None or node == {}:
            chosen[key] = "none"
        below = flatten(node, key) if isinstance(node, Mapping) else ({} if node is None else {key: node})
        chosen |= {name: str(value) for name, value in below.items() if not _is_constructor(name)}
    trainer = config.get("trainer")
    if isinstance(trainer, Mapping):
        chosen |= {f"trainer.{key}": str(trainer.get(key)) for key in ("max_epochs", *TRAINER)}
    return {key: value for key, value in chosen.items() if key not in PLACES and not key.startswith(MEASURED_KEYS)}


def chosen_settings(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, str]:
    """Return those of the choices that a person made: in `overrides`, or where an experiment differs from conf/.

    Stages by which runs are always told apart are named, whoever chose them.
    """
    given, usual = {*map(key_of, overrides)}, _usual_choices(config)
    made = settings_of(config)
    return {key: value for key, value in made.items() if key in (*NAMED, *given) or value != usual.get(key)}


def option_of(group: str, node: Mapping[str, Any]) -> str:
    """Return the name of the option that a node was composed from, or that of a class of one's own."""
    target = str(node.get("_target_"))
    same = [(name, own) for name, own in _options(group) if own.get("_target_") == target]
    if not same:
        return target.rpartition(".")[2]
    return max(same, key=lambda option: sum(node.get(key) == value for key, value in option[1].items()))[0]


def varying_settings(choices: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys by which some differ; a setting of some options alone, where those that have it differ."""
    keys = [*dict.fromkeys(key for one in choices for key in one)]
    varied = [key for key in keys if len({one[key] for one in choices if key in one}) > 1]
    groups = {key for key in varied if "." not in key}
    some = [key for key in keys if key not in varied and any(key not in one for one in choices)]
    return [key for key in keys if key in varied or (key in some and key.partition(".")[0] not in groups)]


def _usual_choices(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the choices of conf/: the options that train.yaml names, and the settings of those that `config` has."""
    top: Any = OmegaConf.to_container(OmegaConf.load(Path(CONF, "train.yaml")), resolve=False)
    named = {group: name for entry in top["defaults"] if isinstance(entry, dict) for group, name in entry.items()}
    nodes = {key: config.get(key) for key in (*TRAINED_BY, "trainer")}
    options = {
        key: dict(_options(key)).get(option_of(key, node), {})
        for key, node in nodes.items()
        if isinstance(node, Mapping)
    }
    settled = {key: str(value_at(config, key)) for key in SETTLED}
    return {**settings_of({**top, **options}), **settled, **named}


def _is_constructor(name: str) -> bool:
    return name.rpartition(".")[2].startswith("_")


@cache
def _options(group: str) -> list[tuple[str, dict[str, Any]]]:
    paths = sorted(Path(CONF, group).glob("*.yaml"))
    loaded: list[tuple[str, Any]] = [(path.stem, OmegaConf.to_container(OmegaConf.load(path))) for path in paths]
    return [(name, own) for name, own in loaded if isinstance(own, dict)]
