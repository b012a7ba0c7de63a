"""Write the findings of `vidclf check`: a page that loads and runs nothing, and a table of readable videos."""

import base64
import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median

import torch
from torchvision.transforms.v2.functional import resize, to_pil_image

from vidclf.audit.findings import Findings, duration_s
from vidclf.audit.lookalikes import Unit
from vidclf.contracts import PARTS, Dataset, VideoViews, optional
from vidclf.data.decoding import decode_frames
from vidclf.errors import VidclfError, VideoError
from vidclf.pages.rendering import Table, render_page
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize

MAX_VALUES = 8  # of one property that are shown, the most frequent
MAX_PAIRS = 40  # that are shown with their frames, those that cross parts of the split first
STRIP_FRAMES, STRIP_HEIGHT = 8, 64  # of a video's strip of frames; pixels


def table_of_classes(findings: Findings) -> Table:
    """Return each class's numbers of videos and groups, in total and in each part, and the durations in s."""
    corpus, rows = findings.corpus, []
    of_class: dict[int, list[int]] = {label: [] for label in range(len(corpus.class_names))}
    for position, video in enumerate(corpus.videos):
        of_class[video.label].append(position)
    for (_, positions), name in zip(of_class.items(), corpus.class_names, strict=True):
        durations = [duration_s(corpus, position) for position in positions if position in corpus.facts] or [0.0]
        parts = Counter(corpus.split.parts[position] for position in positions)
        groups = {corpus.videos[position].unit for position in positions}
        spread = [f"{duration:.1f} s" for duration in (min(durations), median(durations), max(durations))]
        rows.append([name, len(positions), len(groups), *(parts[part] for part in PARTS), *spread])
    return Table(["class", "videos", "groups", *PARTS, "shortest", "median", "longest"], rows)


def table_of_formats(findings: Findings) -> Table:
    """Return how many videos of each class have which size, rate, codec, format and sound, the most frequent first."""
    corpus = findings.corpus
    counts: dict[str, Counter[str]] = {}
    class_counts: Counter[tuple[str, str, int]] = Counter()
    for video, container in findings.containers.items():
        info, label = corpus.facts[video].info, corpus.videos[video].label
        properties = {
            "size": f"{info.width}x{info.height}",
            "frames a second": f"{info.fps:.5g}" + (", uneven" if info.shown_from else ""),
            "codec": container.codec,
            "format": container.format,
            "sound": "yes" if container.has_sound else "no",
        }
        for name, value in properties.items():
            counts.setdefault(name, Counter())[value] += 1
            class_counts[name, value, label] += 1
    rows = [
        [name, value, count, *(class_counts[name, value, label] for label in range(len(corpus.class_names)))]
        for name, values in counts.items()
        for value, count in values.most_common(MAX_VALUES)
    ]
    return Table(["", "value", "videos", *corpus.class_names], rows)


def write_page(path: Path, findings: Findings) -> None:
    """Write the findings into one HTML file; names in it are text, whatever characters they hold."""
    corpus, parts = findings.corpus, findings.corpus.split.parts
    names = [video.name for video in corpus.videos]
    crossing = {pair[:2] for pair in findings.crossing_pairs}
    pairs = sorted(findings.pairs, key=lambda pair: pair[:2] not in crossing)[:MAX_PAIRS]
    strips = _strips(findings, {video for pair in pairs for video in pair[:2]})
    page = render_page(
        "check.html",
        title=f"{type(corpus.dataset).__name__} {optional(corpus.dataset, Dataset, 'root') or ''}",
        num_videos=len(names),
        num_groups=len({video.unit for video in corpus.videos}),
        problems=findings.problems,
        classes=table_of_classes(findings),
        formats=table_of_formats(findings),
        container=findings.shortcuts.get("container"),
        one_frame=findings.shortcuts.get("one_frame"),
        failed=Table(
            ["video", "reason"], [[names[video], str(error)] for video, error in sorted(corpus.failed.items())]
        ),
        copies=[
            Table(["video", "part"], [[names[video], parts[video]] for video in videos])
            for videos in sorted(findings.copies, key=lambda videos: videos not in findings.crossing_copies)
        ],
        num_pairs=len(findings.pairs),
        pairs=[
            {
                "closeness": pair.closeness,
                "is_crossing": pair[:2] in crossing,
                "videos": [(names[video], parts[video], strips.get(video)) for video in pair[:2]],
            }
            for pair in pairs
        ],
        joined=Table(
            ["groups"], [["   =   ".join(_name_unit(findings, unit) for unit in units)] for units in findings.joined]
        ),
    )
    write_atomically(path, page)


