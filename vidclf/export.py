"""Write a run's whole classifier to a folder, for ONNX Runtime or torch, once it is shown to equal the run."""

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.errors import InstantiationException
from jaxtyping import Float, UInt8
from torch import Tensor

from vidclf.build.datasets import build_corpus
from vidclf.build.parts import build_backbone, build_node, build_transform, restore_classifier
from vidclf.comparison.scored import read_metrics
from vidclf.contracts import Backbone, Sampling, Video, optional
from vidclf.data.catalogue import VideoFacts
from vidclf.data.corpus import window_of
from vidclf.data.decoding import decode_frames, inspect
from vidclf.data.listing import find_videos
from vidclf.data.resizing import traceable_crop
from vidclf.data.transforms import halves_of
from vidclf.errors import VidclfError, VideoError
from vidclf.models.backbones.int8 import Int8Backbone
from vidclf.models.backbones.wrap import FrozenBackbone
from vidclf.models.classifier import Classifier
from vidclf.models.exported import ENDINGS, export_classifier, export_crop, open_model
from vidclf.prediction.files import Predictor
from vidclf.prediction.package import Package
from vidclf.run.compatible import read_split
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.system.disk import making_folder, writing_to
from vidclf.system.extras import require
from vidclf.system.terminal import say, table, track

NUM_CLIPS = 30  # that the exported model and the run are compared on
MAX_DIFFERENCE = 1e-3  # of log-probabilities in float32


@dataclass
class Comparison:
    """Compares an exported model's log-probabilities with those of a classifier.

    Attributes:
        difference: the largest, on the video `where`.
        num_same: how many of the `num_clips` videos have the same label.
    """

    difference: float = 0.0
    where: str = ""
    num_same: int = 0
    num_clips: int = 0

    def add(self, name: str, exported: Float[Tensor, " K"], expected: Float[Tensor, " K"]) -> None:
        """Compare the log-probabilities of one more video."""
        difference = float((exported - expected).abs().nan_to_num(nan=math.inf).max())
        if difference > self.difference:
            self.difference, self.where = difference, name
        self.num_same += int(exported.argmax() == expected.argmax())
        self.num_clips += 1

    def __str__(self) -> str:
        return f"{self.difference:.1e}; same label on {self.num_same} of {self.num_clips} clips"


def run(config: Config, run: Run | None) -> None:
    """Write the model, what it needs, a model card and an example to the folder `to`; print how it compares."""
    assert run is not None
    to = Path(config["to"]).expanduser()
    ending = _check_target(to, config["format"])
    config = {**config, "trainer": {**config["trainer"], "accelerator": "cpu", "devices": 1}}
    clips = _choose_clips(config, run)
    classifier = restore_classifier(config, run)
    in_float32 = _in_float32(config, classifier)
    sampling, transform = build_node(config["sampling"]), build_transform(config, classifier.backbone.picture_format)
    predictors = [
        Predictor(one, sampling, transform, run.class_names, torch.device("cpu")) for one in (in_float32, classifier)
    ]
    num_frames = sampling(1000, 25.0).shape[1]  # the same for every video
    first_half, normalize = halves_of(transform)
    crop, arithmetic = traceable_crop(transform), optional(classifier.backbone.backbone, Backbone, "arithmetic")
    with writing_to(to, "Name another folder with to=..."), making_folder(to) as folder:
        model, resize = folder / f"model{ending}", folder / f"resize{ending}"
        takes_any = export_classifier(in_float32, normalize, num_frames, model)
        if crop is not None:
            export_crop(crop, resize)
        prepare, label = open_model(resize) if crop else first_half, open_model(model, arithmetic)
        exact, of_run = _compare(lambda frames: label(prepare(frames)), predictors, clips)
        if exact.difference > MAX_DIFFERENCE:
            raise VidclfError(
                f"to={to}: nothing was written, because log-probabilities of the exported model and of the run differ "
                f"by {exact.difference:.2g} on {exact.where}, and {MAX_DIFFERENCE} is allowed. Use another format, or "
                "other versions of torch and onnxruntime."
            )
        parity = {"largest difference of log-probabilities": str(exact)}
        if in_float32 is not classifier:
            parity[f"and from the run's own in {classifier.backbone.precision}"] = str(of_run)
        Package(
            *(run, config, classifier.backbone, sampling, transform, None if takes_any else num_frames),
            *(config["format"], crop is not None, normalize is not None, parity, _read_scores(run)),
        ).write(folder, ending)
    frames = {"frames of a view": "any number" if takes_any else num_frames}
    table(f"Exported {run.folder}", {"views": "any number", **frames, **parity}, f"folder {to}")


