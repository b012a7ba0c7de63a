"""The heads, and the scaling of what they take in."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from vidclf.errors import VidclfError
from vidclf.models import scaling as scaling_module
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mlp import MLP
from vidclf.models.scaling import InputScaling

HEADS = [Linear, MLP]


@pytest.fixture
def features() -> Tensor:
    return 3 + 2 * torch.randn(40, 3, 8, generator=torch.Generator().manual_seed(0))


def test_the_linear_head_is_a_linear_function_of_the_mean_over_steps():
    head = Linear(2, 3)
    head.classifier.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    head.classifier.bias.data = torch.tensor([0.0, 0.5, 0.0])
    features = torch.tensor([[[1.0, 10.0], [3.0, 30.0]]])  # mean over S: 2, 20
    assert head(features).tolist() == [[2.0, 20.5, 22.0]]


def test_the_mlp_is_the_tutorials_network():
    with torch.device("meta"):
        head = MLP(25_088, 101)
    shapes = [tuple(module.weight.shape) for module in head.modules() if isinstance(module, nn.Linear)]
    assert shapes == [(1024, 25_088), (512, 1024), (256, 512), (128, 256), (101, 128)]
    assert sum(parameter.numel() for parameter in head.parameters()) == 26_393_189  # Keras's summary says so too
    assert [type(module).__name__ for module in head.hidden] == ["Linear", "ReLU", "Dropout"] * 4
    assert {module.p for module in head.hidden if isinstance(module, nn.Dropout)} == {0.5}


def test_the_mlp_starts_as_keras_does():
    torch.manual_seed(0)
    head = MLP(600, 100, widths=(300, 200))
    for layer in (module for module in head.modules() if isinstance(module, nn.Linear)):
        limit = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.99 * limit < layer.weight.abs().max() <= limit
        assert not layer.bias.any()


def test_the_mlp_computes_its_layers_in_order(features: Tensor):
    head = MLP(8, 5, widths=(7, 6), scaling="none").eval()
    first, second = (module for module in head.hidden if isinstance(module, nn.Linear))
    expected = features.mean(1)
    for layer in (first, second):
        expected = (expected @ layer.weight.T + layer.bias).clamp(min=0)
    expected = expected @ head.classifier.weight.T + head.classifier.bias
    torch.testing.assert_close(head(features), expected)


def test_dropout_is_drawn_in_training_only(features: Tensor):
    head = MLP(8, 5, scaling="none")
    assert not torch.equal(head(features), head(features))
    assert torch.equal(head.eval()(features), head(features))


def test_an_mlp_without_hidden_layers_is_linear(features: Tensor):
    head = MLP(8, 5, widths=(), scaling="none")
    torch.testing.assert_close(head(features), features.mean(1) @ head.classifier.weight.T)


@pytest.mark.parametrize("head_class", HEADS)
@pytest.mark.parametrize("scaling", ["max", "standard", "none"])
def test_a_view_alone_has_the_logits_it_has_in_a_batch(
    head_class: Callable[..., nn.Module], scaling: str, features: Tensor
):
    head = head_class(8, 5, scaling=scaling).eval()
    head.fit(features)
    alone = torch.cat([head(view[None]) for view in features])
    torch.testing.assert_close(head(features), alone)


@pytest.mark.parametrize("head_class", HEADS)
def test_bfloat16_features_give_float32_logits(head_class: Callable[..., nn.Module], features: Tensor):
    head = head_class(8, 5, scaling="max").eval()
    head.fit(features.bfloat16())
    assert torch.equal(head(features.bfloat16()), head(features.bfloat16().float()))
    assert head(features.bfloat16()).dtype == torch.float32


# Scaling


def test_max_divides_by_the_largest_training_number(features: Tensor):
    scaling = InputScaling(8, "max")
    scaling.fit(features)
    rows = torch.ones(2, 8)
    torch.testing.assert_close(scaling(rows), rows / max(features.flatten().tolist()))


def test_standard_is_scikit_learns_standard_scaler(features: Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scaling_module, "ROWS_AT_ONCE", 7)  # 120 rows: 17 pieces and a rest
    features[:, :, 2] = 0.1  # constant: only its mean is taken away
    features[:, :, 3] += 1e4  # a mean far above the deviation
    scaling = InputScaling(8, "standard")
    scaling.fit(features)
    rows = features.flatten(0, 1)
    expected = StandardScaler().fit(rows.numpy()).transform(rows.double().numpy())
    torch.testing.assert_close(scaling(rows), torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3)
    assert scaling(rows)[:, 2].abs().max() == 0


def test_none_changes_nothing_and_needs_no_fit(features: Tensor):
    assert torch.equal(InputScaling(8, "none")(features[:, 0]), features[:, 0])


@pytest.mark.parametrize("scaling", ["max", "standard"])
def test_training_features_may_be_a_mapped_file_of_bfloat16(scaling: str, features: Tensor, tmp_path: Path):
    half = features.bfloat16()
    (tmp_path / "features").write_bytes(half.view(torch.uint8).numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "features"), size=half.numel(), dtype=torch.bfloat16)
    from_file, from_memory = InputScaling(8, scaling), InputScaling(8, scaling)
    from_file.fit(mapped.view(half.shape))
    from_memory.fit(half.float())
    assert torch.equal(from_file(features[:, 0]), from_memory(features[:, 0]))


@pytest.mark.parametrize("scaling", ["max", "standard"])
def test_the_scale_is_saved_with_the_head(scaling: str, features: Tensor):
    head = MLP(8, 5, scaling=scaling).eval()
    head.fit(features)
    loaded = MLP(8, 5, scaling=scaling).eval()
    loaded.load_state_dict(head.state_dict())
    assert torch.equal(loaded(features), head(features))


@pytest.mark.parametrize("head_class", HEADS)
@pytest.mark.parametrize("scaling", ["max", "standard"])
def test_a_head_that_was_not_fitted_says_so(head_class: Callable[..., nn.Module], scaling: str, features: Tensor):
    head = head_class(8, 5, scaling=scaling)
    message = rf"scaling={scaling} has not seen the training features"
    with pytest.raises(VidclfError, match=message):
        head(features)
    head.load_state_dict(head_class(8, 5, scaling=scaling).state_dict())
    with pytest.raises(VidclfError, match=message):
        head(features)


@pytest.mark.parametrize("head_class", HEADS)
def test_features_of_another_width_are_refused(head_class: Callable[..., nn.Module]):
    head = head_class(8, 5, scaling="none")
    with pytest.raises(VidclfError, match=r"features of width 8 and got 9"):
        head(torch.ones(2, 1, 9))
    with pytest.raises(VidclfError, match=r"features of width 8 and got 9"):
        head.fit(torch.ones(2, 1, 9))


@pytest.mark.parametrize(
    ("scaling", "value", "message"),
    [
        ("max", 0.0, r"largest training feature is 0; it must be finite and above zero"),
        ("max", -2.0, r"largest training feature is -2;"),
        ("max", torch.nan, r"largest training feature is nan"),
        ("max", torch.inf, r"largest training feature is inf"),
        ("standard", torch.nan, r"8 of 8 dimensions hold numbers that are not finite"),
        ("standard", torch.inf, r"8 of 8 dimensions"),
    ],
)
def test_features_that_give_no_scale_are_refused(scaling: str, value: float, message: str):
    with pytest.raises(VidclfError, match=message):
        InputScaling(8, scaling).fit(torch.full((4, 1, 8), value))


def test_no_training_features_are_refused():
    with pytest.raises(VidclfError, match=r"no training features; the training split is empty"):
        InputScaling(8, "max").fit(torch.ones(0, 1, 8))


@pytest.mark.parametrize("head_class", HEADS)
def test_an_unknown_scaling_names_those_allowed(head_class: Callable[..., nn.Module]):
    with pytest.raises(VidclfError, match=r"head\.scaling=minmax: allowed are max, standard, none"):
        head_class(8, 5, scaling="minmax")
