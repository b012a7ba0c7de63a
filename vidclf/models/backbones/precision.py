"""The number format in which a frozen backbone computes and gives its features."""

from vidclf.errors import VidclfError
from vidclf.system.machine import computes_in_bfloat16

FORMATS = ("float32", "bfloat16")


def resolve_precision(precision: str, trainable: str | int = "none") -> str:
    """Return `float32` or `bfloat16`; `auto` is bfloat16 where this machine computes in it.

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
        return "bfloat16" if computes_in_bfloat16() else "float32"
    if precision not in FORMATS:
        raise VidclfError(f"backbone.precision={precision}: allowed are auto, {', '.join(FORMATS)}.")
    return precision
