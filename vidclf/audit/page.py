"""Write the findings of `vidclf check`: a page that loads and runs nothing, and a table of readable videos."""

import csv
import io
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from vidclf.audit.findings import Findings, duration_s
from vidclf.audit.lookalikes import Unit
from vidclf.contracts import PARTS, Dataset, VideoViews, optional
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError, VideoError
from vidclf.pages.images import spread, strip_of
from vidclf.pages.rendering import Table, render_page
from vidclf.system.disk import write_atomically
from vidclf.system.terminal import say
from vidclf.system.text import first_five, sanitize

MAX_VALUES = 8  # of one property that are shown, the most frequent
MAX_PAIRS = 40  # that are shown with their frames, those that cross parts of the split first
STRIP_FRAMES = 8  # of a video


def table_of_classes(findings: Findings) -> Table:
    """Return each class's numbers of videos and groups, in total and in each part, and the durations in s."""
    corpus, rows = findings.corpus, []
    shown_parts = PARTS if corpus.is_divided else ()
    for name, positions in zip(corpus.class_names, _videos_of_classes(corpus), strict=True):
        parts = Counter(corpus.split.parts[position] for position in positions)
        groups = {corpus.videos[position].unit for position in positions}
        is_readable = any(position in corpus.facts for position in positions)
        spread = [f"{duration:.1f} s" if is_readable else "-" for duration in _spread(corpus, positions)]
        rows.append([name, len(positions), len(groups), *(parts[part] for part in shown_parts), *spread])
    return Table(["class", "videos", "groups", *shown_parts, "shortest", "median", "longest"], rows)


def shortcut_sentences(findings: Findings) -> list[str]:
    """Return what the label can be told from without the video: the container alone, one frame alone."""
    sources = {"container": "its file's container alone, no frame", "one_frame": "one frame of it alone"}
    sentences = [
        f"From {sources[name]}, {shortcut.top1:.1%} of the test videos are classified correctly (95 % interval over "
        f"groups {shortcut.low:.1%} to {shortcut.high:.1%}; the most frequent class is {shortcut.majority:.1%})."
        for name, shortcut in findings.shortcuts.items()
        if not (name == "container" and shortcut.is_significant)  # a problem says that
    ]
    if not findings.shortcuts:
        why = "test has too few groups" if findings.corpus.is_divided else "there is no split"
        return [f"What the container or one frame tells of the label is not measured: {why}."]
    return sentences


def _videos_of_classes(corpus: Corpus) -> list[list[int]]:
    """Return the positions of each class's videos."""
    videos: list[list[int]] = [[] for _ in corpus.class_names]
    for position, video in enumerate(corpus.videos):
        videos[video.label].append(position)
    return videos


def _spread(corpus: Corpus, positions: Sequence[int]) -> tuple[float, float, float]:
    """Return the shortest, the median and the longest duration of the videos that can be read, in s."""
    durations = [duration_s(corpus, position) for position in positions if position in corpus.facts] or [0.0]
    return min(durations), median(durations), max(durations)


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
    classes = table_of_classes(findings)
    page = render_page(
        "check.html",
        title=f"{type(corpus.dataset).__name__} {optional(corpus.dataset, Dataset, 'root') or ''}",
        num_videos=len(names),
        num_groups=len({video.unit for video in corpus.videos}),
        problems=findings.problems,
        header=classes.header,
        classes=_class_rows(findings, classes),
        formats=table_of_formats(findings),
        shortcuts=shortcut_sentences(findings),
        agreement=findings.agreement,
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
    sizes = Counter(row[2] for row in rows)
    largest, most = sizes.most_common(1)[0] if sizes else ("", 0)
    say(
        f"out={path}: {len(rows)} videos in {len(sizes)} groups; {len(corpus.failed)} damaged videos and "
        f"{len(excluded)} copies are left out. The largest group, {sanitize(str(largest))}, has {most} videos, "
        f"{most / max(1, len(rows)):.0%} of all. Use it with dataset=manifest "
        f"{shlex.quote(f'dataset.file={path}')}{anywhere} split=grouped."
    )


def _name_unit(findings: Findings, unit: Unit) -> str:
    """Return a group's name, after its class's name if it belongs to that class alone."""
    label, group = unit
    return group if label < 0 else f"{findings.corpus.class_names[label]}/{group}"


def _class_rows(findings: Findings, classes: Table) -> list[dict[str, object]]:
    """Return the rows of the page's table of classes: cells, a still, and two bars in percent of the longest."""
    corpus, rows = findings.corpus, list[dict[str, object]]()
    videos = _videos_of_classes(corpus)
    spreads = [_spread(corpus, positions) for positions in videos]
    longest, most = max(longest for _, _, longest in spreads) or 1.0, max(map(len, videos))
    views_of_label = {views.label: views for views in reversed(corpus.all_views())}  # of its first readable video
    for label, (cells, durations) in enumerate(zip(classes.rows, spreads, strict=True)):
        low, middle, high = (100 * seconds / longest for seconds in durations)
        share = 100 * len(videos[label]) / most
        views = views_of_label.get(label)
        still = views and _strip(corpus.videos[views.video].path, views, num_frames=1)
        rows.append({"cells": cells, "still": still, "share": share, "low": low, "middle": middle, "high": high})
    return rows


def _strips(findings: Findings, videos: set[int]) -> Mapping[int, str]:
    """Return a strip of frames of each video; a file that was removed meanwhile has none."""
    corpus = findings.corpus
    strips = {
        views.video: _strip(corpus.videos[views.video].path, views)
        for views in corpus.all_views()
        if views.video in videos
    }
    return {video: strip for video, strip in strips.items() if strip}


def _strip(path: Path, views: VideoViews, num_frames: int = STRIP_FRAMES) -> str | None:
    """Return a few frames of a video side by side; None if it can no longer be read."""
    frames = views.frames.flatten()
    try:
        return strip_of(path, frames[spread(len(frames), num_frames)])
    except VideoError:
        return None
