"""A backbone is trained in part or whole, and its layers at their rates."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from doubles import Images, make_learner
from torch import nn
from torchvision import models

from vidclf.errors import VidclfError
from vidclf.models.backbones.tiny3d import Tiny3D
from vidclf.models.backbones.torchvision_models import ClipBackbone, ImageBackbone
from vidclf.models.backbones.trainable import set_trainable, stages_of, trained_stages
from vidclf.models.backbones.wrap import wrap
from vidclf.models.heads.attention_pool import AttentionPool
from vidclf.models.heads.recurrent import GRU
from vidclf.models.heads.transformer import Transformer
from vidclf.models.learner import has_weight_decay

NUM_STAGES = {
    "vgg16": 5,
    "resnet18": 4,
    "convnext_tiny": 8,
    "vit_b_16": 12,
    "r3d_18": 4,
    "mvit_v1_b": 16,
    "swin3d_t": 7,
}


def names_trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def on_meta(name: str, **settings: object) -> nn.Module:
    kind = ClipBackbone if name in models.list_models(module=models.video) else ImageBackbone
    with torch.device("meta"):
        return kind(name, weights=None, **settings)


@pytest.mark.parametrize("name", NUM_STAGES)
def test_a_network_has_the_stages_of_its_paper(name: str):
    assert len(stages_of(on_meta(name).network)) == NUM_STAGES[name]


@pytest.mark.parametrize("name", NUM_STAGES)
def test_more_stages_train_more(name: str):
    trained = [names_trained(on_meta(name, trainable=how)) for how in ("none", "last", 2, "all")]
    assert not trained[0]
    assert trained[1] < trained[2] < trained[3]
    assert trained[3] == {name for name, _ in on_meta(name).named_parameters()}


def test_resnets_last_stage_is_layer4():
    assert {name.split(".")[1] for name in names_trained(on_meta("resnet18", trainable="last"))} == {"layer4"}


def test_layers_after_the_last_stage_belong_to_it():
    assert {name.split(".")[1] for name in names_trained(on_meta("vgg16", layer="fc7", trainable="last"))} == {
        "features",
        "classifier",
    }
    assert "network.norm.weight" in names_trained(on_meta("swin3d_t", trainable="last"))
    assert "network.encoder.ln.weight" in names_trained(on_meta("vit_b_16", trainable="last"))


def test_five_stages_of_a_network_of_four_are_refused():
    with pytest.raises(VidclfError, match=r"backbone\.trainable=5: allowed are none, last, all, .* from 1 to 4"):
        set_trainable(Tiny3D(), 5)


@pytest.mark.parametrize("select", [lambda backbone: backbone, lambda backbone: backbone.network])
def test_every_trained_parameter_is_in_one_stage(select: Callable[[nn.Module], nn.Module]):
    backbone = on_meta("resnet18", trainable="all")
    stages = trained_stages(select(backbone))
    assert [len(stage) for stage in stages] == [15, 15, 15, 12, 3]  # layers 4 to 1, the stem
    assert sum(map(len, stages)) == len(list(backbone.parameters()))


def rates_of(backbone: nn.Module, **settings: object) -> list[float]:
    optimizer = partial(torch.optim.SGD, lr=0.1)
    classifier = make_learner(wrap(backbone), head=nn.Linear(16, 2), optimizer=optimizer, **settings)
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=10)
    return [group["lr"] for group in classifier.configure_optimizers()["optimizer"].param_groups]


def test_each_stage_learns_at_a_fraction_of_the_next_stages_rate():
    assert rates_of(Tiny3D(width=2), layer_decay=0.5) == pytest.approx([0.1, 0.05, 0.025, 0.0125, 0.00625])
    assert rates_of(Tiny3D(width=2, trainable="last"), layer_decay=0.5) == pytest.approx([0.1, 0.05])
    assert rates_of(Images(), layer_decay=0.5) == pytest.approx([0.1])


@pytest.mark.parametrize(
    ("network", "exempt"),
    [
        (lambda: models.vit_b_16(), {"class_token", "pos_embedding", "bias", "in_proj_bias", "weight of LayerNorm"}),
        (lambda: models.swin_t(), {"relative_position_bias_table", "bias", "weight of LayerNorm"}),
        (lambda: models.convnext_tiny(), {"layer_scale", "bias", "weight of LayerNorm2d", "weight of LayerNorm"}),
        (lambda: models.resnet18(), {"bias", "weight of BatchNorm2d"}),
        (lambda: Transformer(8, 2), {"class_token", "bias", "in_proj_bias", "weight of LayerNorm"}),
        (lambda: AttentionPool(8, 2), {"query", "bias", "in_proj_bias", "weight of LayerNorm"}),
        (lambda: GRU(8, 2), {"bias", "bias_ih_l0", "bias_hh_l0"}),
        (lambda: nn.Linear(1, 1), {"bias"}),
    ],
)
def test_norms_biases_tokens_queries_and_positions_have_no_weight_decay(network: Callable, exempt: set[str]):
    with torch.device("meta"):
        built = network()
    kinds = {id(p): type(module).__name__ for module in built.modules() for p in module.parameters(recurse=False)}
    without_decay = set()
    for name, parameter in built.named_parameters():
        last = name.rpartition(".")[2]
        if not has_weight_decay(name, parameter):
            without_decay.add(f"weight of {kinds[id(parameter)]}" if last == "weight" else last)
        else:
            assert parameter.ndim > 1, name
    assert without_decay == exempt


def test_weight_decay_splits_the_groups_and_keeps_their_rates():
    classifier = make_learner(
        wrap(Tiny3D(width=2, trainable="last")), head=nn.Linear(16, 2), optimizer=partial(torch.optim.AdamW, lr=0.1),
        layer_decay=0.5,
    )  # fmt: skip
    classifier._trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer = classifier.configure_optimizers()["optimizer"]
    groups = [(group["lr"], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    assert groups == [(0.1, 0.01, 1), (0.1, 0.0, 1), (0.05, 0.01, 1), (0.05, 0.0, 2)]
    trained = {id(p) for p in classifier.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trained


def test_nothing_to_train_is_an_error():
    classifier = make_learner(wrap(Images()), head=nn.Flatten())
    with pytest.raises(VidclfError, match=r"head: Flatten has no trainable parameter.*backbone\.trainable"):
        classifier.configure_optimizers()