def _check_target(to: Path, export_format: str) -> str:
    """Return the ending of the model's file; raise VidclfError if it cannot be made, or the folder not written."""
    ending = ENDINGS.get(export_format)
    if ending is None:
        raise VidclfError(f"format={export_format}: must be one of {', '.join(ENDINGS)}.")
    if export_format == "onnx":
        require("onnxruntime", "1.32", "export", "format=onnx")
        require("onnxscript", "0.7", "export", "format=onnx")
    if to.exists() or to.is_symlink():
        raise VidclfError(f"to={to}: it exists. Choose another name or delete it.")
    if not to.parent.is_dir():
        raise VidclfError(f"to={to}: there is no folder {to.parent}. Make it, or choose another.")
    try:
        to.mkdir()
        to.rmdir()
    except OSError as error:
        raise VidclfError(f"to={to}: no folder can be made there ({error.strerror}). Choose another.") from error
    return ending


def _read_scores(run: Run) -> dict[str, dict[str, float]]:
    folders = {"validation": run.folder, "test": run.folder / "test"}
    return {part: read_metrics(folder) for part, folder in folders.items() if (folder / "metrics.json").is_file()}


def _choose_clips(config: Config, run: Run) -> list[Video]:
    """Return the clips to compare on: those that `clips` names, or validation videos of the run, up to NUM_CLIPS."""
    window_s = config["dataset"].get("window_s")
    if config["clips"]:
        named = Path(config["clips"]).expanduser()
        paths = find_videos(named)[0] if named.is_dir() else [named]
        if not paths:
            raise VidclfError(f"clips={named}: no video below this folder.")
        videos = [Video(path, 0, "", start_s=window_s and 0.0, end_s=window_s) for path in paths]
    else:
        names = {row["video"] for row in read_split(run) if "val" in row["side"].split("+")}
        try:
            videos = [video for video in build_corpus(config).videos if video.name in names and video.path.is_file()]
        except (VidclfError, InstantiationException) as error:
            raise VidclfError(f"{error.__cause__ or error}\nOr compare on other videos: clips=FOLDER.") from error
        if not videos:
            raise VidclfError(
                f"run={run.folder}: none of its {len(names)} validation videos is here, and the exported model is "
                "compared with the run on videos. Name some with clips=FOLDER, or say where its own are: "
                "dataset.root=..."
            )
    count = min(len(videos), NUM_CLIPS)
    return [videos[number * len(videos) // count] for number in range(count)]


def _in_float32(config: Config, classifier: Classifier) -> Classifier:
    """Return a run's classifier with features in float32: ONNX Runtime computes in no bfloat16 on a CPU."""
    backbone = classifier.backbone
    if backbone.precision == "float32":
        return classifier
    if isinstance(backbone.backbone, Int8Backbone):
        network = copy(backbone.backbone)
        network.precision = "float32"
        return Classifier(FrozenBackbone(network), classifier.scaling, classifier.head, classifier.aggregation)
    if "precision" not in config["backbone"]:
        raise VidclfError(
            f"backbone: {backbone.name} computes in {backbone.precision} and has no setting precision; an exported "
            "model computes in float32. Give its constructor an argument `precision`."
        )
    in_float32 = build_backbone({**config, "backbone": {**config["backbone"], "precision": "float32"}})
    return Classifier(in_float32, classifier.scaling, classifier.head, classifier.aggregation)


def _compare(
    exported: Callable[[Tensor], Tensor], predictors: Sequence[Predictor], clips: Sequence[Video]
) -> list[Comparison]:
    """Compare an exported model, of decoded frames, with predictors; damaged clips are left out with a notice."""
    comparisons = [Comparison() for _ in predictors]
    for video in track(clips, len(clips), "Comparing", "clips"):
        try:
            frames = _frames_of(video, predictors[0].sampling)
        except VideoError as error:
            say(f"left out: {error}")
            continue
        computed = exported(frames)
        for predictor, comparison in zip(predictors, comparisons, strict=True):
            features = predictor.classifier.backbone(predictor.transform(frames))
            comparison.add(video.name, computed, predictor.score(features, video.name))
    if not comparisons[0].num_clips:
        raise VidclfError("clips: none of them can be read; see above. Name others with clips=...")
    return comparisons


def _frames_of(video: Video, sampling: Sampling) -> UInt8[Tensor, "V T 3 H W"]:
    info = inspect(video.path)
    first, num_frames = window_of(video, VideoFacts("", info))
    return decode_frames(video.path, info.frames_at(first + sampling(num_frames, info.fps)), whole=True)