def write_manifest(path: Path, findings: Findings) -> None:
    """Write each readable video once into a table for `dataset=manifest`, with look-alikes in one group.

    Raises:
        VidclfError: a name is not UTF-8.
    """
    corpus = findings.corpus
    excluded = {video for videos in findings.copies for video in videos[1:]}
    for videos in findings.copies:
        if len({corpus.videos[video].label for video in videos}) > 1:
            excluded |= {*videos}  # which label is correct is not known
    positions = [position for position in sorted(findings.containers) if position not in excluded]
    first_unit = {unit: units[0] for units in findings.joined for unit in units}
    folder, rows, any_outside = os.path.realpath(path.parent), list[list[object]](), False
    for position in positions:
        video = corpus.videos[position]
        real = os.path.realpath(video.path)
        is_inside = Path(real).is_relative_to(folder)
        any_outside |= not is_inside
        written = os.path.relpath(real, folder) if is_inside else os.path.abspath(video.path)
        group = _name_unit(findings, first_unit.get(video.unit, video.unit))
        times = ["" if time is None else time for time in (video.start_s, video.end_s)]
        rows.append([written, corpus.class_names[video.label], group, *times])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["path", "label", "group", "start_s", "end_s"], *rows])
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError as error:
        wrong = [str(row[0]) for row in rows if sanitize("".join(map(str, row))) != "".join(map(str, row))]
        raise VidclfError(
            f"out={path}: {len(wrong)} name(s) are not UTF-8: {sanitize(first_five(wrong))}. Rename them."
        ) from error
    write_atomically(path, content)
    anywhere = " dataset.anywhere=true" if any_outside else ""
    say(
        f"out={path}: {len(rows)} videos in {len({row[2] for row in rows})} groups; {len(corpus.failed)} damaged "
        f"videos and {len(excluded)} copies are left out. Use it with dataset=manifest "
        f"{shlex.quote(f'dataset.file={path}')}{anywhere} split=grouped."
    )


def _name_unit(findings: Findings, unit: Unit) -> str:
    """Return a group's name, after its class's name if it belongs to that class alone."""
    label, group = unit
    return group if label < 0 else f"{findings.corpus.class_names[label]}/{group}"


def _strips(findings: Findings, videos: set[int]) -> Mapping[int, str]:
    """Return a strip of frames of each video; a file that was removed meanwhile has none."""
    strips: dict[int, str] = {}
    for views in findings.corpus.all_views():
        if views.video in videos:
            with suppress(VideoError):
                strips[views.video] = _strip(findings.corpus.videos[views.video].path, views)
    return strips


def _strip(path: Path, views: VideoViews) -> str:
    """Return a few frames of a video side by side, as JPEG in base64."""
    frames = views.frames.flatten()
    frames = frames[torch.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().long()]
    images = decode_frames(path, frames, whole=True)
    height, width = images.shape[-2:]
    side = min(4 * STRIP_HEIGHT, max(1, round(width * STRIP_HEIGHT / height)))  # JPEG ends at 65,535 pixels
    small = resize(images, [STRIP_HEIGHT, side], antialias=True)
    jpeg = io.BytesIO()
    to_pil_image(torch.cat(small.unbind(), dim=-1)).save(jpeg, "JPEG", quality=70)
    return base64.b64encode(jpeg.getvalue()).decode()
