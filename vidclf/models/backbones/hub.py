"""Files of models on the Hugging Face Hub: found on this machine, or fetched where that is allowed."""

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vidclf.errors import VidclfError

DESCRIPTIONS = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
SAFE = ("model.safetensors", "open_clip_model.safetensors")
PICKLED = ("pytorch_model.bin", "open_clip_pytorch_model.bin")  # read as tensors only
SHARDED = ("model.safetensors.index.json", "model-*-of-*.safetensors")


def check_local(name: str) -> None:
    """Raise VidclfError if a name of a model, or of its folder, climbs: one that a run holds may come from anyone."""
    if ".." in name:
        raise VidclfError(f"backbone.name={name}: a name with `..` in it is refused. Give the folder's own path.")


def folder_at(name: str) -> Path:
    """Return the path that a name would be, whatever it holds: it may be too long, or no user's home."""
    return Path(os.path.expanduser(name))


def find_folder(name: str, fetch: bool) -> Path:
    """Return the folder that holds a model's description and weights: the one at that path, or the Hub's copy.

    Args:
        name: of a folder, or `owner/model` with an optional `@revision`.
        fetch: whether what is not on this machine may be fetched.

    Raises:
        VidclfError: it is neither, or its files cannot be had.
    """
    check_local(name)
    folder = folder_at(name)
    if os.path.isdir(folder):
        return folder
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        there = folder.parent.glob("*/config.json") if os.path.isdir(folder.parent) else ()
        near = sorted(str(path.parent) for path in there)
        raise VidclfError(
            f"backbone.name={name}: there is no such folder, and a model of the Hub is called owner/model. "
            f"Folders with a config.json beside it: {', '.join(near[:5]) or 'none'}."
        )
    with _as_sentences(name, fetch):
        return _snapshot(name, fetch)


def _snapshot(name: str, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, _, revision = name.partition("@")

    def get(*weights: str, local: bool) -> Path | None:
        patterns = [*DESCRIPTIONS, *weights]
        found = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns, local_files_only=local)
        )
        whole = (found / DESCRIPTIONS[0]).exists() and any(any(found.glob(pattern)) for pattern in weights)
        return found if whole else None

    with contextlib.suppress(LocalEntryNotFoundError):
        if found := get(*SAFE, *SHARDED, *PICKLED, local=True):
            return found
    if fetch and (found := get(*SAFE, *SHARDED, local=False) or get(*PICKLED, local=False)):
        return found
    if fetch:
        raise VidclfError(f"{name}: it has no config.json, or none of {', '.join((*SAFE, *PICKLED))}.")
    raise LocalEntryNotFoundError(name)


def find_file(repository: str, filenames: Sequence[str], fetch: bool) -> Path:
    """Return the first of `filenames` that a model of the Hub has.

    Raises:
        VidclfError: it has none, or it cannot be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = repository.partition("@")

    def get(filename: str, local: bool) -> Path:
        return Path(hf_hub_download(repository, filename, revision=revision or None, local_files_only=local))

    with _as_sentences(repository, fetch):
        for filename in filenames:
            with contextlib.suppress(LocalEntryNotFoundError):
                return get(filename, local=True)
        if not fetch:
            raise LocalEntryNotFoundError(repository)
        for filename in filenames:
            try:
                return get(filename, local=False)
            except LocalEntryNotFoundError:  # no network
                raise
            except EntryNotFoundError:
                continue
    raise VidclfError(f"{repository}: it has none of {', '.join(filenames)}. Give the weights as a file.")


def weights_in(folder: Path) -> Path:
    """Return the one file of weights in a folder.

    Raises:
        VidclfError: it holds none, or several that could be it.
    """
    named = [folder / name for name in (*SAFE, *PICKLED) if (folder / name).is_file()]
    found = named or sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pth", ".pt"))
    if not found or (not named and len(found) > 1):
        what = ", ".join(path.name for path in found) or "none"
        raise VidclfError(f"{folder}: it must hold one file of weights, such as {SAFE[0]}; it holds {what}.")
    return found[0]


@contextlib.contextmanager
def _as_sentences(name: str, fetch: bool) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    remedy = (
        f"Put its files into a folder on this machine (hf download {name} --local-dir FOLDER, wherever there is a "
        "network) and name that folder or its file; see the README, Encoders."
    )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of each try; we say what came of them
    try:
        yield
    except GatedRepoError as error:
        raise VidclfError(
            f"{name}: its weights are gated: accept the terms on the model's page, then hf auth login. {remedy}"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise VidclfError(f"{name}: the Hub knows no model of that name, or hides it from you. {remedy}") from error
    except LocalEntryNotFoundError as error:
        if fetch:
            raise VidclfError(f"{name}: not on this machine, and the Hub cannot be reached. {remedy}") from error
        raise VidclfError(
            f"{name}: not on this machine, and nothing is fetched for a name that comes from a run (backbone.fetch). "
            f"If you know where the run comes from, pass trust=true. {remedy}"
        ) from error
    except EntryNotFoundError:
        raise
    except OSError as error:  # no network, a full disk, whatever the Hub answers
        raise VidclfError(
            f"{name}: it cannot be fetched ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            f"{remedy}"
        ) from error
