"""The number format in which a frozen backbone computes and gives its features."""

import torch

from vidclf.errors import VidclfError

FORMATS = ("float32", "bfloat16")


def resolve_precision(precision: str, trainable: str | int = "none") -> str:
    """Return `float32` or `bfloat16`; `auto` is bfloat16 where this machine has matrix units for it.

    A backbone that is trained keeps its weights in float32; `trainer.precision` chooses how it computes.

    The machine decides, not the device that the backbone is moved to later: features are stored under this
    name, so it must be known, and stay, from the start.

    Raises:
        VidclfError: `precision` is none of auto, float32, bfloat16.
    """
    if trainable != "none":
        if precision == "bfloat16":
            raise VidclfError("backbone.precision=bfloat16 is for a frozen backbone; set trainer.precision=bf16-mixed.")
        return "float32"
    if precision == "auto":
        return "bfloat16" if _has_bfloat16_matrix_units() else "float32"
    if precision not in FORMATS:
        raise VidclfError(f"backbone.precision={precision}: allowed are auto, {', '.join(FORMATS)}.")
    return precision


def _has_bfloat16_matrix_units() -> bool:
    """Whether there is an NVIDIA GPU of the Ampere generation or later, or else a CPU with Intel's AMX."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
