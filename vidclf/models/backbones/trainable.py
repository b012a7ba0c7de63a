"""Which stages of a backbone are trained, and in which number format it computes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from torch import nn

from vidclf.errors import VidclfError
from vidclf.system.machine import computes_in_bfloat16

FORMATS = ("float32", "bfloat16")

# The attribute that holds a network's blocks, by library; the first that exists is used.
CONTAINERS = ("encoder.layers", "encoder.layer", "blocks", "trunk_output", "features", "layers", "layer")
POOLINGS = (nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d)


def set_trainable(network: nn.Module, trainable: str | int, freeze_batchnorm: bool = False) -> None:
    """Choose the parameters of `network` that are trained, in place: `none`, `all`, the `last` stage or the last n.

    Layers before the first stage (a stem, embeddings) are trained with `all` only; layers after the last stage belong
    to it. With `freeze_batchnorm`, no batch normalisation is trained.
    """
    stages = stages_of(network)
    counts = {"none": 0, "last": 1, "all": 0} | {str(n): n for n in range(1, len(stages) + 1)}
    if str(trainable) not in counts:
        raise VidclfError(
            f"backbone.trainable={trainable}: allowed are none, last, all, or a number of stages from 1 to "
            f"{len(stages)}, which this network has."
        )
    network.requires_grad_(trainable == "all")
    for stage in stages[len(stages) - counts[str(trainable)] :]:
        for parameter in stage:
            parameter.requires_grad_(True)
    for module in network.modules() if freeze_batchnorm else ():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)


def stages_of(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each stage, without the stem: ResNet's four layers, a transformer's blocks.

    A stage is a group that timm's `group_matcher` names, else a block of the network, else, in a network without
    blocks (VGG), the layers between two poolings.
    """
    levels = list(_unwrap(network))
    for level in levels:
        if hasattr(level, "group_matcher"):
            return _timm_groups(level)[1:]
    modules = [dict(level.named_modules()) for level in levels]
    containers = (named[name] for named in modules for name in CONTAINERS if name in named)
    container = next(containers, levels[-1])
    children = [(name, child) for name, child in container.named_children() if _has_parameters(child)]
    if any(_has_children(child) for _, child in children):
        stages = [list(child.parameters()) for name, child in children if _has_children(child) and name != "stem"]
    else:
        stages = _split_at_poolings(container)
    if stages:
        parameters = list(network.parameters())
        positions = {parameter: position for position, parameter in enumerate(parameters)}
        stages[-1] += parameters[max(positions[parameter] for parameter in stages[-1]) + 1 :]
    return stages


def trained_stages(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters that want a gradient, of each stage from the last to the first; the stem's come last."""
    seen: set[nn.Parameter] = set()
    stages = []
    for stage in [*reversed(stages_of(network)), list(network.parameters())]:
        stages.append([parameter for parameter in stage if parameter not in seen and parameter.requires_grad])
        seen.update(stage)
    return stages


def _unwrap(network: nn.Module) -> Iterator[nn.Module]:
    """Yield the network, then the only child that holds its parameters, and so on inwards."""
    yield network
    inner = [child for child in network.children() if _has_parameters(child)]
    if len(inner) == 1 and _has_children(inner[0]):
        yield from _unwrap(inner[0])


def _timm_groups(network: Any) -> list[list[nn.Parameter]]:
    """Return timm's groups of parameters for layer-wise decay, the stem's first."""
    from timm.models import group_parameters

    # timm puts all that matches no group (a classifier, a last norm) into one more. The classifier is gone from this
    # network; None stands for it, so that this group can be recognised and joined to the last stage.
    named = [*network.named_parameters(), ("", None)]
    stand_in: Any = SimpleNamespace(named_parameters=lambda: named)
    by_number = group_parameters(stand_in, network.group_matcher(coarse=False), return_values=True)
    *groups, last = [by_number[number] for number in sorted(by_number)]
    if last[-1] is not None or not groups:
        return [*groups, [parameter for parameter in last if parameter is not None]]
    return [*groups[:-1], groups[-1] + last[:-1]]


def _split_at_poolings(layers: nn.Module) -> list[list[nn.Parameter]]:
    stages: list[list[nn.Parameter]] = [[]]
    for layer in layers.children():
        if isinstance(layer, POOLINGS):
            stages.append([])
        stages[-1] += layer.parameters()
    return [stage for stage in stages if stage]


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def resolve_precision(precision: str, trainable: str | int = "none", device_type: str | None = None) -> str:
    """Return `float32` or `bfloat16`; `auto` is bfloat16 where the device computes in it.

    A trained backbone keeps its weights in float32; `trainer.precision` chooses how it computes. `device_type=None`
    means this machine's best device.
    """
    if trainable != "none":
        if precision == "bfloat16":
            raise VidclfError("backbone.precision=bfloat16 is for a frozen backbone; set trainer.precision=bf16-mixed.")
        return "float32"
    if precision == "auto":
        return "bfloat16" if computes_in_bfloat16(device_type) else "float32"
    if precision not in FORMATS:
        raise VidclfError(
            f"backbone.precision={precision}: allowed are auto, {', '.join(FORMATS)}, and, for images only, int8."
        )
    return precision
