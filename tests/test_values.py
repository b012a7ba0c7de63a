"""Settings are of the types that constructors state, or a sentence names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from vidclf.errors import VidclfError
from vidclf.run.config import CONF
from vidclf.run.values import check_settings, check_types, fits

NAN = float("nan")


@pytest.mark.parametrize(
    ("annotation", "fitting", "other"),
    [
        (int, [0, -1, 2**63 - 1], [2**63, True, 0.5, "1", None, [1]]),
        (float | int, [0.5, 1, float("inf")], [NAN, True, "x", None, [0.5]]),
        (bool, [True], [1, "true", None]),
        (str | Path, ["x", Path("x"), ""], [1, None, ["x"], "a\0b"]),
        (int | None, [1, None], ["x"]),
        (float | torch.Tensor, [0.5], ["x", [0.5]]),
        (Sequence[int], [[1, 2], (), []], [[1, "x"], "12", 1, {}]),
        (tuple[float, float], [[0.9, 0.99]], ["x", 0.9]),
        (Literal["a", "b"], ["a", "c"], [1, None]),
        (dict[str, int], [{"a": 1}], [[1], "x"]),
        (None, [None], [0]),
        (Any, [1, "x", None, {}], []),
        (pytest.Item, [1, "x"], []),
    ],
)
def test_plain_data_fits_an_annotation_or_does_not(annotation: Any, fitting: list[Any], other: list[Any]):
    assert [value for value in fitting if not fits(value, annotation)] == []
    assert [value for value in other if fits(value, annotation)] == []


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "vidclf.models.heads.mlp.MLP", "dropout": NAN}, "head.dropout=nan: must be float | int."),
        ({"_target_": "vidclf.models.heads.mlp.MLP", "widths": "x"}, "head.widths=x: must be collections.abc.Sequence"),
        ({"_target_": "vidclf.data.sampling.Rate", "rate_hz": None}, "sampling.rate_hz=None: must be float | int."),
        ({"_target_": "vidclf.models.backbones.torchvision_models.ImageBackbone", "name": 1}, "backbone.name=1: must"),
        ({"_target_": "torch.optim.Adam", "lr": "x"}, "optimizer.lr=x: must be"),
        (
            {"best": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "mode": 1}},
            "callbacks.best.mode=1: must be str.",
        ),
        ({"mixup": 0.5}, "mixup=0.5: no class says what it is for."),
    ],
)
def test_a_value_of_another_type_is_named_by_its_key(node: dict[str, Any], message: str):
    with pytest.raises(VidclfError) as caught:
        check_types(node, Path(CONF))
    assert message in str(caught.value)


def test_settings_of_no_stage_have_types_too():
    check_settings({"seed": 0, "layer_decay": 1, "num_threads": None, "store": {"root": "x", "draws": 4}, "other": []})
    for key, value in (("seed", "x"), ("batch_size", 0.5), ("num_threads", []), ("layer_decay", NAN), ("store", 1)):
        with pytest.raises(VidclfError, match=rf"^{key}=.*: must be"):
            check_settings({key: value})
    with pytest.raises(VidclfError, match=r"store\.draws=x: must be int"):
        check_settings({"store": {"draws": "x"}})
