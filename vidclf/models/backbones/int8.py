"""An image backbone in 8-bit integers, computed by ONNX Runtime: faster on a CPU and slightly less exact.

Static quantisation (Jacob et al., 2018, arXiv:1712.05877): weights by channel, activations by the ranges that
calibration measured. torch.onnx exports the network and onnxruntime.quantization quantises it.
"""

import contextlib
import io
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vidclf.contracts import Backbone, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.wrap import picture_format_of
from vidclf.system.disk import scratch_folder
from vidclf.system.extras import require
from vidclf.system.machine import computes_in_bfloat16, saturates_int8

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported, which asks the network otherwise

Ranges = dict[str, list[float]]  # the smallest and largest value of each tensor of the exported network

PRODUCTS = ("Conv", "Gemm", "MatMul")
CARRIED = ("Relu", "Clip", "MaxPool", "AveragePool")  # stay in integers between products
FASTER = ("vgg16", "resnet50", "efficientnet_lite0")  # at least 1.5 times bfloat16's rate: experiments/benchmark
INPUT, OUTPUT = "pictures", "features"  # of the network; the input's name is part of the ranges
EXPORT_ERROR = 1e-3  # allowed error of the exported network's features, relative to their norm


class Int8Backbone(nn.Module):
    """Computes the convolutions and matrix products of a frozen image backbone in 8-bit integers.

    Args:
        backbone: in float32.
        ranges: from an earlier calibration; None: `calibrate` must be called first.

    Attributes:
        ranges: the smallest and largest value of each tensor; `calibrate` sets them.
        precision: the number format of the features: bfloat16 where the CPU multiplies it, else float32.
        arithmetic: `exact sums` where the processor's own could overflow; slower.
        configuration: the ranges as text and the backbone's own configuration; part of the weights' hash.
    """

    compilable = False  # ONNX Runtime computes the layers

    def __init__(self, backbone: nn.Module, ranges: object = None) -> None:
        super().__init__()
        require("onnxruntime", "1.32", "int8", "backbone.precision=int8")
        require("onnxscript", "0.7", "int8", "backbone.precision=int8")
        self.name = str(optional(backbone, Backbone, "name") or type(backbone).__name__.lower())
        self.picture_format = picture_format_of(backbone)
        if self.picture_format.clip_length > 1:
            raise VidclfError(
                f"backbone.precision=int8 is for image backbones, and {self.name} takes clips of "
                f"{self.picture_format.clip_length} frames. Leave it out."
            )
        if any(parameter.requires_grad for parameter in backbone.parameters()):
            raise VidclfError("backbone.precision=int8 is for a frozen backbone. Leave it or backbone.trainable out.")
        self.feature_dim = cast(int, backbone.feature_dim)
        self.precision = "bfloat16" if computes_in_bfloat16("cpu") else "float32"
        self.arithmetic = "exact sums" if saturates_int8() else ""
        self.backbone = backbone.eval()
        self.ranges = None if ranges is None else checked_ranges(ranges)
        self._sessions: dict[torch.Size, Any] = {}

    @property
    def configuration(self) -> str:
        """Text that determines the features besides the weights."""
        return f"int8 {json.dumps(self.ranges, sort_keys=True)} {optional(self.backbone, Backbone, 'configuration')}"

    def calibrate(self, batches: Iterable[Float[Tensor, "N 1 3 h w"]]) -> Ranges:
        """Measure, keep and return the range of each tensor on training images, in batches of one size."""
        from onnxruntime.quantization import create_calibrator

        batches = iter(batches)
        first = next(batches)
        with quiet() as folder:
            exported = _export(self.backbone, first, folder)
            _check_export(self.backbone, exported, first)
            calibrator = create_calibrator(exported, [*PRODUCTS, *CARRIED], str(folder / "augmented.onnx"))
            inputs = ({INPUT: batch.numpy()} for batch in chain([first], batches))
            calibrator.collect_data(SimpleNamespace(get_next=lambda: next(inputs, None)))
            ranges = calibrator.compute_data()
        self.ranges = {name: [float(end.item()) for end in data.range_value] for name, data in ranges.items()}
        return self.ranges

    def forward(self, images: Float[Tensor, "N 1 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of each image; the network is exported for each new N and image size."""
        if images.shape not in self._sessions:
            self._sessions[images.shape] = self._build_session(images)
        (features,) = self._sessions[images.shape].run(None, {INPUT: images.float().numpy()})
        return torch.from_numpy(features).to(getattr(torch, self.precision))

    def __getstate__(self) -> dict[str, Any]:
        """Leave the sessions out: copies and other processes build new ones."""
        return {**self.__dict__, "_sessions": {}}

    def _build_session(self, images: Tensor) -> Any:
        with quiet() as folder:
            return open_session(self.quantise(images, folder), self.arithmetic)

    def quantise(self, images: Tensor, folder: Path, of_any_number: bool = False) -> Path:
        """Write the network for images of this shape, quantised, into `folder`; return the ONNX file."""
        if self.ranges is None:
            raise VidclfError(
                "backbone.precision=int8 is calibrated on training images, by vidclf train and extract. "
                "Use run=..., or another backbone.precision."
            )
        return _quantise(_export(self.backbone, images, folder, of_any_number), self.ranges)


def open_session(path: Path, arithmetic: str = "") -> Any:
    """Return ONNX Runtime's session for a file; `arithmetic` as in `Int8Backbone`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    if arithmetic:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def checked_ranges(ranges: Any) -> Ranges:
    """Return the ranges of a configuration or file as plain numbers."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        numbers = {str(name): [float(end) for end in ends] for name, ends in ranges.items()}
        if numbers and all(len(ends) == 2 and -math.inf < ends[0] <= ends[1] < math.inf for ends in numbers.values()):
            return numbers
    raise VidclfError(
        "backbone.calibration: each tensor of the network needs its smallest and largest value, two finite numbers. "
        "Train the run again."
    )


def _export(backbone: nn.Module, images: Tensor, folder: Path, of_any_number: bool = False) -> Path:
    """Export the backbone for images of this shape, fold batch normalisation, and return the ONNX file."""
    from onnxruntime.quantization import quant_pre_process

    name = type(backbone).__name__
    exported, folded = folder / "exported.onnx", folder / "folded.onnx"
    shapes = ({0: torch.export.Dim.DYNAMIC},) if of_any_number else None
    try:
        program = torch.onnx.export(
            backbone,
            (torch.zeros(images.shape),),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=shapes,
        )
        assert program is not None
        program.save(str(exported))
        quant_pre_process(str(exported), str(folded), skip_symbolic_shape=True)
    except Exception as error:  # tracing a user's forward can raise anything
        reason = str(error).strip().splitlines()
        raise VidclfError(
            f"backbone.precision=int8: {name} cannot be exported to ONNX ({type(error).__name__}: "
            f"{reason[0][:200] if reason else ''}). Use only tensor operations in its forward, without branches "
            "on their values, or leave backbone.precision=int8 out."
        ) from error
    return folded


def _check_export(backbone: nn.Module, exported: Path, images: Tensor) -> None:
    """Raise VidclfError unless the exported network computes what the backbone computes."""
    session = open_session(exported)
    features = torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])
    with torch.no_grad():
        expected = backbone(images)
    error = math.inf
    if features.shape == expected.shape:
        error = float((features - expected).norm() / expected.norm().clamp(min=1e-12))
    if not error < EXPORT_ERROR:
        raise VidclfError(
            f"backbone.precision=int8: {type(backbone).__name__}, exported to ONNX, computes other features: "
            f"they differ by {error:.2g} of their norm (allowed: {EXPORT_ERROR}). Leave it out."
        )


def _quantise(exported: Path, ranges: Ranges) -> Path:
    """Quantise the exported network and return its file."""
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
            activation_type=QuantType.QUInt8,  # with signed weights: the pair that AVX-512 VNNI multiplies
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},  # products of two activations (attention) stay in float32
        )
    except ValueError as error:
        raise VidclfError(
            "backbone.calibration belongs to another network or to an export by another version of torch "
            f"({str(error).strip().splitlines()[0][:200]}). Use the run's backbone and the versions of torch and "
            "onnxruntime that it was trained with, or train it again."
        ) from error
    return quantised


@contextlib.contextmanager
def quiet() -> Iterator[Path]:
    """Silence the exporter and the quantiser (errors are still raised); yield a folder for their temporary files."""
    level, default_folder = logging.root.manager.disable, tempfile.tempdir
    logging.disable(logging.WARNING)
    try:
        with scratch_folder() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            tempfile.tempdir = str(folder)
            yield folder
    finally:
        tempfile.tempdir = default_folder
        logging.disable(level)
