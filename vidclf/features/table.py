"""Stored features as a table that other tools read: one row a view, written as it is read from the store."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import PARTS, VideoViews, label_views
from vidclf.data.corpus import Corpus
from vidclf.data.decoding import VideoInfo
from vidclf.errors import VidclfError
from vidclf.features.batches import StoredFeatures
from vidclf.system.disk import writing_to
from vidclf.system.extras import PYARROW, require

if TYPE_CHECKING:
    from pyarrow import RecordBatch

GROUP_BYTES = 64 * 2**20  # of embeddings, from which on a row group is written
REMEDY = "Free space, or name another file with to=..."


def check_target(path: Path) -> None:
    """Raise VidclfError if a table cannot be written to `path`, or is there already."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise VidclfError(f"to={path}: a table is written as Parquet. Give a name that ends in .parquet.")
    require("pyarrow", PYARROW, "parquet", f"to={path}: Parquet")
    if path.exists() or path.is_symlink():
        raise VidclfError(f"to={path}: it is there already, and is not overwritten. Remove it, or give another name.")
    if not path.absolute().parent.is_dir():
        raise VidclfError(f"to={path}: there is no folder {path.absolute().parent}. Make it first.")


def write_table(path: Path, corpus: Corpus, source: StoredFeatures) -> int:
    """Write every view of the corpus that is not drawn by chance, and return their number.

    The file appears when it is whole; of its rows no more are in memory than a row group holds.

    The columns: `video` (its name), `label` (the class's name), `group`, `side`, `view` (the crops of view v are the
    views v * crops and following), `start_s` (when in the file the view's first frame is shown) and `embedding`: D
    numbers, or S lists of D where the backbone gives several steps.

    Args:
        path: see `check_target`.
        corpus: whose views are written.
        source: in which their features are stored.

    Raises:
        VidclfError: the disk refuses.
    """
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    temporary, num_rows = path.with_name(f".{path.name}.{uuid.uuid4().hex}"), 0
    try:
        with writing_to(path, REMEDY), ExitStack() as stack:
            writer = None
            for group in _in_groups(_batches(corpus, source)):
                writer = writer or stack.enter_context(ParquetWriter(temporary, group[0].schema))
                writer.write_table(Table.from_batches(group))
                num_rows += sum(map(len, group))
        if not num_rows:
            raise VidclfError(f"to={path}: no video has a view, so there is nothing to write.")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return num_rows


def _in_groups(batches: Iterable["RecordBatch"]) -> Iterator[list["RecordBatch"]]:
    """Yield what makes a row group: batches of `GROUP_BYTES` together."""
    group, num_bytes = list["RecordBatch"](), 0
    for batch in batches:
        group.append(batch)
        num_bytes += batch.nbytes
        if num_bytes >= GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group


def _batches(corpus: Corpus, source: StoredFeatures) -> Iterator["RecordBatch"]:
    """Yield the rows of each video, part by part."""
    from pyarrow import array, record_batch, string

    for part in PARTS:
        for one in corpus.views(part):
            video = corpus.videos[one.video]
            features = source.features([one]).float().cpu()  # (V * crops, S, D)
            num_crops = len(features) // len(one.views)
            named = label_views(features, [one], num_crops)
            starts_s = _starts_s(one, corpus.facts[one.video].info).repeat_interleave(num_crops)
            texts = {
                "video": video.name,
                "label": corpus.class_names[video.label],
                "group": video.group,
                "side": part,
            }
            columns = {key: array([_as_utf8(text)] * len(features), string()) for key, text in texts.items()}
            numbers = {"view": array(named.view.numpy()), "start_s": array(starts_s.numpy())}
            yield record_batch({**columns, **numbers, "embedding": _as_lists(features)})


def _starts_s(one: VideoViews, info: VideoInfo) -> Float[Tensor, " V"]:
    """Return when each view's first frame is shown, in seconds from the file's first."""
    first = one.frames.amin(1)
    shown = torch.tensor(info.shown_from)[first] if info.shown_from else first
    return shown.double() / info.fps


def _as_lists(features: Float[Tensor, "N S D"]) -> Any:
    """Return a column of lists of D numbers, or of S such lists where there are several steps."""
    from pyarrow import ListArray, array

    values = array(features.flatten().numpy())
    for size in (features.shape[2], *([features.shape[1]] if features.shape[1] > 1 else [])):
        values = ListArray.from_arrays(array(range(0, len(values) + 1, size), "int32"), values)
    return values


def _as_utf8(text: str) -> str:
    """Return a name as Parquet can hold it: bytes of a file's name that are no UTF-8 are written as \\x.."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
