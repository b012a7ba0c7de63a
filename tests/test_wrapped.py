"""A frozen backbone gives the same bits in any company, and stays what it is."""

from copy import deepcopy

import pytest
import torch
from doubles import Clips, Pictures, make_classifier
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from vidclf.models.backbones.wrapped import Frozen


def pictures(num_views: int, num_frames: int = 4) -> Tensor:
    return torch.randn(num_views, num_frames, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[Pictures, Clips])
def frozen(request: pytest.FixtureRequest) -> Frozen:
    return Frozen(request.param())


def test_features_are_the_backbones_own(frozen: Frozen):
    inputs = pictures(5)
    torch.testing.assert_close(frozen(inputs), frozen.backbone.eval()(inputs))
    assert (frozen.feature_dim, frozen.picture_format) == (frozen.backbone.feature_dim, frozen.backbone.picture_format)


def test_a_view_is_the_same_bits_in_any_company(frozen: Frozen):
    inputs = pictures(33)
    together = frozen(inputs)
    assert torch.equal(torch.cat([frozen(view[None]) for view in inputs]), together)
    order = torch.randperm(33, generator=torch.Generator().manual_seed(1))
    assert torch.equal(frozen(inputs[order]), together[order])


def test_the_backbone_always_gets_the_same_number_of_frames(frozen: Frozen):
    shapes = []
    frozen.backbone.register_forward_pre_hook(lambda _, arguments: shapes.append(arguments[0].shape))
    for num_views in (1, 8, 33):
        frozen(pictures(num_views))
    assert len(shapes) > 3
    assert {shape[0] * shape[1] for shape in shapes} == {32}


def test_autocast_changes_no_feature(frozen: Frozen):
    expected = frozen(pictures(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frozen(pictures(3)), expected)


def test_training_mode_changes_nothing(frozen: Frozen):
    whole = nn.Sequential(frozen, nn.Dropout())
    expected, buffers = frozen(pictures(3)), deepcopy(dict(frozen.named_buffers()))
    for module in (whole, frozen):
        module.train()
        assert whole[1].training
        assert not any(part.training for part in frozen.modules())
        assert torch.equal(frozen(pictures(3)), expected)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in frozen.named_buffers())


def test_no_gradient_reaches_the_backbone(frozen: Frozen):
    inputs = pictures(2).requires_grad_()
    assert not frozen(inputs).requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_checkpoints_hold_the_head_alone_and_load_strictly():
    classifier, other = (make_classifier(Frozen(Pictures(seed)), seed=seed) for seed in (0, 1))
    state = classifier.state_dict()
    assert state
    assert all(name.startswith("head.") for name in state)
    backbone = deepcopy(dict(other.backbone.named_parameters()))
    other.load_state_dict(state)  # strict
    assert set(state) == set(classifier.state_dict())  # what was given is not written to
    torch.testing.assert_close(other.state_dict(), state, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(value, backbone[name]) for name, value in other.backbone.named_parameters())


def test_a_strict_load_still_finds_what_is_missing_or_unknown():
    classifier = make_classifier(Frozen(Pictures()))
    state = classifier.state_dict()
    first = next(iter(state))
    with pytest.raises(RuntimeError, match=f'Missing key.*"{first}"'):
        classifier.load_state_dict({name: value for name, value in state.items() if name != first})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"head\.other"'):
        classifier.load_state_dict(state | {"head.other": torch.zeros(1)})


def test_weight_averaging_averages_the_head_and_loads():
    classifier = make_classifier(Frozen(Pictures()), head=nn.Linear(6, 2))
    averaged = AveragedModel(classifier)
    for value in (1.0, 3.0):
        nn.init.constant_(classifier.head.weight, value)
        averaged.update_parameters(classifier)
    assert averaged.module.head.weight.unique().item() == 2
    assert not [name for name in averaged.state_dict() if "backbone" in name]
    again = AveragedModel(make_classifier(Frozen(Pictures()), head=nn.Linear(6, 2)))
    again.load_state_dict(averaged.state_dict())
    assert again.module.head.weight.unique().item() == 2
    inputs = pictures(2)
    assert torch.equal(again.module.backbone(inputs), classifier.backbone(inputs))
