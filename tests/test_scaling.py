"""Features are scaled before the head as configured; the scaling is fitted once and saved."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from verbs import SMALL, Outcome

from vidclf.errors import VidclfError
from vidclf.models import scaling as scaling_module
from vidclf.models.heads.linear import Linear
from vidclf.models.heads.mlp import MLP
from vidclf.models.heads.recurrent import LSTM
from vidclf.models.scaling import Scaling, resolve_scaling


@pytest.fixture
def features() -> Tensor:
    return 3 + 2 * torch.randn(40, 3, 8, generator=torch.Generator().manual_seed(0))


def fitted(method: str, features: Tensor) -> Scaling:
    scaling = Scaling(8, method)
    scaling.fit(features)
    return scaling


def test_max_divides_by_the_largest_training_number(features: Tensor):
    views = torch.ones(2, 1, 8)
    torch.testing.assert_close(fitted("max", features)(views), views / max(features.flatten().tolist()))


def test_standard_is_scikit_learns_standard_scaler(features: Tensor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scaling_module, "ROWS_AT_ONCE", 7)  # 120 rows: 17 pieces and a rest
    features[:, :, 2] = 0.1  # constant: only its mean is taken away
    features[:, :, 3] += 1e4  # a mean far above the deviation
    rows = features.flatten(0, 1)
    expected = torch.from_numpy(StandardScaler().fit(rows.numpy()).transform(rows.double().numpy())).float()
    scaled = fitted("standard", features)(features)
    torch.testing.assert_close(scaled.flatten(0, 1), expected, rtol=1e-3, atol=1e-3)
    assert scaled[:, :, 2].abs().max() == 0


def test_none_changes_nothing_and_needs_no_fit(features: Tensor):
    assert torch.equal(Scaling(8, "none")(features), features)


@pytest.mark.parametrize("method", ["max", "standard"])
def test_training_features_may_be_a_mapped_file_of_bfloat16(method: str, features: Tensor, tmp_path: Path):
    half = features.bfloat16()
    (tmp_path / "features").write_bytes(half.view(torch.uint8).numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "features"), size=half.numel(), dtype=torch.bfloat16)
    from_file, from_memory = fitted(method, mapped.view(half.shape)), fitted(method, half.float())
    assert torch.equal(from_file(features), from_memory(features))


@pytest.mark.parametrize("method", ["max", "standard"])
def test_a_fitted_scale_is_saved_and_an_unfitted_one_is_an_error(method: str, features: Tensor):
    saved, loaded = fitted(method, features), Scaling(8, method)
    loaded.load_state_dict(saved.state_dict())
    assert torch.equal(loaded(features), saved(features))
    loaded.load_state_dict(Scaling(8, method).state_dict())
    for unfitted in (Scaling(8, method), loaded):
        with pytest.raises(VidclfError, match=rf"^scaling={method}: it is not fitted"):
            unfitted(features)


@pytest.mark.parametrize("method", scaling_module.METHODS)
def test_features_of_another_width_are_refused(method: str, features: Tensor):
    scaling = fitted(method, features)
    for use in (scaling, scaling.fit):
        with pytest.raises(VidclfError, match=r"width is 9, .* needs 8"):
            use(torch.ones(2, 1, 9))


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("max", 0.0, r"^scaling=max: the largest training feature is 0; must be finite and above 0"),
        ("max", -2.0, r"largest training feature is -2;"),
        ("max", torch.nan, r"largest training feature is nan"),
        ("max", torch.inf, r"largest training feature is inf"),
        ("standard", torch.nan, r"^scaling=standard: 8 of 8 dimensions have training features that are not finite"),
        ("standard", torch.inf, r"8 of 8 dimensions"),
    ],
)
def test_features_without_a_valid_scale_are_an_error(method: str, value: float, message: str):
    with pytest.raises(VidclfError, match=message):
        Scaling(8, method).fit(torch.full((4, 1, 8), value))


def test_a_scaling_without_training_features_is_an_error():
    with pytest.raises(VidclfError, match=r"^scaling: there are no training features"):
        Scaling(8, "max").fit(torch.ones(0, 1, 8))


# Which one


class Odd(nn.Flatten):
    scaling = "minmax"


def test_auto_is_the_scaling_of_the_heads_class_or_none():
    heads = [MLP(8, 2), Linear(8, 2), LSTM(8, 2), nn.Flatten()]
    assert [resolve_scaling("auto", head, is_trained=False) for head in heads] == [
        "max",
        "standard",
        "standard",
        "none",
    ]
    assert [resolve_scaling("standard", head, is_trained=False) for head in heads] == ["standard"] * 4
    with pytest.raises(VidclfError, match=r"^Odd\.scaling=minmax: allowed are standard, max, none\.$"):
        resolve_scaling("auto", Odd(), is_trained=False)


def test_features_of_a_trained_backbone_are_not_scaled_and_a_notice_says_so(
    capsys: pytest.CaptureFixture[str],
):
    assert [resolve_scaling(method, MLP(8, 2), is_trained=True) for method in ("auto", "none")] == ["none", "none"]
    assert not capsys.readouterr().err
    assert resolve_scaling("max", MLP(8, 2), is_trained=True) == "none"
    assert capsys.readouterr().err == "scaling=max is ignored: the features of a trained backbone change.\n"


@pytest.mark.parametrize("is_trained", [True, False])
def test_an_unknown_scaling_names_those_allowed(is_trained: bool):
    with pytest.raises(VidclfError, match=r"^scaling=minmax: allowed are auto, standard, max, none\.$"):
        resolve_scaling("minmax", MLP(8, 2), is_trained)


# In a run


def test_a_run_is_scaled_by_training_features_alone_and_not_again_when_it_resumes(
    vidclf: Callable[..., Outcome], clips: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Tensor] = []
    fit = Scaling.fit
    monkeypatch.setattr(Scaling, "fit", lambda scaling, features: (seen.append(features), fit(scaling, features)))
    settings = ("train", f"dataset.root={clips}", *SMALL, "scaling=standard")
    run = vidclf(*settings, "trainer.max_epochs=1").run
    num_train = (run / "split.csv").read_text().count(",train")
    assert [len(features) for features in seen] == [6 * num_train]
    resumed = vidclf(*settings, f"resume={run}")
    assert resumed.status == 0, resumed.err
    states = [torch.load(one / "checkpoints" / "last.ckpt")["state_dict"] for one in (run, resumed.run)]
    assert len(seen) == 1
    torch.testing.assert_close(states[0]["scaling.mean"], seen[0].mean((0, 1)))
    assert torch.equal(states[1]["scaling.mean"], states[0]["scaling.mean"])
