"""A backbone's weights: found by name or path, fetched, and verified before they are used."""

import hashlib
import pickle
import re
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vidclf.errors import VidclfError

SUFFIXES = (".pth", ".pt", ".safetensors", ".bin")


def weights_file(weights: str | Path, names: Iterable[str]) -> Path:
    """Return the path of a file of weights, which must exist; `names` are what `weights` may be instead of a path."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise VidclfError(
            f"backbone.weights={weights}: no such file. Allowed are {', '.join(names)}, a file "
            f"({', '.join(SUFFIXES)}), or null for random weights."
        )
    return path


def fetch_file(url: str, allowed: bool) -> Path:
    """Return the file of a URL in torch's hub folder, verified; download it if it is not there and that is allowed."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.exists():
        if not allowed:
            raise VidclfError(
                f"{path.name} is not in {path.parent}, and nothing is fetched for a name that comes from a run. If you "
                "know where the run comes from, pass trust=true; or put the file into that folder."
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # It writes under another name and then renames, so several processes may do this at once.
            torch.hub.download_url_to_file(url, str(path), _hash_in_name(path), progress=sys.stderr.isatty())
        except (OSError, RuntimeError) as error:  # no network (URLError is an OSError); another hash
            raise VidclfError(
                f"{path.name} is not in {path.parent} and cannot be fetched from {url}: {error}. "
                f"Put the file into that folder, or set backbone.weights=null for random weights."
            ) from error
    verify_hash(path)
    return path


def verify_hash(path: Path) -> None:
    """Raise VidclfError if a file's name ends in hexadecimal digits (`vgg16-397923af.pth`), and not its SHA-256's.

    torch compares them only while it downloads.
    """
    expected = _hash_in_name(path)
    if expected is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(expected):
        raise VidclfError(
            f"{path}: the file's SHA-256 begins with {digest[: len(expected)]} and its name says {expected}; "
            "it is cut short, damaged, or another file. Delete it and fetch it again."
        )


def _hash_in_name(path: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,})$", path.stem)
    return match[1] if match else None


def load_weights(network: nn.Module, path: Path, unused: Collection[str] = ()) -> None:
    """Fill every parameter and buffer of `network`, in place, from the state dict in `path`.

    All names and shapes must be the network's, except for the names in `unused`, which it may lack.
    """
    state = read_state_dict(path)
    for name in list(state):  # torchvision's DenseNet files say `norm.1` where its code says `norm1`
        # In place, because `torch.save` keeps the versions of the layers in an attribute of the dict.
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)] = state.pop(name)
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:  # other shapes; MNASNet needs the versions of its layers
        raise VidclfError(f"{path}: these are weights of another network. {error}") from error
    unknown = [name for name in unexpected if name not in unused]
    if missing or unknown:
        raise VidclfError(
            f"{path}: these are weights of another network: {len(missing)} names missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}. Choose the backbone.name they were trained with."
        )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a `.safetensors` file or in one written by `torch.save`, by name.

    Pickles are read as tensors only: no code in them runs.
    """
    try:
        is_safe = path.suffix == ".safetensors"
        state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise VidclfError(
            f"{path}: cannot be read as a state dict; it is cut short, damaged, or holds more than tensors. "
            f"Fetch it again, or save it with torch.save(model.state_dict(), ...)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        keys = f" with {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
        raise VidclfError(
            f"{path}: holds no state dict (names with a tensor each) but a {type(state).__name__}{keys}. "
            f"Save the backbone's with torch.save(model.state_dict(), ...)."
        )
    return state


def verify_finite(network: nn.Module, weights: str) -> None:
    """Raise VidclfError if a parameter of `network` is not finite.

    torchvision's `IMAGENET1K_FEATURES` of VGG16, for example, hold NaN in the layers that were not trained.
    """
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise VidclfError(
                f"backbone.weights={weights}: {name} holds numbers that are not finite. "
                f"Choose other weights, or a backbone.layer before it."
            )
