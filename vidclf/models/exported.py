"""A whole classifier in one file, for ONNX Runtime or torch: resized frames in, log-probabilities out.

torch.export traces it for any number of views, and of frames where the networks allow that; torch's exporter
translates the trace to ONNX.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vidclf.errors import VidclfError
from vidclf.models.backbones import int8
from vidclf.models.backbones.int8 import Int8Backbone, open_session, quiet
from vidclf.models.classifier import Classifier, example_of
from vidclf.system.messages import place_in_user_code

ENDINGS = {"onnx": ".onnx", "torch": ".pt2"}  # of the files, by format
INPUT, OUTPUT = "frames", "log_probabilities"
IMAGES, FEATURES = "images", "image_features"  # between an int8 network and the rest

Call = Callable[[Tensor], Tensor]


class Before(nn.Module):
    """Prepares the backbone's input: frames (N, T, 3, h, w) to the units that it computes at once.

    Args:
        normalize: the second half of the transform; None: the input is images.
        clip_length: of the backbone; for 1, units are single frames (N * T, 1, 3, h, w), else views.
    """

    def __init__(self, normalize: Call | None, clip_length: int) -> None:
        super().__init__()
        self.normalize, self.clip_length = normalize, clip_length

    def forward(self, frames: Tensor) -> Float[Tensor, "R t 3 h w"]:
        images = self.normalize(frames) if self.normalize else frames
        return images.flatten(0, 1).unsqueeze(1) if self.clip_length == 1 else images


class After(nn.Module):
    """Scores the backbone's output: features of units, `num_units` a view, to the log-probabilities of the video."""

    def __init__(self, classifier: Classifier, num_units: int = 1) -> None:
        super().__init__()
        self.scaling, self.head, self.aggregation = classifier.scaling, classifier.head, classifier.aggregation
        self.dtype, self.num_units = example_of(classifier.head, classifier.scaling).dtype, num_units

    def forward(self, features: Float[Tensor, "R S D"]) -> Float[Tensor, " K"]:
        views = features.to(self.dtype).unflatten(0, (-1, self.num_units)).flatten(1, 2)
        return self.aggregation(self.head(self.scaling(views)).float())


class WholeClassifier(nn.Module):
    """Frames (N, T, 3, h, w) to log-probabilities (K,), as a classifier on the CPU gives them, without its batches."""

    def __init__(self, classifier: Classifier, normalize: Call | None) -> None:
        super().__init__()
        self.before = Before(normalize, classifier.backbone.picture_format.clip_length)
        self.network, self.after = classifier.backbone.backbone, After(classifier)

    def forward(self, frames: Tensor) -> Float[Tensor, " K"]:
        features = self.network(self.before(frames))
        return self.after(features.reshape(frames.shape[0], -1, features.shape[-1]))


def export_classifier(classifier: Classifier, normalize: Call | None, num_frames: int, path: Path) -> bool:
    """Write a classifier, in float32 or int8, to a file; return whether it takes views of any number of frames.

    Args:
        classifier: on the CPU; its parameters want no gradient afterwards.
        normalize: see `Before`.
        num_frames: of a view.
        path: ends in one of ENDINGS.

    Raises:
        VidclfError: it cannot be traced, or the format cannot hold it.
    """
    classifier.eval().requires_grad_(False)
    size, kind = classifier.backbone.picture_format.size, torch.uint8 if normalize else torch.float32
    if isinstance(classifier.backbone.backbone, Int8Backbone):
        _export_int8(classifier, normalize, torch.zeros(2, num_frames, 3, size, size, dtype=kind), path)
        return False
    whole = WholeClassifier(classifier, normalize)
    # Lengths of 1 are never traced as variable.
    program = trace(whole, torch.zeros(2, max(2, num_frames), 3, size, size, dtype=kind), {0: Dim.DYNAMIC, 1: Dim.AUTO})
    takes_any = isinstance(_input_of(program).shape[1], torch.SymInt)
    if num_frames == 1 and not takes_any:
        program = trace(whole, torch.zeros(2, 1, 3, size, size, dtype=kind), {0: Dim.DYNAMIC})
    save(program, path)
    return takes_any


