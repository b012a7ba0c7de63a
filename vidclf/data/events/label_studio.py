"""Label Studio's export of video timelines (JSON): ranges of frames, counted from 1, the last one included.

Source: https://labelstud.io/tags/timelinelabels
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from vidclf.data.events import Event, number
from vidclf.errors import VidclfError

NAME, ENDINGS, WRITES, PER_FRAME = "label_studio", (".json",), (), True
UPLOADED = re.compile(r"^/?data/upload/(\d+/)?([0-9a-f]{8}-)?")


def fits(text: str) -> bool:
    """Return whether it is JSON with labels of a timeline."""
    return text.lstrip()[:1] in ("[", "{") and '"timelinelabels"' in text.casefold()


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield every range of every annotation that was not cancelled; predictions are left out."""
    content = json.loads(text)
    for number_of_task, task in enumerate(content if isinstance(content, list) else [content], start=1):
        where = f"task {task.get('id', number_of_task)}"
        path = _video(file, where, task["data"])
        for annotation in task["annotations"]:
            if not annotation.get("was_cancelled"):
                yield from _events(file, where, path, annotation)


def _events(file: Path, where: str, path: str, annotation: dict[str, Any]) -> Iterator[Event]:
    by = annotation.get("completed_by", "")
    coder = str(by.get("email") or by["id"]) if isinstance(by, dict) else str(by)
    found = [
        (label, *(number(file, limits[key], f"{where}, {label}") for key in ("start", "end")))
        for region in annotation["result"]
        for label in region["value"].get("timelinelabels", ())
        for limits in region["value"]["ranges"]
    ]
    starts = {start for _, start, _ in found}
    for label, start, end in found:
        if start < 1:
            raise VidclfError(f"{file}, {where}: {label} starts at frame {start:g}; the first is 1. Export it again.")
        # A range that ends where another one starts does not include that frame.
        stop = end - 1 if end in starts and end > start else end
        yield Event(path, start - 1, stop, label, coder=coder, where=f"{where}, frame {start:g}")


def _video(file: Path, where: str, data: dict[str, Any]) -> str:
    """Return the path of a task's video: of a local file, or as it was before it was uploaded."""
    texts = [value for value in data.values() if isinstance(value, str)]
    named = data.get("video") or next((text for text in texts if re.search(r"\.\w{2,5}$", text)), "")
    url = urlparse(named.replace("\\", "/"))
    path = unquote(parse_qs(url.query).get("d", [""])[0] or url.path)
    if not path:
        raise VidclfError(f"{file}, {where}: it names no video. The data of a task needs a key video.")
    return UPLOADED.sub("", path)
