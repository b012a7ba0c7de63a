"""A checkpoint of a stranger is read as data: what does not fit is a sentence, before torch makes anything of it."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vidclf.errors import VidclfError
from vidclf.run.checkpoints import FORMAT, check_optimizers, read_checkpoint

DESCRIPTION = {"format": FORMAT, "class_names": ["A", "B"], "config": {}, "split_fingerprint": "", "weights_hash": ""}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, fused=True),
    "amsgrad": lambda parameters: torch.optim.AdamW(parameters, amsgrad=True),
    "sgd": lambda parameters: torch.optim.SGD(parameters, momentum=0.9, fused=True),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, centered=True),
}


def make(**changed: Any) -> dict[str, Any]:
    content = {"epoch": 1, "global_step": 3, "state_dict": {"a": torch.zeros(2, 3)}, "callbacks": {"x": {"y": 1}}}
    return content | {"vidclf": DESCRIPTION, "pytorch-lightning_version": "2.6.6"} | changed


def described(**changed: Any) -> dict[str, Any]:
    return make(vidclf={**DESCRIPTION, **changed})


def read(content: Any, folder: Path) -> dict[str, Any]:
    torch.save(content, folder / "last.ckpt")
    return read_checkpoint(folder / "last.ckpt")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (make(state_dict={1: torch.zeros(1)}), "weights are not tensors"),
        (make(state_dict={"a": "x"}), "weights are not tensors"),
        (make(state_dict={"a": torch.zeros(1).expand(10**9)}), "a is not a plain tensor"),
        (make(state_dict={"a": torch.zeros(2, 2).to_sparse()}), r"it names torch\._utils _rebuild_sparse_tensor"),
        (make(state_dict={"a": torch.zeros(2, device="meta")}), "it names torch._utils _rebuild_meta"),
        (make(state_dict={"a": torch.zeros(2, dtype=torch.complex64)}), "a is not a plain tensor"),
        (make(optimizer_states=[{"state": {0: {"step": torch.zeros(1).expand(9)}}}]), "step is not a plain tensor"),
        (make(epoch=-1), "no such epoch"),
        (make(global_step=2**70), "no such epoch"),
        (make(callbacks={"a": {"\ud800": 1}}), "UnicodeEncodeError"),
        (make(**{"pytorch-lightning_version": ""}), "InvalidVersion"),
        (described(class_names=["A", "A"]), "classes are not unique names"),
        (described(class_names=["A", None]), "classes are not unique names"),
        (described(class_names=["A", "\ud800"]), "UnicodeEncodeError"),
        (described(split_digest=1), "a value has another type"),
        (described(weights_hash=None), "a value has another type"),
        (make(a=bytearray(9)), "it names __builtin__ bytearray"),
    ],
)
def test_content_that_training_does_not_write_is_a_sentence(content: Any, reason: str, tmp_path: Path):
    assert read(make(), tmp_path)["state_dict"].keys() == {"a"}
    with pytest.raises(VidclfError, match=rf"last\.ckpt: not a checkpoint of vidclf, or damaged \(.*{reason}"):
        read(content, tmp_path)


def test_names_with_bytes_that_are_not_utf8_are_read(tmp_path: Path):
    assert read(described(class_names=["caf\udce9"]), tmp_path)["vidclf"]["class_names"] == ["caf\udce9"]


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path):
    plain = io.BytesIO()
    torch.save(make(state_dict={"a": torch.zeros(10**6)}), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(tmp_path / "a.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(VidclfError, match="it is compressed"):
        read_checkpoint(tmp_path / "a.ckpt")


def trained(name: str) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
    """Return an optimiser after a step, and its state."""
    network = nn.Sequential(nn.Linear(3, 2), nn.Conv2d(1, 2, 3).to(memory_format=torch.channels_last))
    optimizer = OPTIMIZERS[name](network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return OPTIMIZERS[name](network.parameters()), optimizer.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_an_optimiser_fits_itself(name: str):
    fresh, state = trained(name)
    state["param_groups"][0]["lr"] = 0.123  # a schedule changes it
    check_optimizers({"optimizer_states": [state]}, [fresh], Path("x"))


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor[:1],
        lambda tensor: tensor.flatten(),
        lambda tensor: tensor.double(),
        lambda tensor: tensor.flatten()[:1].expand(tensor.shape[::-1]).T,
        lambda tensor: tensor.T.contiguous().T,
        lambda tensor: torch.tensor(1),
        lambda tensor: "x",
    ],
)
def test_a_state_of_another_form_never_reaches_the_optimiser(change: Callable[[Any], Any], name: str):
    fresh, state = trained(name)
    key = "exp_avg" if name == "adam" else "momentum_buffer"
    state["state"][0][key] = change(state["state"][0][key])
    with pytest.raises(VidclfError, match=rf"x: not a checkpoint .*optimizer: {key} does not fit parameter 0"):
        check_optimizers({"optimizer_states": [state]}, [fresh], Path("x"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state["param_groups"][0].update(fused=None), "optimizer: fused=None, and now True"),
        (lambda state: state["param_groups"][0].update(amsgrad=True), "optimizer: amsgrad=True, and now False"),
        (lambda state: state["param_groups"][0].update(lr="x"), "optimizer: lr=x"),
        (lambda state: state["param_groups"][0].update(betas=[0.9]), "optimizer: betas="),
        (lambda state: state["param_groups"][0].update(params=[0]), "optimizer: other parameters"),
        (lambda state: state["param_groups"].append({}), "zip"),
        (lambda state: state["state"][0].pop("exp_avg"), "optimizer: other values"),
        (lambda state: state["state"].update({9: state["state"][0]}), "optimizer: no parameter 9"),
        (lambda state: state.pop("state"), "KeyError"),
    ],
)
def test_other_switches_of_an_optimiser_are_refused(change: Callable[[Any], Any], reason: str):
    fresh, state = trained("adam")
    change(state)
    with pytest.raises(VidclfError, match=reason):
        check_optimizers({"optimizer_states": [state]}, [fresh], Path("x"))
