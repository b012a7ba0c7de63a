"""A backbone in use gives the same bits in every batch; a frozen one never changes."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from doubles import Clips, Images, make_learner
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vidclf.errors import VidclfError
from vidclf.models.backbones.tiny3d import Tiny3D
from vidclf.models.backbones.trainable import set_trainable
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone, picture_format_of, wrap
from vidclf.models.scaling import Scaling


def images(num_views: int, num_frames: int = 4) -> Tensor:
    return torch.randn(num_views, num_frames, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[Images, Clips])
def frozen(request: pytest.FixtureRequest) -> FrozenBackbone:
    return FrozenBackbone(request.param())


def test_features_are_those_of_the_backbone_inside(frozen: FrozenBackbone):
    inputs = images(5)
    torch.testing.assert_close(frozen(inputs), frozen.backbone.eval()(inputs))
    assert (frozen.feature_dim, frozen.picture_format) == (frozen.backbone.feature_dim, frozen.backbone.picture_format)


def test_a_view_has_the_same_bits_in_every_batch(frozen: FrozenBackbone):
    inputs = images(33)
    together = frozen(inputs)
    assert torch.equal(torch.cat([frozen(view[None]) for view in inputs]), together)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    assert torch.equal(frozen(inputs[order]), together[order])


def test_the_backbone_always_gets_the_same_number_of_frames(frozen: FrozenBackbone):
    shapes = []
    frozen.backbone.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape))
    for num_views in (1, 8, 33):
        frozen(images(num_views))
    assert len(shapes) > 3
    assert {shape[0] * shape[1] for shape in shapes} == {32}


def test_autocast_changes_no_feature(frozen: FrozenBackbone):
    expected = frozen(images(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frozen(images(3)), expected)


def test_training_mode_changes_nothing(frozen: FrozenBackbone):
    whole = nn.Sequential(frozen, nn.Dropout())
    expected, buffers = frozen(images(3)), deepcopy(dict(frozen.named_buffers()))
    for switched in (whole, frozen):
        switched.train()
        assert whole[1].training
        assert not any(module.training for module in frozen.modules())
        assert torch.equal(frozen(images(3)), expected)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in frozen.named_buffers())


def test_no_gradient_reaches_the_backbone(frozen: FrozenBackbone):
    inputs = images(2).requires_grad_()
    assert not frozen(inputs).requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_checkpoints_hold_only_the_head_and_load_strictly():
    scaled = partial(make_learner, scaling=Scaling(6, "standard"))
    classifier, other = (scaled(FrozenBackbone(Images(seed)), seed=seed) for seed in (0, 1))
    state = classifier.state_dict()
    assert state
    assert {name.split(".")[0] for name in state} == {"scaling", "head"}
    backbone = deepcopy(dict(other.backbone.named_parameters()))
    other.load_state_dict(state)  # strict
    assert set(state) == set(classifier.state_dict())  # the state dict passed in is not changed
    torch.testing.assert_close(other.state_dict(), state, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(value, backbone[name]) for name, value in other.backbone.named_parameters())


def test_a_strict_load_still_reports_missing_and_unknown_names():
    classifier = make_learner(FrozenBackbone(Images()))
    state = classifier.state_dict()
    first = next(iter(state))
    with pytest.raises(RuntimeError, match=f'Missing key.*"{first}"'):
        classifier.load_state_dict({name: value for name, value in state.items() if name != first})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"head\.other"'):
        classifier.load_state_dict(state | {"head.other": torch.zeros(1)})


def test_weight_averaging_averages_the_head_and_loads():
    classifier = make_learner(FrozenBackbone(Images()), head=nn.Linear(6, 2))
    averaged = AveragedModel(classifier)
    for value in (1.0, 3.0):
        nn.init.constant_(classifier.head.weight, value)
        averaged.update_parameters(classifier)
    assert averaged.module.head.weight.unique().item() == 2
    assert not [name for name in averaged.state_dict() if "backbone" in name]
    again = AveragedModel(make_learner(FrozenBackbone(Images()), head=nn.Linear(6, 2)))
    again.load_state_dict(averaged.state_dict())
    assert again.module.head.weight.unique().item() == 2
    inputs = images(2)
    assert torch.equal(again.module.backbone(inputs), classifier.backbone(inputs))


# Tuned


def test_frozen_batch_normalisation_keeps_its_statistics_while_the_rest_is_trained():
    backbone = Tiny3D(width=2)
    set_trainable(backbone, "all", freeze_batchnorm=True)
    wrapped = wrap(backbone).train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = [norm.running_mean.clone() for norm in norms]
    wrapped(torch.randn(2, 16, 3, 64, 64)).sum().backward()
    assert all(torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True))
    assert all(block[0].weight.grad is not None for block in backbone.blocks)


def test_frozen_modules_stay_in_eval_mode():
    wrapped = wrap(Tiny3D(width=2, trainable="last")).train()
    assert [block[1].training for block in wrapped.backbone.blocks] == [False, False, False, True]


def test_a_backbone_is_trained_if_any_parameter_wants_a_gradient():
    assert isinstance(wrap(Images()), FrozenBackbone)
    assert isinstance(wrap(Images().requires_grad_(True)), TunedBackbone)


def test_a_trained_backbone_gives_the_same_bits_in_every_batch():
    torch.manual_seed(0)
    wrapped = wrap(Tiny3D(width=4)).eval()
    clips = torch.randn(5, 16, 3, 64, 64)
    together = wrapped(clips)
    assert torch.equal(torch.cat([wrapped(clip[None]) for clip in clips]), together)
    assert not together.requires_grad


def test_a_checkpoint_holds_the_trained_backbone():
    classifier = make_learner(wrap(Tiny3D(width=2)), head=nn.Linear(16, 2))
    state = classifier.state_dict()
    assert {name.split(".")[0] for name in state} == {"backbone", "head"}
    other = make_learner(wrap(Tiny3D(width=2)), head=nn.Linear(16, 2), seed=1)
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


# What a backbone must declare


def test_a_picture_format_may_still_be_named_preset():
    backbone = nn.Linear(1, 1)
    backbone.preset, backbone.feature_dim = Images.picture_format, 1
    assert picture_format_of(backbone) == wrap(backbone).picture_format == Images.picture_format


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "picture_format",
            r"^Images: a backbone needs a picture_format, .*None.*PictureFormat\(size=64",
        ),
        ("feature_dim", r"^Images: a backbone needs a feature_dim.* Set self\.feature_dim"),
    ],
)
def test_a_backbone_without_a_width_or_a_picture_format_is_refused(
    missing: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(Images, missing)
    with pytest.raises(VidclfError, match=message):
        wrap(Images())
