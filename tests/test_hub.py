"""Models of the Hugging Face Hub: what is on this machine is used, what is not is fetched or told."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import errors

from vidclf.errors import VidclfError
from vidclf.models.backbones.hub import find_file, find_folder, weights_in


class Response:
    """What the Hub's errors tell of."""

    status_code, headers, text = 403, {}, ""
    request = None


def raised(kind: type[Exception]) -> Exception:
    try:
        return kind("told", response=Response())
    except TypeError:
        return kind("told")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[bool]]:
    """`hub(error)` answers with it, or with a file, where the network is asked; the list tells when that was."""

    def answer(error: type[Exception] | None = None, cached: bool = False) -> list[bool]:
        asked: list[bool] = []

        def get(*_: object, local_files_only: bool, **__: object) -> str:
            if local_files_only and not cached:
                raise errors.LocalEntryNotFoundError("not here")
            if not local_files_only:
                asked.append(True)
                if error:
                    raise raised(error)
            for name in ("config.json", "model.safetensors"):
                (tmp_path / name).touch()
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", get)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", get)
        return asked

    return answer


FINDERS = [lambda fetch: find_folder("owner/model", fetch), lambda fetch: find_file("owner/model", ["a", "b"], fetch)]


@pytest.mark.parametrize("find", FINDERS)
def test_what_is_on_this_machine_asks_no_network(find: Callable, hub: Callable[..., list[bool]], tmp_path: Path):
    asked = hub(cached=True)
    assert find(True) == find(False) == tmp_path
    assert not asked


@pytest.mark.parametrize("find", FINDERS)
def test_what_is_not_here_is_fetched_only_where_it_may_be(
    find: Callable, hub: Callable[..., list[bool]], tmp_path: Path
):
    asked = hub()
    with pytest.raises(VidclfError, match=r"owner/model: not on this machine.*comes from a run.*trust=true"):
        find(False)
    assert not asked
    assert find(True) == tmp_path
    assert asked


@pytest.mark.parametrize("find", FINDERS)
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.GatedRepoError, "its weights are gated: accept the terms on the model's page, then hf auth login"),
        (errors.RepositoryNotFoundError, "the Hub knows no model of that name, or hides it"),
        (errors.HFValidationError, "the Hub knows no model of that name"),
        (errors.LocalEntryNotFoundError, "not on this machine, and the Hub cannot be reached"),
        (ConnectionError, r"it cannot be fetched \(told\)"),
    ],
)
def test_what_the_hub_refuses_is_a_sentence_that_says_where_files_go(
    find: Callable, error: type[Exception], sentence: str, hub: Callable[..., list[bool]]
):
    hub(error)
    with pytest.raises(VidclfError, match=rf"owner/model: {sentence}[\s\S]*--local-dir FOLDER"):
        find(True)


@pytest.mark.parametrize("name", ["../model", "owner/..", "a/../b", ".."])
def test_a_name_that_climbs_is_refused(name: str, hub: Callable[..., list[bool]]):
    with pytest.raises(VidclfError, match=r"a name with `\.\.` in it is refused"):
        find_folder(name, True)


@pytest.mark.parametrize(
    "name",
    ["model", "a/b/c", "/nowhere/model", "./model", "~/nowhere", "~nobody/x", "https://a.b/c", "x\0y", "x" * 5000],
)
def test_a_folder_that_is_not_there_is_a_sentence(name: str, hub: Callable[..., list[bool]]):
    asked = hub()
    with pytest.raises(VidclfError, match=r"there is no such folder, and a model of the Hub is called owner/model"):
        find_folder(name, True)
    assert not asked


def test_folders_beside_one_that_is_not_there_are_named(tmp_path: Path):
    (tmp_path / "videomae").mkdir()
    (tmp_path / "videomae" / "config.json").touch()
    with pytest.raises(VidclfError, match=rf"beside it: {tmp_path}/videomae"):
        find_folder(f"{tmp_path}/videomea", True)


def test_a_folder_holds_one_file_of_weights(tmp_path: Path):
    with pytest.raises(VidclfError, match=r"it must hold one file of weights, .*; it holds none"):
        weights_in(tmp_path)
    (tmp_path / "a.pth").touch()
    assert weights_in(tmp_path).name == "a.pth"
    (tmp_path / "b.pth").touch()
    with pytest.raises(VidclfError, match=r"it holds a\.pth, b\.pth"):
        weights_in(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weights_in(tmp_path).name == "model.safetensors"
