"""Which part of a backbone is trained, its stages from input to output, and in which number format one computes."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from torch import nn

from vidclf.errors import VidclfError
from vidclf.system.machine import computes_in_bfloat16

FORMATS = ("float32", "bfloat16")

# Where networks keep their stages.
CONTAINERS = ("encoder.layers", "encoder.layer", "blocks", "trunk_output", "features", "layers", "layer")


def set_trainable(network: nn.Module, trainable: str | int, freeze_batchnorm: bool = False) -> None:
    """Let the parameters of `network` be trained, in place: `none`, `all`, the `last` stage or the last n.

    What stands before the first stage (a stem, embeddings) is trained with `all` only; what stands behind the
    last belongs to it. With `freeze_batchnorm`, batch normalisation is not trained anywhere.

    Raises:
        VidclfError: another word, or a number that the network does not have.
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
    if freeze_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.requires_grad_(False)


def stages_of(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each stage: ResNet's four layers, VGG's blocks between poolings, a transformer's blocks.

    A network of timm names its own, without the stem; of others the modules are looked through.
    """
    named = _named_by_itself(network)
    return [list(_parameters(stage)) for stage in _stages_of(network)] if named is None else named[1:]


def _named_by_itself(network: Any) -> list[list[nn.Parameter]] | None:
    """Return the parameters of timm's groups for layer-wise decay, the stem's first; None where it has none."""
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        named = [*network.named_parameters(), ("", None)]  # it stands for the classifier, a group of its own in timm
        whole: Any = SimpleNamespace(named_parameters=lambda: named)
        found = group_parameters(whole, network.group_matcher(coarse=False), return_values=True)
        *groups, with_classifier = [found[number] for number in sorted(found)]
        behind = [parameter for parameter in with_classifier if parameter is not None]
        if len(behind) == len(with_classifier) or not groups:
            return [*groups, behind]
        groups[-1] = groups[-1] + behind  # a last norm or pooling belongs to the last stage
        return groups
    inner = [child for child in network.children() if _has_parameters(child)]
    return _named_by_itself(inner[0]) if len(inner) == 1 and _has_parts(inner[0]) else None


def _stages_of(network: nn.Module) -> list[list[nn.Module]]:
    modules = dict(network.named_modules())
    container = next((modules[name] for name in CONTAINERS if name in modules), None)
    inner = [child for child in network.children() if _has_parameters(child)]
    if container is None and len(inner) == 1 and _has_parts(inner[0]):  # a wrapper
        return _stages_of(inner[0])
    stages = _stages_in(container or network)
    if stages:
        stages[-1] = stages[-1] + _behind(network, stages[-1])
    return stages


def _behind(network: nn.Module, stage: list[nn.Module]) -> list[nn.Module]:
    """Return the modules with parameters of their own that stand behind a stage: a last norm, VGG's hidden layers."""
    modules = list(network.modules())
    inside = {module for part in stage for module in part.modules()}
    end = max(index for index, module in enumerate(modules) if module in inside)
    return [module for module in modules[end + 1 :] if any(True for _ in module.parameters(recurse=False))]


def _stages_in(container: nn.Module) -> list[list[nn.Module]]:
    children = {name: child for name, child in container.named_children() if _has_parameters(child) or _pools(child)}
    if not any(_has_parts(child) for child in children.values()):
        return _between_poolings(list(children.values()))
    return [[child] for name, child in children.items() if _has_parts(child) and name != "stem"]


def trained_stages(network: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters that want a gradient, of each stage from the last to the first; the stem's come last."""
    seen: set[nn.Parameter] = set()
    stages = []
    for stage in [*reversed(stages_of(network)), list(network.parameters())]:
        parameters = [parameter for parameter in stage if parameter not in seen]
        seen.update(parameters)
        stages.append([parameter for parameter in parameters if parameter.requires_grad])
    return stages


def _between_poolings(layers: list[nn.Module]) -> list[list[nn.Module]]:
    stages: list[list[nn.Module]] = [[]]
    for layer in layers:
        if _pools(layer):
            stages.append([])
        else:
            stages[-1].append(layer)
    return [stage for stage in stages if stage]


def _parameters(stage: list[nn.Module]) -> Iterator[nn.Parameter]:
    """Yield each parameter of a stage's modules once."""
    yield from dict.fromkeys(parameter for module in stage for parameter in module.parameters())


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _has_parts(module: nn.Module) -> bool:
    return any(True for _ in module.children())


def _pools(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d | nn.MaxPool3d | nn.AvgPool2d)


def resolve_precision(precision: str, trainable: str | int = "none", device_type: str | None = None) -> str:
    """Return `float32` or `bfloat16`; `auto` is bfloat16 where the device computes in it.

    A backbone that is trained keeps its weights in float32; `trainer.precision` chooses how it computes. A kind of
    device that is not known is this machine's best.

    Raises:
        VidclfError: `precision` is none of auto, float32, bfloat16.
    """
    if trainable != "none":
        if precision == "bfloat16":
            raise VidclfError("backbone.precision=bfloat16 is for a frozen backbone; set trainer.precision=bf16-mixed.")
        return "float32"
    if precision == "auto":
        return "bfloat16" if computes_in_bfloat16(device_type) else "float32"
    if precision not in FORMATS:
        raise VidclfError(
            f"backbone.precision={precision}: allowed are auto, {', '.join(FORMATS)}, and of images int8."
        )
    return precision
