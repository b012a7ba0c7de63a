"""A backbone that never changes."""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import PictureFormat
from vidclf.system.terminal import say

FRAMES_PER_BATCH = 32


class Frozen(nn.Module):
    """Wraps a backbone: eval mode always, no gradients, one fixed batch size, no weights in checkpoints.

    The last digits of a feature depend on the size of the batch that it was computed in, so the backbone always
    gets batches of `FRAMES_PER_BATCH` frames, the last one filled with zeros: stored, evaluated and predicted
    features are the same bits. Its keys leave and enter state dicts by hooks: dropping them by hand breaks
    strict loading and weight averaging.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.picture_format = cast(PictureFormat, backbone.picture_format)
        self.feature_dim = cast(int, backbone.feature_dim)
        self.train(False)
        self.register_state_dict_post_hook(_leave_out)
        self.register_load_state_dict_pre_hook(_put_back)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, pictures: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of each view, the same bits in any company."""
        return in_fixed_batches(self.backbone, pictures, self.picture_format)

    def compile_layers(self, one: Float[Tensor, "1 T 3 h w"]) -> None:
        """Let torch.compile make the layers faster, the weights known and fixed; say so where it cannot.

        The children are compiled in place, each by itself: the backbone keeps its name, and the code of its user's
        own around them is not looked at.
        """
        for layers in self.backbone.children():
            layers.compile(options={"freezing": True})
        try:
            self(one)
        except Exception as error:  # no C++ compiler, no Triton, code that torch cannot trace
            for layers in self.backbone.children():
                layers._compiled_call_impl = None
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            say(f"torch.compile does not work here ({type(error).__name__}: {reason}); going on without.")


def in_fixed_batches(
    backbone: nn.Module, pictures: Float[Tensor, "N T 3 h w"], picture_format: PictureFormat
) -> Float[Tensor, "N S D"]:
    """Return the features of each view from batches of one size, whatever N is."""
    num_views = len(pictures)
    if picture_format.clip_length == 1:  # a picture backbone sees frames, not views
        pictures = pictures.flatten(0, 1).unsqueeze(1)  # (N*T, 1, 3, h, w)
    size = max(1, FRAMES_PER_BATCH // pictures.shape[1])
    features = torch.cat([_one_batch(backbone, batch, size) for batch in pictures.split(size)])
    return features.reshape(num_views, -1, features.shape[-1])


def _one_batch(backbone: nn.Module, pictures: Tensor, size: int) -> Tensor:
    filled = pictures
    if len(pictures) < size:
        filled = pictures.new_zeros(size, *pictures.shape[1:])
        filled[: len(pictures)] = pictures
    # In its own number format, whatever the head is trained in: stored features know no autocast.
    with torch.autocast(pictures.device.type, enabled=False):
        return backbone(filled)[: len(pictures)]


def _leave_out(module: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in [name for name in state_dict if name.startswith(prefix)]:
        del state_dict[name]


def _put_back(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    state_dict.update(module.get_submodule("backbone").state_dict(prefix=f"{prefix}backbone."))
