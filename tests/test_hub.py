"""Models of the Hugging Face Hub: local files are used, missing ones are fetched or reported."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from vidclf.errors import VidclfError
from vidclf.models.backbones.hub import find_file, find_folder, reading_folder, weights_in


class Response:
    """A stand-in for the response in the Hub's errors."""

    status_code, headers, text = 403, {}, ""
    request = None


def raised(kind: type[Exception]) -> Exception:
    try:
        return kind("reason", response=Response())
    except TypeError:
        return kind("reason")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bool]]:
    """`hub(error)` makes each use of the network raise the error or return the folder; it returns the list of uses."""

    def set_up(error: type[Exception] | None = None, cached: bool = False) -> list[bool]:
        requests: list[bool] = []

        def get(*_: object, local_files_only: bool, **__: object) -> str:
            if local_files_only and not cached:
                raise errors.LocalEntryNotFoundError("not here")
            if not local_files_only:
                requests.append(True)
                if error:
                    raise raised(error)
            for name in ("config.json", "model.safetensors"):
                (tmp_path / name).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", get)
        return requests

    return set_up


FINDERS = [
    lambda fetch: find_folder("owner/model", fetch),
    lambda fetch: find_file("owner/model", ["a.bin", "model.safetensors"], fetch).parent,
]


@pytest.mark.parametrize("find", FINDERS)
def test_local_files_are_used_without_the_network(find: Callable, hub: Callable[..., list[bool]], tmp_path: Path):
    requests = hub(cached=True)
    assert find(True) == find(False) == tmp_path
    assert not requests


@pytest.mark.parametrize("find", FINDERS)
def test_missing_files_are_fetched_only_if_that_is_allowed(
    find: Callable, hub: Callable[..., list[bool]], tmp_path: Path
):
    requests = hub()
    with pytest.raises(VidclfError, match=r"owner/model: not on this machine.*trust=true"):
        find(False)
    assert not requests
    assert find(True) == tmp_path
    assert requests


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.GatedRepoError, "its weights are gated"),
        (errors.RepositoryNotFoundError, "the Hub has no such model"),
        (errors.HFValidationError, "the Hub has no such model"),
        (errors.LocalEntryNotFoundError, ".*the Hub cannot be reached"),
        (ConnectionError, r"cannot be fetched \(reason\)"),
    ],
)
def test_an_error_of_the_hub_says_why_and_where_to_put_the_files(
    find: Callable, error: type[Exception], reason: str, hub: Callable[..., list[bool]]
):
    hub(error)
    with pytest.raises(VidclfError, match=rf"owner/model: {reason}[\s\S]*--local-dir FOLDER"):
        find(True)


@pytest.mark.parametrize("name", ["../model", "owner/..", "a/../b", ".."])
def test_a_name_with_two_dots_is_refused(name: str, hub: Callable[..., list[bool]]):
    with pytest.raises(VidclfError, match=r"`\.\.` in it is refused"):
        find_folder(name, True)


@pytest.mark.parametrize(
    "name",
    ["model", "a/b/c", "/nowhere/model", "./model", "~/nowhere", "~nobody/x", "https://a.b/c", "x\0y", "x" * 5000],
)
def test_a_missing_folder_is_an_error_and_is_not_looked_up_on_the_hub(name: str, hub: Callable[..., list[bool]]):
    requests = hub()
    with pytest.raises(VidclfError, match=r"no such folder.*owner/model"):
        find_folder(name, True)
    assert not requests


def test_the_error_for_a_missing_folder_names_its_neighbours(tmp_path: Path):
    (tmp_path / "videomae").mkdir()
    (tmp_path / "videomae" / "config.json").touch()
    with pytest.raises(VidclfError, match=rf"beside it: {tmp_path}/videomae"):
        find_folder(f"{tmp_path}/videomea", True)


def test_a_folder_must_hold_one_file_of_weights(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"holds none"):
        weights_in(tmp_path)
    (tmp_path / "a.pth").touch()
    assert weights_in(tmp_path).name == "a.pth"
    (tmp_path / "b.pth").touch()
    with pytest.raises(VidclfError, match=r"holds a\.pth, b\.pth"):
        weights_in(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path).name == "model.safetensors"


def test_a_models_folder_is_read_without_the_network(tmp_path: Path):
    with reading_folder(tmp_path):
        assert huggingface_hub.is_offline_mode()
        with pytest.raises(errors.OfflineModeIsEnabled):
            huggingface_hub.HfApi().model_info("owner/model")
    assert not huggingface_hub.is_offline_mode()


@pytest.mark.parametrize("error", [ValueError("a value"), KeyError("key"), RecursionError(), OSError("a file")])
def test_what_a_folder_gets_wrong_is_a_sentence(error: Exception, tmp_path: Path):
    with (
        pytest.raises(VidclfError, match=rf"its files do not describe .*{type(error).__name__}"),
        reading_folder(tmp_path),
    ):
        raise error
