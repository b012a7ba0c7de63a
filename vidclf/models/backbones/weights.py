"""A backbone's weights: found by name or path, fetched, and verified before they are used."""

import hashlib
import pickle
import re
import sys
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from vidclf.errors import VidclfError

SUFFIXES = (".pth", ".pt", ".safetensors")


def find_weights(name: str, weights: str | Path) -> WeightsEnum | Path:
    """Return the torchvision weights of model `name` that are called `weights`, or the file at that path.

    Raises:
        VidclfError: `weights` is neither, or the file is not there.
    """
    published = get_model_weights(name).__members__
    if str(weights) in published:
        return published[str(weights)]
    path = Path(weights).expanduser()
    if path.suffix not in SUFFIXES:
        raise VidclfError(
            f"backbone.weights={weights}: allowed for {name} are {', '.join(published)}, "
            f"a file ({', '.join(SUFFIXES)}), or null for random weights."
        )
    if not path.is_file():
        raise VidclfError(f"backbone.weights={weights}: there is no such file.")
    return path


def fetch(weights: WeightsEnum) -> None:
    """Download the file of torchvision's `weights` to torch's hub folder if it is not there, and verify it.

    Raises:
        VidclfError: the file cannot be downloaded, or is not the one its name promises.
    """
    fetch_file(weights.url)


def fetch_file(url: str, allowed: bool = True) -> Path:
    """Return the file of a URL in torch's hub folder, verified; download it if it is not there and that is allowed.

    Raises:
        VidclfError: the file cannot be downloaded, or is not the one its name promises.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.exists():
        if not allowed:
            raise VidclfError(
                f"{path.name} is not in {path.parent}, and nothing is fetched for a name that comes from a run. If you "
                "know where the run comes from, pass trust=true; or put the file into that folder."
            )
        _download(url, path)
    verify_hash(path)
    return path


def _download(url: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written under another name and then renamed, so several processes may do this at once.
        torch.hub.download_url_to_file(url, str(path), _promised_hash(path), progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network (URLError is an OSError); another hash
        raise VidclfError(
            f"{path.name} is not in {path.parent} and cannot be fetched from {url}: {error}. "
            f"Put the file into that folder, or set backbone.weights=null for random weights."
        ) from error


def verify_hash(path: Path) -> None:
    """Compare a file's SHA-256 with the hexadecimal digits that end its name (`vgg16-397923af.pth`), if any.

    torch compares them while it downloads, and never again.

    Raises:
        VidclfError: they differ.
    """
    promised = _promised_hash(path)
    if promised is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(promised):
        raise VidclfError(
            f"{path}: the file's SHA-256 begins with {digest[: len(promised)]} and its name says "
            f"{promised}; it is cut short, damaged, or another file. Delete it and fetch it again."
        )


def _promised_hash(path: Path) -> str | None:
    match = re.search(r"-([0-9a-f]{8,})$", path.stem)
    return match[1] if match else None


def load_weights(network: nn.Module, path: Path, unused: Collection[str] = ()) -> None:
    """Fill every parameter and buffer of `network` from the state dict in `path`.

    Args:
        network: changed in place.
        path: a verified file.
        unused: names the file may hold that the network has no use for.

    Raises:
        VidclfError: the file cannot be read as a state dict, or names or shapes differ from the network's.
    """
    state = _with_current_names(read_state_dict(path))
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (
        RuntimeError,
        ValueError,
    ) as error:  # other shapes; MNASNet wants the version that `torch.save` keeps
        raise VidclfError(f"{path}: these are weights of another network. {error}") from error
    unknown = [name for name in unexpected if name not in unused]
    if missing or unknown:
        raise VidclfError(
            f"{path}: these are weights of another network: {len(missing)} names missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}. Choose the backbone.name they were trained with."
        )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a `.safetensors` file or in one written by `torch.save`, by name.

    Raises:
        VidclfError: the file is cut short or damaged, or holds something else.
    """
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise VidclfError(
            f"{path}: cannot be read as a state dict; it is cut short, damaged, or holds more than tensors. "
            f"Fetch it again, or save it with torch.save(model.state_dict(), ...)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise VidclfError(
            f"{path}: holds no state dict (names with a tensor each) but {_describe(state)}. "
            f"Save the backbone's own with torch.save(model.state_dict(), ...)."
        )
    return state


def _load_pickle(path: Path) -> object:
    return torch.load(path, map_location="cpu", weights_only=True)


def _describe(state: object) -> str:
    names = f" with {', '.join(map(str, list(state)[:5]))}" if isinstance(state, dict) else ""
    return f"a {type(state).__name__}{names}"


def _with_current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, in place, what torchvision's DenseNet files call `norm.1` and its code `norm1`.

    In place, because `torch.save` keeps the versions of the layers in an attribute of the dict.
    """
    for name in list(state):
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)] = state.pop(name)
    return state


def verify_finite(network: nn.Module, weights: str) -> None:
    """Raise a VidclfError where a parameter of `network` is not a finite number.

    torchvision's `IMAGENET1K_FEATURES` of VGG16, for one, has NaN wherever it was not trained.
    """
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise VidclfError(
                f"backbone.weights={weights}: {name} holds numbers that are not finite. "
                f"Choose other weights, or a backbone.layer before it."
            )
