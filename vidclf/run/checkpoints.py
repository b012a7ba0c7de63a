"""Read a checkpoint as data from elsewhere: whatever does not fit is one sentence, before anything is made of it."""

import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor
from torch.optim import Optimizer

from vidclf.errors import VidclfError
from vidclf.run.trust import walk
from vidclf.system.text import sanitize

DESCRIPTION = "vidclf"  # the key in a checkpoint
FORMAT = 2  # of a description; the first had no number
# Classes of older runs, and where they are now.
MOVED = {
    "vidclf.data.datasets.ucf101.Official": "vidclf.data.splits.Official",
    "vidclf.evaluation.sheets.ViewSheets": "vidclf.evaluation.figures.ViewSheets",
}
DESCRIBED = {"class_names": list, "config": dict, "split_fingerprint": str, "weights_hash": str}  # required
# What a pickle of plain data and tensors names. torch would also call `bytearray(10**12)`.
PICKLED = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|parameter)|torch (\w+Storage|Size|device|[a-z]+\d*)"
    r"|collections (OrderedDict|Counter|defaultdict)|torch\.storage UntypedStorage|builtins set"
)
MAX_EPOCH = 2**31


class UnreadableError(VidclfError):
    """A file is not a checkpoint of vidclf, or is damaged."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error into an UnreadableError: pickle, zip, torch and unexpected values raise many kinds."""
    try:
        yield
    except VidclfError:
        raise
    except Exception as error:
        reason = sanitize(str(error))[:200] if type(error) is ValueError else type(error).__name__
        problem = f"not a checkpoint of vidclf, or damaged ({reason})"
        raise UnreadableError(f"{path}: {problem}. Train the run again.") from error


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint; with `mmap` its weights stay on the disk.

    Raises:
        UnreadableError: it is not a checkpoint of vidclf, or is damaged.
        VidclfError: another version of vidclf wrote it.
    """
    with reading(path):
        _check_file(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        _check_content(checkpoint)
        description = checkpoint[DESCRIPTION]
    if description.get("format") != FORMAT:
        raise VidclfError(
            f"{path}: written by {'another' if 'format' in description else 'the first'} version of vidclf (format "
            f"{description.get('format', 1)}; this version reads {FORMAT}). Use that version, or train again."
        )
    for config in (description["config"], description.get("asked")):
        for _, node in walk(config if isinstance(config, dict) else {}):
            if isinstance(node, dict) and isinstance(node.get("_target_"), str):
                node["_target_"] = MOVED.get(node["_target_"], node["_target_"])
    return checkpoint


def _check_file(path: Path) -> None:
    """Raise ValueError if the file would take more memory than its size, or names more than tensors and plain data."""
    with zipfile.ZipFile(path) as archive:
        _require(sum(entry.file_size for entry in archive.infolist()) <= path.stat().st_size, "it is compressed")
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(name)):
            named = opcode.name != "GLOBAL" or PICKLED.fullmatch(str(argument))
            _require(bool(named), f"it names {argument}")


def _check_content(checkpoint: Any) -> None:
    """Raise an error unless a checkpoint has the form that training gives it."""
    description = checkpoint[DESCRIPTION]
    types: list[tuple[Any, type]] = [(description[field], kind) for field, kind in DESCRIBED.items()]
    keys = {"epoch": int, "global_step": int, "state_dict": dict, "callbacks": dict}
    types += [(checkpoint[key], kind) for key, kind in keys.items() if key in checkpoint or key != "global_step"]
    types += [(description.get("split_digest", ""), str)]
    types += [(state, dict) for state in checkpoint["callbacks"].values()]
    _require(all(isinstance(value, kind) for value, kind in types), "a value has another type")
    _require(all(0 <= int(checkpoint.get(key, 0)) < MAX_EPOCH for key in ("epoch", "global_step")), "no such epoch")
    Version(checkpoint.get("pytorch-lightning_version", "2"))
    for path, value in walk(checkpoint):
        for text in (path[-1], value):
            if isinstance(text, str):
                text.encode("utf-8", "surrogateescape")  # names of files may hold bytes that are not UTF-8
        if isinstance(value, Tensor):
            _require(_is_plain(value), f"{path[-1]} is not a plain tensor")
    weights, names = checkpoint["state_dict"], description["class_names"]
    _require(all(type(key) is str and isinstance(weights[key], Tensor) for key in weights), "weights are not tensors")
    _require(all(type(name) is str for name in names) and len({*names}) == len(names), "classes are not unique names")


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, on the CPU, of real numbers, and each of them in the file."""
    is_dense = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not is_dense or tensor.is_complex() or tensor.is_nested:
        return False
    return tensor.numel() * tensor.itemsize <= tensor.untyped_storage().nbytes()


def check_optimizers(checkpoint: Mapping[str, Any], optimizers: list[Optimizer], path: Path) -> None:
    """Raise VidclfError unless the states of optimisers fit those that train now; torch would not look.

    Values of another shape, stride or type corrupt the memory of a fused optimiser.
    """
    with reading(path):
        for state, optimizer in zip(checkpoint["optimizer_states"], optimizers, strict=True):
            groups, current = state["param_groups"], optimizer.state_dict()["param_groups"]
            for group, now in zip(groups, current, strict=True):
                _require(group.keys() == now.keys() and group["params"] == now["params"], "optimizer: other parameters")
                for key in now.keys() - {"params"}:
                    _require(_is_alike(group[key], now[key]), f"optimizer: {key}={group[key]}, and now {now[key]}")
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            _require(len({frozenset(values) for values in state["state"].values()}) <= 1, "optimizer: other values")
            for number, values in state["state"].items():
                _require(type(number) is int and 0 <= number < len(parameters), f"optimizer: no parameter {number}")
                for name, value in values.items():
                    is_fitting = _fits(value, parameters[number])
                    _require(is_fitting, f"optimizer: {name} does not fit parameter {number}")


def _is_alike(old: Any, new: Any) -> bool:
    """Return whether an optimiser's option is the same, or a number that a schedule may have changed."""
    if isinstance(new, list | tuple):
        return isinstance(old, list | tuple) and len(old) == len(new) and all(map(_is_alike, old, new))
    if isinstance(new, bool) or not isinstance(new, int | float):
        return type(old) is type(new) and old == new
    return isinstance(old, int | float) and not isinstance(old, bool)


def _fits(value: Any, parameter: Tensor) -> bool:
    """Return whether a value of an optimiser's state is a number, or laid out in memory as its parameter is."""
    if not isinstance(value, Tensor):
        return value is None or type(value) in (int, float)
    if value.ndim == 0 and parameter.ndim:
        return value.dtype in (torch.float32, torch.float64)
    strides = [
        [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
        for tensor in (value, parameter)
    ]
    return value.shape == parameter.shape and value.dtype == parameter.dtype and strides[0] == strides[1]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
