"""What an int8 backbone is calibrated to: some hundred training images, drawn by the seed, and what they gave."""

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
from vidclf.system.disk import locked, write_json, writing_to
from vidclf.system.seeds import generator_for
from vidclf.system.terminal import say

NUM_IMAGES = 128
FEWEST = 64
BATCH = 8  # of which the exported network is checked on the first

Drawn = dict[int, list[int]]  # of each video, the frames


def calibrate(
    network: Int8Backbone, transform: Transform, recipe: Mapping[str, object], corpus: Corpus, seed: int, root: Path
) -> Ranges:
    """Return the ranges of `network` on training images; they are kept below `root`.

    Args:
        network: not calibrated yet.
        transform: frames -> images.
        recipe: the resolved configuration of the backbone and of the transform.
        corpus: whose training part is drawn from, and nothing else.
        seed: of the draw.
        root: of the feature store.

    Raises:
        VidclfError: the training part has too few frames, or the network cannot be exported.
    """
    drawn = _draw(corpus, seed)
    what = {
        "weights": hash_weights(network.backbone),
        "recipe": recipe,
        "integers": (PRODUCTS, CARRIED),
        "frames": [(corpus.facts[video].content, frames) for video, frames in drawn.items()],
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = root / "calibrations"
    path = folder / f"{digest}.json"
    with writing_to(root, REMEDY):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if kept := _read(path):
                return kept
            say(f"backbone.precision=int8: calibrating on {sum(map(len, drawn.values()))} training images.")
            if network.name not in FASTER:
                say(
                    f"At least 1.5 times bfloat16's rate was measured for {', '.join(FASTER)} (experiments/benchmark). "
                    f"{network.name} is none of them: compare both before you rely on int8."
                )
            ranges = network.calibrate(_batches(drawn, corpus, transform))
            write_json(path, ranges)
    return ranges


def _draw(corpus: Corpus, seed: int) -> Drawn:
    """Return frames of training views, each once, drawn by the seed alone."""
    frames = [(one.video, frame) for one in corpus.views("train") for frame in one.frames.unique().tolist()]
    if len(frames) < FEWEST:
        raise VidclfError(
            f"backbone.precision=int8: the training part shows {len(frames)} frames, and calibration needs {FEWEST} or "
            "more. Give it more videos or a higher sampling.rate_hz, or leave backbone.precision=int8 out."
        )
    num_drawn = min(NUM_IMAGES, len(frames) // BATCH * BATCH)
    order = torch.randperm(len(frames), generator=generator_for(seed, "calibration"))[:num_drawn]
    drawn: Drawn = {}
    for video, frame in sorted(frames[index] for index in order.tolist()):
        drawn.setdefault(video, []).append(frame)
    return drawn


def _batches(drawn: Drawn, corpus: Corpus, transform: Transform) -> Iterator[Float[Tensor, "8 1 3 h w"]]:
    """Yield whole batches of the drawn frames' images; a damaged video's are left out as the data set says."""
    crop, normalize = halves_of(transform)
    waiting: list[Tensor] = []
    for video, frames in drawn.items():
        units = torch.tensor(frames)[:, None]
        path = corpus.videos[video].path
        try:
            with errors_name_video(path):
                found = [images[:, 0] for _, images in images_of(path, units, crop)]
        except VideoError as error:
            corpus.exclude(video, error)
            continue
        waiting += torch.cat(found).split(1)
        while len(waiting) >= BATCH:
            images = torch.cat(waiting[:BATCH])
            yield images if normalize is None else normalize(images)
            del waiting[:BATCH]


def _read(path: Path) -> Ranges | None:
    try:
        return checked_ranges(json.loads(path.read_bytes()))
    except (OSError, ValueError, VidclfError):  # calibrated anew
        return None
