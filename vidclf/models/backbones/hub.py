"""Files of models on the Hugging Face Hub: found on this machine, or fetched where that is allowed.

Files that cannot be had are a VidclfError that says why, and where to put them.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidclf.errors import VidclfError

DESCRIPTIONS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
SAFE = ("model.safetensors", "open_clip_model.safetensors")
PICKLED = ("pytorch_model.bin", "open_clip_pytorch_model.bin")  # read as tensors only
SHARDED = ("model.safetensors.index.json", "model-*-of-*.safetensors")


def check_local(name: str) -> None:
    """Raise VidclfError if a model's name or folder contains `..`: names stored in a run may come from anyone."""
    if ".." in name:
        raise VidclfError(f"backbone.name={name}: a name with `..` in it is refused. Give the full path of the folder.")


@contextmanager
def reading_folder(folder: Path) -> Iterator[None]:
    """Read a model's folder without the network, whatever its files name; what they get wrong is a VidclfError."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    except VidclfError:
        raise
    except Exception as error:  # a library may raise anything for values that it cannot take
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise VidclfError(f"{folder}: its files do not describe a model that can be read ({reason}).") from error
    finally:
        constants.HF_HUB_OFFLINE = before


def folder_at(name: str) -> Path:
    """Return the path that a name would have as a folder; the name may be too long, or name an unknown user's home."""
    return Path(os.path.expanduser(name))


def find_folder(name: str, fetch: bool) -> Path:
    """Return the folder that holds a model's description and weights: the one at that path, or the Hub's copy.

    Args:
        name: of a folder, or `owner/model` with an optional `@revision`.
        fetch: whether missing files may be fetched.
    """
    check_local(name)
    folder = folder_at(name)
    if os.path.isdir(folder):
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        configs = folder.parent.glob("*/config.json") if os.path.isdir(folder.parent) else ()
        neighbours = sorted(str(path.parent) for path in configs)
        raise VidclfError(
            f"backbone.name={name}: no such folder, and a model of the Hub is named owner/model. "
            f"Folders with a config.json beside it: {', '.join(neighbours[:5]) or 'none'}."
        )
    return _snapshot(name, [(*SAFE, *SHARDED), PICKLED], DESCRIPTIONS, fetch)


def find_file(repository: str, filenames: Sequence[str], fetch: bool) -> Path:
    """Return the first of `filenames` that a model of the Hub has; with `fetch`, fetch it if necessary."""
    folder = _snapshot(repository, [(filename,) for filename in filenames], (), fetch)
    return next(folder / filename for filename in filenames if (folder / filename).exists())


def weights_in(folder: Path) -> Path:
    """Return the only file of weights in a folder; no such file, or several, are an error."""
    for path in (folder / name for name in (*SAFE, *PICKLED)):
        if path.is_file():
            return path
    candidates = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".pt"))
    if len(candidates) != 1:
        names = ", ".join(path.name for path in candidates) or "none"
        raise VidclfError(f"{folder}: must hold one file of weights, such as {SAFE[0]}; it holds {names}.")
    return candidates[0]


def _snapshot(name: str, choices: Sequence[Sequence[str]], descriptions: Sequence[str], fetch: bool) -> Path:
    """Return the folder with the first choice of weights that is on this machine, else of those on the Hub.

    A choice is a list of patterns, of which one file must exist. So must the first description; the others may.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it logs each try; we report the result
    repository, _, revision = name.partition("@")
    try:
        for local in (True, False) if fetch else (True,):
            for patterns in choices:
                wanted: dict[str, Any] = {"revision": revision or None, "allow_patterns": [*descriptions, *patterns]}
                try:
                    folder = Path(snapshot_download(repository, **wanted, local_files_only=local))
                except LocalEntryNotFoundError:
                    if local:
                        continue
                    raise
                is_described = not descriptions or (folder / descriptions[0]).exists()
                if is_described and any(any(folder.glob(pattern)) for pattern in patterns):
                    return folder
        if not fetch:
            raise LocalEntryNotFoundError(name)
    except (OSError, HFValidationError) as error:
        raise VidclfError(
            f"{name}: {_reason(error, fetch)}. Put its files into a folder on this machine (hf download {name} "
            "--local-dir FOLDER, where there is a network) and name it or its file; see vidclf/models/README.md."
        ) from error
    weights = ", ".join(pattern for patterns in choices for pattern in patterns)
    needed = f"{descriptions[0]}, or none of {weights}" if descriptions else f"file of {weights}"
    raise VidclfError(f"{name}: it has no {needed}. Choose another model, or give the weights as a file.")


def _reason(error: Exception, fetch: bool) -> str:
    """Return why a model's files cannot be had."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its weights are gated: accept the terms on the model's page, then hf auth login"
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return "the Hub has no such model, or hides it from you"
    if not isinstance(error, errors.LocalEntryNotFoundError):  # a full disk, any other answer of the Hub
        return f"cannot be fetched ({(str(error) or type(error).__name__).splitlines()[0]})"
    if fetch:
        return "not on this machine, and the Hub cannot be reached"
    return (
        "not on this machine, and nothing is fetched for a name that comes from a run (backbone.fetch). If you know "
        "where the run comes from, pass trust=true"
    )
