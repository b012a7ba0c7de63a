"""Settings are of the types that constructors state, or a sentence names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from vidclf.command.verbs import read_verb, settings_in, verbs
from vidclf.errors import VidclfError
from vidclf.run.config import CONF
from vidclf.run.values import KINDS, check_settings, check_types, fits, name_of

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
        ({"_target_": "vidclf.models.heads.mlp.MLP", "dropout": NAN}, "head.dropout=nan: must be a number."),
        (
            {"_target_": "vidclf.models.heads.mlp.MLP", "widths": "x"},
            "head.widths=x: must be a list (each item a whole number).",
        ),
        ({"_target_": "vidclf.data.sampling.Rate", "rate_hz": None}, "sampling.rate_hz=None: must be a number."),
        ({"_target_": "vidclf.models.backbones.torchvision_models.ImageBackbone", "name": 1}, "backbone.name=1: must"),
        ({"_target_": "torch.optim.Adam", "lr": "x"}, "optimizer.lr=x: must be"),
        (
            {"best": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "mode": 1}},
            "callbacks.best.mode=1: must be text.",
        ),
        ({"mixup": 0.5}, "mixup=0.5: no class says what it is for."),
    ],
)
def test_a_value_of_another_type_is_named_by_its_key(node: dict[str, Any], message: str):
    with pytest.raises(VidclfError) as caught:
        check_types(node, Path(CONF))
    assert message in str(caught.value)


def test_settings_of_no_stage_have_types_too():
    store = {"root": "x", "draws": 4}
    check_settings({"seed": 0, "layer_decay": 1, "num_threads": None, "store": store, "other": []}, "train")
    check_settings({"check": {"page": None, "strict": True, "alike": 0.5}, "out": None}, "check")
    for key, value in (
        ("seed", "x"),
        ("batch_size", 0.5),
        ("num_threads", []),
        ("layer_decay", NAN),
        ("store", 1),
        ("batch_size", 0),
    ):
        with pytest.raises(VidclfError, match=rf"^{key}=.*: must be"):
            check_settings({key: value}, "evaluate")
    with pytest.raises(VidclfError, match=r"store\.draws=x: must be a whole number"):
        check_settings({"store": {"draws": "x"}}, "train")
    with pytest.raises(VidclfError, match=r"store\.root=: must not be empty"):
        check_settings({"store": {"root": ""}}, "train")
    with pytest.raises(VidclfError, match=r"check\.strict=yes: must be true or false"):
        check_settings({"check": {"strict": "yes"}}, "check")


@pytest.mark.parametrize("verb", verbs())
def test_a_setting_that_may_be_null_says_what_else_it_may_be(verb: str):
    types = read_verb(verb).types
    assert {kind for text in types.values() for kind in text.split(" | ")} <= {*KINDS}
    assert [key for key, (default, _) in settings_in(verb).items() if default == "null" and key not in types] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float | int, "a number"),
        (int | None, "a whole number or null"),
        (Sequence[int], "a list (each item a whole number)"),
        (Literal["mean", "max"], "one of mean, max"),
        (str | Path, "text"),
    ],
)
def test_a_type_is_said_in_words(annotation: Any, words: str):
    assert name_of(annotation) == words


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        (
            {"_target_": "my_model.Changes"},
            "head._target_=my_model.Changes: there is no module my_model, neither installed",
        ),
        ({"_target_": "json"}, "head._target_=json: a module, not a class or function. Write json.NAME."),
        ({"_target_": "torch.optim.Adem"}, "Did you mean Adam"),
        (
            {"_target_": "vidclf.models.heads.mlp.MLP", "dropot": 0.1},
            "head.dropot: MLP takes no dropot. Did you mean dropout?",
        ),
        ({"_target_": "vidclf.models.heads.mlp.MLP", "scaling": "max"}, "Did you mean scaling=max?"),
        ({"_target_": "vidclf.models.heads.mlp.MLP", "widths": 512}, "Write head.widths=[512]."),
    ],
)
def test_a_class_that_is_not_there_or_takes_no_such_argument_is_a_sentence(node: dict[str, Any], sentence: str):
    with pytest.raises(VidclfError, match=r".*") as caught:
        check_types(node, Path(CONF), "head")
    assert sentence in str(caught.value)
