"""A backbone in use: either frozen, or with at least one stage that is trained."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import Backbone, PictureFormat, optional
from vidclf.errors import VidclfError
from vidclf.system.terminal import say


def wrap(backbone: nn.Module) -> "FrozenBackbone | TunedBackbone":
    """Return a TunedBackbone if any of the backbone's parameters wants a gradient, else a FrozenBackbone."""
    tuned = any(parameter.requires_grad for parameter in backbone.parameters())
    return TunedBackbone(backbone) if tuned else FrozenBackbone(backbone)


def picture_format_of(backbone: nn.Module) -> PictureFormat:
    """Return the images that a backbone wants: its `picture_format`, or `preset`, its former name."""
    kind = type(backbone).__name__
    picture_format = getattr(backbone, "picture_format", getattr(backbone, "preset", None))
    if not isinstance(picture_format, PictureFormat):
        raise VidclfError(
            f"{kind}: a backbone needs a picture_format, a vidclf.contracts.PictureFormat; here it is "
            f"{picture_format!r}. Set one, e.g. PictureFormat(size=64, resize=64, mean=(0, 0, 0), std=(1, 1, 1))."
        )
    if not isinstance(getattr(backbone, "feature_dim", None), int):
        raise VidclfError(
            f"{kind}: a backbone needs a feature_dim, the width D of its features (N, S, D), an int. "
            "Set self.feature_dim in its constructor."
        )
    return picture_format


class WrappedBackbone(nn.Module):
    """A backbone and its members, with the protocol's defaults: what frozen and tuned ones share."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.picture_format = picture_format_of(backbone)
        self.feature_dim = cast(int, backbone.feature_dim)

    @property
    def name(self) -> str:
        """The backbone's name, or that of its class."""
        return str(optional(self.backbone, Backbone, "name") or type(self.backbone).__name__.lower())

    @property
    def precision(self) -> str:
        """The number format of the features: float32 or bfloat16."""
        return optional(self.backbone, Backbone, "precision") or "float32"


class FrozenBackbone(WrappedBackbone):
    """Wraps a backbone: eval mode always, no gradients, one fixed batch size, no weights in checkpoints.

    The last digits of a feature depend on the size of its batch. The backbone therefore always gets batches of one
    size (see `fixed_batch`), the last one filled with zeros: stored, evaluated and predicted features are the same
    bits. Hooks take its keys out of state dicts and put them back: removing them by hand breaks strict loading and
    weight averaging.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone.requires_grad_(False))
        self.train(False)
        self.register_state_dict_post_hook(_remove_keys)
        self.register_load_state_dict_pre_hook(_add_keys)

    def train(self, mode: bool = True) -> "FrozenBackbone":
        """Stay in eval mode, whatever `mode` is."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of each view, the same bits in every batch."""
        return in_fixed_batches(self.backbone, images, self.picture_format)

    def compile_layers(self, view: Float[Tensor, "1 T 3 h w"]) -> None:
        """Compile the layers with torch.compile, weights frozen; report it and continue where that fails.

        The children are compiled in place, each by itself: the backbone keeps its name, and user code around the
        children is not traced.
        """
        for layers in self.backbone.children():
            layers.compile(options={"freezing": True})
        try:
            self(view)
        except Exception as error:  # no C++ compiler, no Triton, code that torch cannot trace
            for layers in self.backbone.children():
                layers._compiled_call_impl = None
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            say(f"torch.compile does not work here ({type(error).__name__}: {reason}); going on without.")


class TunedBackbone(WrappedBackbone):
    """Wraps a backbone: its frozen modules stay in eval mode, and checkpoints hold all its weights.

    Scoring uses the same fixed batches as a frozen backbone, so that evaluation and prediction give the same bits.
    """

    def train(self, mode: bool = True) -> "TunedBackbone":
        """Set the mode of the modules that are trained; statistics and dropout of the others do not change."""
        super().train(mode)
        for module in self.backbone.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        if self.training:
            return self.backbone(images)
        with torch.no_grad():
            return in_fixed_batches(self.backbone, images, self.picture_format)


def fixed_batch(device_type: str, clip_length: int) -> int:
    """Return how many frames (of an image backbone) or clips are computed at once: 32 frames on a CPU.

    Two clips of 16 frames do not fill a GPU; its 512 frames are an estimate, not measured.
    """
    return max(4, 512 // clip_length) if device_type == "cuda" else max(1, 32 // clip_length)


def in_fixed_batches(
    backbone: nn.Module, images: Float[Tensor, "N T 3 h w"], picture_format: PictureFormat
) -> Float[Tensor, "N S D"]:
    """Return the features of each view, computed in batches of one size, whatever N is."""
    num_views = len(images)
    if picture_format.clip_length == 1:  # an image backbone sees frames, not views
        images = images.flatten(0, 1).unsqueeze(1)  # (N*T, 1, 3, h, w)
    size = fixed_batch(images.device.type, picture_format.clip_length)
    computed = []
    # Stored features are computed without autocast, so no other features may use it.
    with torch.autocast(images.device.type, enabled=False):
        for batch in images.split(size):
            full = batch
            if len(batch) < size:
                full = batch.new_zeros(size, *batch.shape[1:])
                full[: len(batch)] = batch
            computed.append(backbone(full)[: len(batch)])
    features = torch.cat(computed)
    return features.reshape(num_views, -1, features.shape[-1])


def _remove_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        del state_dict[name]


def _add_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    state_dict.update(module.get_submodule("backbone").state_dict(prefix=f"{prefix}backbone."))
