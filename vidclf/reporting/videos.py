"""Find a run's videos on this machine, and draw them, without following a path that a stranger has written.

A run says where its videos are, and its tables name them. A folder that this command line names is looked into. The
run's own is looked into only if it is below the current one, links followed. A name must lead to a regular file in the
folder, links followed, whose content has the hash that the run's tables hold. All else is left out and counted.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vidclf.comparison.scored import SEGMENT
from vidclf.contracts import Video
from vidclf.data.catalogue import Catalogue, VideoFacts
from vidclf.data.corpus import window_of
from vidclf.data.listing import leads_out
from vidclf.errors import VidclfError, VideoError
from vidclf.pages.images import film_of, spread, strip_of
from vidclf.reporting.results import Results
from vidclf.system.disk import scratch_folder
from vidclf.system.machine import num_cores

MAX_FILMS, MAX_STRIPS = 60, 300
FILM_FRAMES, STRIP_FRAMES, STRIP_HEIGHT = 12, 4, 90
MAX_SECONDS = 40  # of drawing
MAX_IMAGE_BYTES = 6_500_000  # of all images, in base64
MAX_UNKNOWN_BYTES = 1_000_000_000  # of files that the catalogue does not know, and that are decoded whole


class LocalVideo(NamedTuple):
    """A video on this machine, whose file has the content that was scored."""

    video: Video
    facts: VideoFacts

    @property
    def seconds(self) -> float:
        """The duration of the video or of its segment."""
        return window_of(*self)[1] / self.facts.info.fps

    def frames(self, count: int) -> Any:
        """Return up to `count` frames, spread over the video or its segment."""
        first, num_frames = window_of(*self)
        return self.facts.info.frames_at(first + spread(num_frames, count))


@dataclass
class Pictures:
    """Images of videos: by position, the format and the content in base64; and why others have none, with counts."""

    images: dict[int, tuple[str, str]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)


def folder_of(config: Mapping[str, Any], named: Path | None) -> tuple[Path | None, str]:
    """Return the folder of the run's videos, or None and why none is looked into.

    Raises:
        VidclfError: `named`, which is of this command line, is no folder.
    """
    if named is not None:
        if not named.expanduser().is_dir():
            raise VidclfError(f"root={named}: there is no such folder. Name the folder of the run's videos.")
        return named.expanduser(), ""
    dataset = config.get("dataset")
    settings = dataset if isinstance(dataset, dict) else {}
    folder = settings.get("root") or os.path.dirname(str(settings.get("file") or ""))
    if not isinstance(folder, str) or not folder or "\0" in folder:
        return None, "The run does not say where its videos are. Name their folder with root=DIR."
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(os.curdir)):
        return None, (
            f"The run's videos were in {folder}, and a folder outside the current one is read only where the command "
            f"line names it: root={folder}"
        )
    if not os.path.isdir(folder):
        return None, f"The run's videos are no longer in {folder}. Name their folder with root=DIR."
    return Path(folder), ""


def locate(name: str, folder: Path) -> Video | None:
    """Return the video of a name in the run's tables; None unless it is a regular file inside the folder."""
    segment = SEGMENT.search(name)
    written = name[: segment.start()] if segment else name
    try:
        path = folder / written
        if "\0" in written or leads_out(written, path, folder) or not path.is_file():
            return None
        start, end = re.fullmatch(r"#(.*?)-(.*)", segment[0]).groups() if segment else ("", "")  # type: ignore[union-attr]
        times = [float(text) if text else None for text in (start, end)]
    except (OSError, ValueError):  # a name that no file can have
        return None
    return Video(path, 0, "", start_s=times[0], end_s=times[1], name=name)


def find_videos(
    results: Results, positions: Sequence[int], folder: Path, store: Path, known_only: bool = False
) -> tuple[dict[int, LocalVideo], Counter[str]]:
    """Return the videos that are there and unchanged, by position, and why the others are not, with counts.

    With `known_only`, no file is opened: those that the catalogue in `store` does not know are left out.
    """
    videos, missing = dict[int, LocalVideo](), Counter[str]()
    located = {position: locate(results.scored.videos[position], folder) for position in positions}
    there = {position: video for position, video in located.items() if video}
    missing["not in the folder"] += len(located) - len(there)
    with ExitStack() as stack:
        catalogue = Catalogue(store if store.is_dir() else stack.enter_context(scratch_folder()))
        paths = [*dict.fromkeys(video.path for video in there.values())]
        facts: dict[Path, VideoFacts | VideoError] = dict(catalogue.known(paths))
        if not known_only:
            unknown = _first_bytes([path for path in paths if path not in facts])
            facts |= dict(zip(unknown, catalogue.look_up(unknown, num_cores()), strict=True))
    for position, video in there.items():
        fact = facts.get(video.path)
        if not isinstance(fact, VideoFacts):
            missing["damaged" if fact else "too large to be examined here"] += 1
        elif results.scored.contents[position].partition("#")[0] != fact.content:
            missing["changed since they were scored"] += 1
        else:
            videos[position] = LocalVideo(video, fact)
    return videos, +missing


def _first_bytes(paths: Sequence[Path]) -> list[Path]:
    """Return the first paths whose files have no more than MAX_UNKNOWN_BYTES together."""
    total, kept = 0, []
    for path in paths:
        total += path.stat().st_size
        if total <= MAX_UNKNOWN_BYTES:
            kept.append(path)
    return kept


def draw(videos: Mapping[int, LocalVideo], num_films: int = MAX_FILMS) -> Pictures:
    """Return a film of each of the first videos and a strip of stills of the next, as long as time and space allow."""
    pictures, size, end = Pictures(), 0, time.monotonic() + MAX_SECONDS
    tasks = [(position, number < num_films) for number, position in enumerate(videos)][:MAX_STRIPS]

    def draw_one(task: tuple[int, bool]) -> tuple[str, str] | str:
        video = videos[task[0]]
        if time.monotonic() > end:
            return "left out after the time for drawing"
        try:
            if task[1]:
                return "webp", film_of(video.video.path, video.frames(FILM_FRAMES))
            return "jpeg", strip_of(video.video.path, video.frames(STRIP_FRAMES), STRIP_HEIGHT)
        except VideoError:
            return "damaged"

    with ThreadPoolExecutor(num_cores()) as pool:
        for (position, _), image in zip(tasks, pool.map(draw_one, tasks), strict=True):
            reason = image if isinstance(image, str) else ""
            if not reason and size + len(image[1]) > MAX_IMAGE_BYTES:
                reason = "left out for the size of the page"
            if reason:
                pictures.missing[reason] += 1
                continue
            size += len(image[1])
            pictures.images[position] = image  # type: ignore[assignment]
    return pictures
