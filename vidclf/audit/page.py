"""What `vidclf check` found, on one page that loads nothing and runs nothing, and as a table of sound videos."""

import base64
import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch
from matplotlib.image import imsave
from torchvision.transforms.v2 import functional as F

from vidclf.audit.findings import Findings
from vidclf.audit.lookalikes import Unit
from vidclf.contracts import PARTS, Dataset, VideoViews, optional
from vidclf.data.decoding import decode_frames
from vidclf.errors import VidclfError, VideoError
from vidclf.pages.rendering import Table, render_page
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize

MANY_KINDS = 8  # of one property that are shown, the commonest
MANY_PAIRS = 40  # that are shown with their frames, those on two sides of the split first
STRIP_FRAMES, STRIP_HEIGHT = 8, 64  # of the strip of frames beside a video, in pixels


def table_of_classes(checked: Findings) -> Table:
    """Return for each class its numbers of videos and groups, on each side, and the lengths of its videos in s."""
    corpus, rows = checked.corpus, []
    for label, name in enumerate(corpus.class_names):
        own = [video for video, known in enumerate(corpus.videos) if known.label == label]
        lengths = [checked.duration_s(video) for video in own if video in corpus.facts] or [0.0]
        sides = Counter(corpus.split.parts[video] for video in own)
        groups = {corpus.videos[video].unit for video in own}
        spread = [f"{length:.1f} s" for length in (min(lengths), median(lengths), max(lengths))]
        rows.append([name, len(own), len(groups), *(sides[part] for part in PARTS), *spread])
    return Table(["class", "videos", "groups", *PARTS, "shortest", "median", "longest"], rows)


def table_of_kinds(checked: Findings) -> Table:
    """Return how many videos of each class have which size, rate, codec, format and sound, the commonest first."""
    corpus = checked.corpus
    kinds: dict[str, Counter[str]] = {}
    of_class: Counter[tuple[str, str, int]] = Counter()
    for video, container in checked.containers.items():
        info, label = corpus.facts[video].info, corpus.videos[video].label
        seen = {
            "size": f"{info.width}x{info.height}",
            "frames a second": f"{info.fps:.5g}" + (", uneven" if info.shown_from else ""),
            "codec": container.codec,
            "format": container.format,
            "sound": "yes" if container.has_sound else "no",
        }
        for name, value in seen.items():
            kinds.setdefault(name, Counter())[value] += 1
            of_class[name, value, label] += 1
    labels = range(len(corpus.class_names))
    rows = [
        [name, value, count, *(of_class[name, value, label] for label in labels)]
        for name, counts in kinds.items()
        for value, count in counts.most_common(MANY_KINDS)
    ]
    return Table(["", "value", "videos", *corpus.class_names], rows)


def write_page(path: Path, checked: Findings) -> None:
    """Write what was found into one HTML file, whatever names it holds."""
    corpus = checked.corpus
    names = [video.name for video in corpus.videos]
    torn = {pair[:2] for pair in checked.torn_pairs}
    shown = sorted(checked.pairs, key=lambda pair: pair[:2] not in torn)[:MANY_PAIRS]
    strips = _strips(checked, {video for pair in shown for video in pair[:2]})
    page = render_page(
        "check.html",
        title=f"{type(corpus.dataset).__name__} {optional(corpus.dataset, Dataset, 'root') or ''}",
        num_videos=len(names),
        num_groups=len({video.unit for video in corpus.videos}),
        problems=checked.problems,
        classes=table_of_classes(checked),
        kinds=table_of_kinds(checked),
        container=checked.container,
        one_frame=checked.one_frame,
        failed=Table(
            ["video", "reason"], [[names[video], str(error)] for video, error in sorted(corpus.failed.items())]
        ),
        copies=[
            Table(["video", "side"], [[names[video], corpus.split.parts[video]] for video in same])
            for same in sorted(checked.copies, key=lambda same: same not in checked.torn_copies)
        ],
        num_pairs=len(checked.pairs),
        pairs=[
            {
                "closeness": pair.closeness,
                "is_torn": pair[:2] in torn,
                "videos": [(names[video], corpus.split.parts[video], strips.get(video)) for video in pair[:2]],
            }
            for pair in shown
        ],
        joined=Table(
            ["groups"], [["   =   ".join(name_unit(checked, unit) for unit in own)] for own in checked.joined]
        ),
    )
    write_atomically(path, page)


def write_manifest(path: Path, checked: Findings) -> None:
    """Write the sound videos, each once, as a table that `dataset=manifest` reads: look-alikes are of one group.

    Raises:
        VidclfError: a name is no text.
    """
    corpus = checked.corpus
    doubled = {video for same in checked.copies for video in same[1:]}
    for same in checked.copies:
        if len({corpus.videos[video].label for video in same}) > 1:
            doubled |= {*same}  # nobody knows which label is right
    kept = [video for video in sorted(checked.containers) if video not in doubled]
    first = {unit: own[0] for own in checked.joined for unit in own}
    inside, rows, outside = os.path.realpath(path.parent), list[list[object]](), 0
    for video in kept:
        one = corpus.videos[video]
        unit = first.get(one.unit, one.unit)
        real = os.path.realpath(one.path)
        lies_inside = Path(real).is_relative_to(inside)
        outside += not lies_inside
        written = os.path.relpath(real, inside) if lies_inside else os.path.abspath(one.path)
        times = ["" if time is None else time for time in (one.start_s, one.end_s)]
        rows.append([written, corpus.class_names[one.label], name_unit(checked, unit), *times])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["path", "label", "group", "start_s", "end_s"], *rows])
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError as error:
        bad = [str(row[0]) for row in rows if sanitize("".join(map(str, row))) != "".join(map(str, row))]
        raise VidclfError(
            f"out={path}: {len(bad)} name(s) are no UTF-8: {sanitize(first_five(bad))}. Rename them."
        ) from error
    write_atomically(path, content)
    anywhere = " dataset.anywhere=true" if outside else ""
    file = shlex.quote(f"dataset.file={path}")
    say(
        f"out={path}: {len(kept)} videos in {len({row[2] for row in rows})} groups; {len(corpus.failed)} that cannot "
        f"be read and {len(doubled)} copies are left out. Use it by dataset=manifest {file}{anywhere} split=grouped."
    )


def name_unit(checked: Findings, unit: Unit) -> str:
    """Return a group's name, after its class's where it is one of that class alone."""
    label, group = unit
    return group if label < 0 else f"{checked.corpus.class_names[label]}/{group}"


def _strips(checked: Findings, videos: set[int]) -> Mapping[int, str]:
    """Return a few frames of each video side by side, as JPEG in base64; none of one that has gone."""
    strips: dict[int, str] = {}
    for one in checked.corpus.all_views():
        if one.video in videos:
            try:
                strips[one.video] = _strip(checked.corpus.videos[one.video].path, one)
            except VideoError:
                continue
    return strips


def _strip(path: Path, one: VideoViews) -> str:
    frames = one.frames.flatten()
    frames = frames[torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long()]
    images = decode_frames(path, frames, whole=True)
    height, width = images.shape[-2:]
    side = min(4 * STRIP_HEIGHT, max(1, round(width * STRIP_HEIGHT / height)))  # JPEG ends at 65,535 pixels
    small = F.resize(images, [STRIP_HEIGHT, side], antialias=True)
    jpeg = io.BytesIO()
    strip = torch.cat(small.unbind(), dim=-1).permute(1, 2, 0).numpy()
    imsave(jpeg, strip, format="jpeg", pil_kwargs={"quality": 70})
    return base64.b64encode(jpeg.getvalue()).decode()
