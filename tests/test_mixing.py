"""MixUp and CutMix over a batch, of images and of features."""

import pytest
import torch

from vidclf.contracts import Views
from vidclf.errors import VidclfError
from vidclf.models.mixing import Mixing


def batch_of(inputs: torch.Tensor) -> Views:
    whose = torch.arange(len(inputs))
    return Views(inputs, whose % 3, whose, whose)


@pytest.mark.parametrize("shape", [(4, 2, 3, 8, 8), (4, 5, 7)])
def test_mixup_blends_inputs_and_labels_by_the_same_share(shape: tuple[int, ...]):
    torch.manual_seed(0)
    batch = batch_of(torch.randn(shape))
    mixed = Mixing(mixup=1.0)(batch, num_classes=3)
    share = mixed.labels[1, batch.labels[1]]
    rolled = batch.inputs.roll(1, 0)
    torch.testing.assert_close(mixed.inputs, share * batch.inputs + (1 - share) * rolled)
    torch.testing.assert_close(mixed.labels.sum(1), torch.ones(4))
    assert torch.equal(mixed.video, batch.video)


def test_cutmix_pastes_the_same_rectangle_into_all_frames():
    torch.manual_seed(1)
    inputs = torch.arange(4.0).reshape(4, 1, 1, 1, 1).expand(4, 2, 3, 16, 16).contiguous()
    mixed = Mixing(cutmix=1.0)(batch_of(inputs), num_classes=3)
    assert torch.equal(mixed.inputs[:, :1].expand_as(mixed.inputs), mixed.inputs)
    unmixed_share = (mixed.inputs[1] == 1).float().mean()
    assert 0 < unmixed_share < 1
    assert mixed.labels[1, 1].item() == pytest.approx(unmixed_share.item())


def test_cutmix_of_features_is_an_error():
    with pytest.raises(VidclfError, match=r"mixing\.cutmix: needs images.* Use mixing\.mixup"):
        Mixing(cutmix=1.0)(batch_of(torch.randn(4, 5, 7)), num_classes=3)


def test_a_view_that_is_alone_in_its_batch_is_not_mixed():
    batch = batch_of(torch.randn(1, 5, 7))
    mixed = Mixing(mixup=1.0)(batch, num_classes=3)
    assert torch.equal(mixed.inputs, batch.inputs)
    assert mixed.labels.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("mixup", "cutmix"), [(0, 0), (-1, 0)])
def test_mixing_without_a_method_is_an_error(mixup: float, cutmix: float):
    with pytest.raises(VidclfError, match="give one of them above 0, or mixing=none"):
        Mixing(mixup, cutmix)
