"""Dotted keys in nested plain data, and the overrides of a command line that set them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from vidclf.errors import VidclfError


def key_of(override: str) -> str:
    """Return the key or group that an override sets: `head.dropout` for `+head.dropout=0.3`."""
    return override.partition("=")[0].lstrip("+~")


def is_override(argument: str) -> bool:
    """Return whether a word of the command line sets or deletes a key."""
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def is_deletion(argument: str) -> bool:
    """Return whether a word deletes a key that is not Hydra's."""
    return argument.startswith("~") and not key_of(argument).startswith("hydra")


def sets_run_key(key: str, chosen: set[str]) -> bool:
    """Return whether a key sets one of a run's settings, which Hydra does not know unless its group was chosen too."""
    group, dot, _ = key.partition(".")
    return bool(dot) and group not in {"hydra", "logger", *chosen}


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value at a dotted key of nested mappings; None where there is none."""
    parent, name = parent_of(config, key)
    return parent.get(name)


def escape(text: str) -> str:
    """Return text that OmegaConf reads as `text`, although it holds `${...}`."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def escaped(value: Any) -> Any:
    """Return plain data with every string escaped for OmegaConf."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value


def as_yaml(config: Mapping[str, Any]) -> str:
    """Return a configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(escaped(config)), resolve=True)


def parent_of(config: Any, key: str, make: bool = False) -> tuple[dict[str, Any], str]:
    """Return the mapping that holds a dotted key (empty where there is none), and the last part of the key."""
    *parents, last = key.split(".")
    for name in parents:
        child = config.get(name)
        if make and child is None:
            child = config[name] = {}
        if make and not isinstance(child, dict):
            raise VidclfError(f"{key}: {name} is {child!r} and has no settings of its own.")
        config = child if isinstance(child, dict) else {}
    return config, last


def has(config: Mapping[str, Any], key: str) -> bool:
    """Return whether nested mappings have a dotted key."""
    parent, name = parent_of(config, key)
    return name in parent


def has_own_options(words: Sequence[str]) -> bool:
    """Return whether a command line names a folder with options of the user's."""
    return bool({word.partition("=")[0] for word in words} & {"-cd", "--config-dir", "hydra.searchpath"})
