"""Features of the frames of a stream, as they come or in the batches of evaluation."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vidclf.data.transforms import halves_of
from vidclf.prediction.files import Predictor


class UnitEncoder:
    """Prepares frames, and computes the features of units: of what the backbone sees at once.

    Args:
        predictor: whose transform and backbone are used.
        in_batches: whether the backbone gets the batches of evaluation, whose features have the same bits; otherwise
            it gets one unit at a time, which is quicker for a few.
    """

    def __init__(self, predictor: Predictor, in_batches: bool) -> None:
        self.in_batches, self.device = in_batches, predictor.device
        self.backbone = predictor.classifier.backbone
        self.clip_length = self.backbone.picture_format.clip_length
        self._crop, self._normalize = halves_of(predictor.transform)
        self._crops_frames = self.clip_length == 1 or self._normalize is not None  # otherwise it wants whole clips

    def prepare(self, frame: UInt8[Tensor, "3 H W"]) -> Tensor:
        """Return what is held of a frame: cropped (crops, 1, 3, h, w), or as it is (1, 1, 3, H, W)."""
        images = frame[None, None]
        return self._crop(images) if self._crops_frames else images

    @torch.no_grad()
    def encode(self, units: list[Tensor]) -> list[Float[Tensor, "crops S D"]]:
        """Return the features of units, each the frames that are held of it, joined along time."""
        if not self.in_batches:
            return [self._run(self.backbone.backbone, unit) for unit in units]
        return [*self._run(self.backbone, torch.cat(units)).unflatten(0, (len(units), -1))]

    def _run(self, network: torch.nn.Module, frames: Tensor) -> Float[Tensor, "N S D"]:
        images = (frames if self._crops_frames else self._crop(frames)).to(self.device)
        with torch.autocast(self.device.type, enabled=False):
            return network(images if self._normalize is None else self._normalize(images)).cpu()
