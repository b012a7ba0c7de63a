"""An image backbone in 8-bit integers, by ONNX Runtime: several times as fast on a CPU, and a little less exact.

Static quantisation (Jacob et al., 2018, arXiv:1712.05877): weights by channel, activations by the range that
calibration saw of each. The network is exported by torch.onnx and quantised by onnxruntime.quantization.
"""

import contextlib
import io
import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import Backbone, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import picture_format_of
from vidclf.system.extras import require
from vidclf.system.machine import computes_in_bfloat16

Ranges = dict[str, list[float]]  # of each tensor of the exported network: smallest, largest

PRODUCTS = ("Conv", "Gemm", "MatMul")
CARRIED = ("Relu", "Clip", "MaxPool", "AveragePool")  # between products: integers stay integers
FASTER = ("vgg16", "resnet50", "efficientnet_lite0")  # 1.5 times bfloat16's rate or more: experiments/benchmark
MAX_BYTES = 2**31 - 1  # of an ONNX file without files beside it
EXPORT_ERROR = 1e-3  # of the exported network's features, relative to the backbone's own


class Int8Backbone(nn.Module):
    """The features of a frozen image backbone of which convolutions and matrix products are computed in integers.

    Args:
        backbone: in float32.
        ranges: that the backbone was calibrated to before; None: `calibrate` follows.

    Attributes:
        precision: the number format of the features: bfloat16 where the CPU multiplies it, else float32.
        configuration: the ranges as text, and the backbone's own: part of the weights' hash.

    Raises:
        VidclfError: the backbone is trained or takes clips, the extra is not installed, or `ranges` are no ranges.
    """

    def __init__(self, backbone: nn.Module, ranges: object = None) -> None:
        super().__init__()
        require("onnxruntime", "1.32", "int8", "backbone.precision=int8")
        require("onnxscript", "0.7", "int8", "backbone.precision=int8")
        self.name = str(optional(backbone, Backbone, "name") or type(backbone).__name__.lower())
        self.picture_format = picture_format_of(backbone)
        if self.picture_format.clip_length > 1:
            raise VidclfError(
                f"backbone.precision=int8 is for backbones of images; {self.name} takes clips of "
                f"{self.picture_format.clip_length} frames. Leave it out."
            )
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            raise VidclfError("backbone.precision=int8 is for a frozen backbone. Leave it or backbone.trainable out.")
        self.feature_dim = cast(int, backbone.feature_dim)
        self.precision = "bfloat16" if computes_in_bfloat16("cpu") else "float32"
        self.backbone = backbone.eval()
        self.ranges = None if ranges is None else checked_ranges(ranges)
        self._sessions: dict[torch.Size, Any] = {}

    @property
    def configuration(self) -> str:
        """What beside the weights says what is computed."""
        return f"int8 {json.dumps(self.ranges, sort_keys=True)} {optional(self.backbone, Backbone, 'configuration')}"

    def calibrate(self, batches: Iterable[Float[Tensor, "N 1 3 h w"]]) -> Ranges:
        """Return between which values each tensor lies on training images, in batches of one size.

        Raises:
            VidclfError: the backbone cannot be exported, or the exported one computes something else.
        """
        batches = iter(batches)
        first = next(batches)
        with _quiet(), TemporaryDirectory() as folder:
            exported = _export(self.backbone, first, Path(folder))
            _check_export(self.backbone, exported, first)
            return _ranges_of(exported, chain([first], batches))

    def forward(self, images: Float[Tensor, "N 1 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of every image on its own; the network is exported for each N and size that comes.

        Raises:
            VidclfError: the backbone was not calibrated, or to another network.
        """
        if images.shape not in self._sessions:
            self._sessions[images.shape] = self._build_session(images)
        (features,) = self._sessions[images.shape].run(None, {"pictures": images.float().numpy()})
        return torch.from_numpy(features).to(getattr(torch, self.precision))

    def extra_repr(self) -> str:
        """Return what does not show in the layers."""
        return f"name={self.name}, precision=int8, features in {self.precision}"

    def __getstate__(self) -> dict[str, Any]:
        """Copies and other processes build a session of their own."""
        return {**self.__dict__, "_sessions": {}}

    def _build_session(self, images: Tensor) -> Any:
        import onnxruntime

        if self.ranges is None:
            raise VidclfError(
                "backbone.precision=int8 is calibrated on training images, by vidclf train and extract. "
                "Give run=..., or another backbone.precision."
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with _quiet(), TemporaryDirectory() as folder:
            exported = _export(self.backbone, images, Path(folder))
            quantised = _quantise(exported, self.ranges)
            return onnxruntime.InferenceSession(str(quantised), options, providers=["CPUExecutionProvider"])


def checked_ranges(ranges: Any) -> Ranges:
    """Return ranges as plain numbers, of whatever a configuration holds."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        found = {str(name): [float(value) for value in pair] for name, pair in ranges.items()}
        if found and all(len(pair) == 2 and -math.inf < pair[0] <= pair[1] < math.inf for pair in found.values()):
            return found
    raise VidclfError(
        "backbone.calibration: it gives each tensor of the network its smallest and largest value, two finite numbers. "
        "Train the run again."
    )


def _export(backbone: nn.Module, images: Tensor, folder: Path) -> Path:
    """Return the file of the backbone as an ONNX network for images of this shape, batch normalisation folded."""
    from onnxruntime.quantization import quant_pre_process

    name = type(backbone).__name__
    if (num_bytes := sum(tensor.nbytes for tensor in backbone.state_dict().values())) > MAX_BYTES:
        raise VidclfError(f"backbone.precision=int8: {name} has {num_bytes / 1e9:.1f} GB; an ONNX file holds 2 GB.")
    exported, folded = folder / "exported.onnx", folder / "folded.onnx"
    one = torch.zeros(images.shape)
    try:
        program = torch.onnx.export(
            backbone, (one,), dynamo=True, verbose=False, input_names=["pictures"], output_names=["features"]
        )
        assert program is not None
        program.save(str(exported))
        quant_pre_process(str(exported), str(folded), skip_symbolic_shape=True)
    except Exception as error:  # whatever torch's tracing has to say of a stranger's forward
        reason = str(error).strip().splitlines()
        raise VidclfError(
            f"backbone.precision=int8: {name} cannot be exported to ONNX ({type(error).__name__}: "
            f"{reason[0][:200] if reason else ''}). Its forward must be tensors' operations only, without branches on "
            "their values; or leave backbone.precision=int8 out."
        ) from error
    return folded


def _check_export(backbone: nn.Module, exported: Path, images: Tensor) -> None:
    """Raise VidclfError unless the exported network computes what the backbone computes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"pictures": images.numpy()})[0])
    with torch.no_grad():
        right = backbone(images)
    error = float((found - right).norm() / right.norm().clamp(min=1e-12)) if found.shape == right.shape else math.inf
    if not error < EXPORT_ERROR:
        raise VidclfError(
            f"backbone.precision=int8: {type(backbone).__name__}, exported to ONNX, computes something else: its "
            f"features differ by {error:.2g} of their norm (allowed {EXPORT_ERROR}). Leave it out."
        )


def _ranges_of(exported: Path, batches: Iterable[Tensor]) -> Ranges:
    from onnxruntime.quantization import create_calibrator

    augmented = exported.with_name("augmented.onnx")
    calibrator = create_calibrator(exported, [*PRODUCTS, *CARRIED], str(augmented))
    calibrator.collect_data(_Reader(batches))
    found = calibrator.compute_data()
    return {name: [float(value.item()) for value in data.range_value] for name, data in found.items()}


def _quantise(exported: Path, ranges: Ranges) -> Path:
    """Return the file of the network in integers."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

    cache, quantised = exported.with_name("ranges.json"), exported.with_name("quantised.onnx")
    as_arrays = {name: tuple(torch.tensor(pair).numpy()) for name, pair in ranges.items()}
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, as_arrays), cache)
    try:
        quantize_static(
            exported,
            quantised,
            calibration_cache_path=cache,
            op_types_to_quantize=[*PRODUCTS, *CARRIED],
            per_channel=True,
            activation_type=QuantType.QUInt8,  # with signed weights: what AVX-512 VNNI multiplies
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},  # attention's own products stay as they are
        )
    except ValueError as error:
        raise VidclfError(
            "backbone.calibration is of another network, or of one that another version of torch exported "
            f"({str(error).strip().splitlines()[0][:200]}). Use the run's own backbone and the versions of torch and "
            "onnxruntime that it was trained with, or train it again."
        ) from error
    return quantised


class _Reader:
    """Batches, as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterable[Tensor]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"pictures": batch.numpy()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to themselves what the exporter and the quantiser print and warn of; errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
