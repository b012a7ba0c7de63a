"""Calibrating an int8 backbone on about a hundred training images; the ranges are kept in the feature store."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import Transform
from vidclf.data.corpus import Corpus
from vidclf.data.decoding import errors_name_video
from vidclf.data.transforms import halves_of
from vidclf.errors import VidclfError, VideoError
from vidclf.features.extract import images_of
from vidclf.features.recipe import hash_weights
from vidclf.features.store import REMEDY
from vidclf.models.backbones.int8 import CARRIED, FASTER, PRODUCTS, Int8Backbone, Ranges, checked_ranges
from vidclf.system.disk import check_links, locked, write_json, writing_to
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say

NUM_IMAGES = 128
MIN_IMAGES = 64
BATCH_SIZE = 8  # the exported network is compared with the backbone on the first batch


def calibrate(
    network: Int8Backbone, transform: Transform, recipe: Mapping[str, object], corpus: Corpus, seed: int, root: Path
) -> None:
    """Calibrate the network on training images, or read the ranges that an earlier calibration has written.

    Args:
        network: not calibrated yet.
        transform: frames -> images.
        recipe: the resolved configuration of the backbone and of the transform.
        corpus: only its training part is read.
        seed: determines the frames.
        root: folder of the feature store; the ranges are kept in its `calibrations`.
    """
    frames = _draw(corpus, seed)
    key = {
        "weights": hash_weights(network.backbone),
        "recipe": recipe,
        "integers": (PRODUCTS, CARRIED),
        "frames": [(corpus.facts[video].content, indices) for video, indices in frames.items()],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = root / "calibrations" / f"{digest}.json"
    with writing_to(root, REMEDY):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_links(path.parent, within=root)
        with locked(path.with_suffix(".lock")):
            if ranges := _read(path):
                network.ranges = ranges
                return
            say(f"backbone.precision=int8: calibrating on {sum(map(len, frames.values()))} training images.")
            if network.name not in FASTER:
                say(
                    f"int8 was measured to be at least 1.5 times as fast as bfloat16 for {', '.join(FASTER)} "
                    f"(experiments/benchmark). {network.name} was not: compare both before you rely on int8."
                )
            write_json(path, network.calibrate(_batches(frames, corpus, transform)))


def _draw(corpus: Corpus, seed: int) -> dict[int, list[int]]:
    """Return frames of training views by video, each frame once, drawn by the seed alone."""
    frames = [(video.video, frame) for video in corpus.views("train") for frame in video.frames.unique().tolist()]
    if len(frames) < MIN_IMAGES:
        raise VidclfError(
            f"backbone.precision=int8: the training part has {len(frames)} frames, and calibration needs {MIN_IMAGES}. "
            "Add videos, raise sampling.rate_hz, or leave backbone.precision=int8 out."
        )
    num_images = min(NUM_IMAGES, len(frames) // BATCH_SIZE * BATCH_SIZE)
    order = torch.randperm(len(frames), generator=generator_for(seed, "calibration"))[:num_images]
    drawn: dict[int, list[int]] = {}
    for video, frame in sorted(frames[index] for index in order.tolist()):
        drawn.setdefault(video, []).append(frame)
    return drawn


def _batches(
    frames: Mapping[int, list[int]], corpus: Corpus, transform: Transform
) -> Iterator[Float[Tensor, "8 1 3 h w"]]:
    """Yield whole batches of images; a damaged video is handled as the data set's `on_error` says."""
    crop, normalize = halves_of(transform)
    waiting: list[Tensor] = []
    for video, indices in frames.items():
        units = torch.tensor(indices)[:, None]
        path = corpus.videos[video].path
        try:
            with errors_name_video(path):
                crops = [images[:, 0] for _, images in images_of(path, units, crop)]
            corpus.facts[video].check_unchanged(path)
        except VideoError as error:
            corpus.exclude(video, error)
            continue
        waiting += torch.cat(crops).split(1)
        while len(waiting) >= BATCH_SIZE:
            images = torch.cat(waiting[:BATCH_SIZE])
            yield images if normalize is None else normalize(images)
            del waiting[:BATCH_SIZE]


def _read(path: Path) -> Ranges | None:
    try:
        return checked_ranges(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError, VidclfError):  # an unreadable file is calibrated anew
        return None