def export_crop(crop: nn.Module, path: Path) -> None:
    """Write the module that resizes decoded frames (V, T, 3, H, W) to a file, for frames of any number and size."""
    frames = torch.zeros(2, 3, 3, 48, 64, dtype=torch.uint8)
    save(trace(crop, frames, dict.fromkeys((0, 1, 3, 4), Dim.DYNAMIC)), path, (INPUT, IMAGES))


def trace(module: nn.Module, example: Tensor, dims: Mapping[int, Any]) -> ExportedProgram:
    """Trace a module of one input for lengths that vary.

    Raises:
        VidclfError: it cannot be traced; the message says where.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its kernels are in no exchange format
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(module.eval(), (example,), dynamic_shapes=(dict(dims),))
    except Exception as error:  # of a user's forward: anything
        raise VidclfError(
            f"export: the classifier cannot be traced ({_reason(error)}). Use only tensor operations in the forward of "
            "a head, a backbone or an aggregation, for any number of views and without branches on values."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def save(program: ExportedProgram, path: Path, names: tuple[str, str] = (INPUT, OUTPUT)) -> None:
    """Write a trace to a file, in the format of its ending.

    Raises:
        VidclfError: ONNX has no such operation.
    """
    if path.suffix == ENDINGS["torch"]:
        with quiet():
            torch.export.save(program, path)
        return
    try:
        with quiet():
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=[names[0]], output_names=[names[1]]
            )
            assert exported is not None
            exported.save(str(path), external_data=False)
    except Exception as error:
        raise VidclfError(
            f"format=onnx: torch cannot translate this classifier to ONNX ({_reason(error)}). Use format=torch."
        ) from error


def open_model(path: Path, arithmetic: str = "") -> Call:
    """Return the function in a file that `save` wrote.

    Raises:
        VidclfError: ONNX Runtime has no such operation.
    """
    if path.suffix == ENDINGS["torch"]:
        return torch.export.load(path).module()
    try:
        session = open_session(path, arithmetic)
    except Exception as error:  # classes of onnxruntime's own
        raise VidclfError(
            f"format=onnx: ONNX Runtime cannot run this classifier ({_reason(error)}). Use format=torch."
        ) from error
    return lambda frames: torch.from_numpy(session.run(None, {INPUT: frames.numpy()})[0])


def _export_int8(classifier: Classifier, normalize: Call | None, frames: Tensor, path: Path) -> None:
    """Write a classifier with an int8 backbone: its quantised network, between what comes before and after it."""
    import onnx
    from onnx import compose

    if path.suffix != ENDINGS["onnx"]:
        raise VidclfError("format=torch: ONNX Runtime computes the int8 backbone of this run. Use format=onnx.")
    network: Any = classifier.backbone.backbone
    before, after = Before(normalize, 1), After(classifier, num_units=frames.shape[1])
    images = before(frames)
    features = torch.zeros(len(images), *network(images).shape[1:])
    with quiet() as folder:
        save(trace(before, frames, {0: Dim.DYNAMIC}), folder / "before.onnx", (INPUT, IMAGES))
        save(trace(after, features, {0: Dim.AUTO}), folder / "after.onnx", (FEATURES, OUTPUT))
        quantised = onnx.load(network.quantise(images, folder, of_any_number=True))
        first, last = (
            compose.add_prefix(onnx.load(folder / f"{name}.onnx"), name, rename_inputs=False, rename_outputs=False)
            for name in ("before", "after")
        )
        joined = compose.merge_models(first, quantised, [(IMAGES, int8.INPUT)])
        onnx.save(compose.merge_models(joined, last, [(int8.OUTPUT, FEATURES)]), path)


def _input_of(program: ExportedProgram) -> Tensor:
    name = program.graph_signature.user_inputs[0]
    return next(node for node in program.graph.nodes if node.name == name).meta["val"]


def _reason(error: BaseException) -> str:
    """Return an error's kind and first line, and the line of a user's code that it came through."""
    place = place_in_user_code(error)
    first = next(iter(str(error.__cause__ or error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first[:200]}{f', {place}' if place else ''}"
