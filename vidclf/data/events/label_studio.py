"""Label Studio's export of video timelines (JSON): ranges of frames, counted from 1, the last one included.

Source: https://labelstud.io/tags/timelinelabels
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from vidclf.data.events import Event, check_shape, load_json, number
from vidclf.errors import VidclfError

NAME, ENDINGS, WRITES, PER_FRAME = "label_studio", (".json",), (), True
UPLOADED = re.compile(r"^/?data/upload/(\d+/)?([0-9a-f]{8}-)?")


def fits(text: str) -> bool:
    """Return whether it is JSON with labels of a timeline."""
    return text.lstrip()[:1] in ("[", "{") and '"timelinelabels"' in text.casefold()


def read(file: Path, text: str) -> Iterator[Event]:
    """Yield every range of every annotation that was not cancelled; predictions are left out."""
    content = load_json(file, text)
    for number_of_task, task in enumerate(content if isinstance(content, list) else [content], start=1):
        where = f"task {check_shape(file, task, dict, f'task {number_of_task}').get('id', number_of_task)}"
        path = _video(file, where, task)
        annotations = check_shape(file, task.get("annotations", []), list, f"the annotations of {where}")
        for annotation in annotations:
            check_shape(file, annotation, dict, f"an annotation of {where}")
            if not annotation.get("was_cancelled"):
                yield from _events(file, where, path, annotation)


def _events(file: Path, where: str, path: str, annotation: dict[str, Any]) -> Iterator[Event]:
    by = annotation.get("completed_by", "")
    coder = str(by.get("email") or by.get("id") or "") if isinstance(by, dict) else str(by)
    regions = check_shape(file, annotation.get("result", []), list, f"the result of {where}")
    values = [region.get("value", {}) for region in regions if isinstance(region, dict)]
    found = [
        (label, *(number(file, range_.get(key, "nothing"), f"{where}, {label}") for key in ("start", "end")))
        for value in values
        for label in value.get("timelinelabels", ())
        for range_ in value.get("ranges", ())
    ]
    starts = {start for _, start, _ in found}
    for label, start, end in found:
        if start < 1:
            raise VidclfError(f"{file}, {where}: {label} starts at frame {start:g}; the first is 1. Export it again.")
        # A range that ends where the next one starts does not include that frame.
        stop = end - 1 if end in starts and end > start else end
        yield Event(path, start - 1, stop, str(label), coder=coder, where=f"{where}, frame {start:g}")


def _video(file: Path, where: str, task: dict[str, Any]) -> str:
    """Return the path of a task's video: of a local file, or as it was before it was uploaded."""
    texts = [str(value) for value in (task.get("data") or {}).values() if isinstance(value, str)]
    named = (task.get("data") or {}).get("video") or next(
        (text for text in texts if re.search(r"\.\w{2,5}$", text)), ""
    )
    url = urlparse(str(named).replace("\\", "/"))
    path = unquote(parse_qs(url.query).get("d", [""])[0] or url.path)
    if not path:
        raise VidclfError(f"{file}, {where}: it names no video. The data of a task needs a key video.")
    return UPLOADED.sub("", path)
