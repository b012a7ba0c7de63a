"""Write stored features as a Parquet table, one row for each view."""

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
from vidclf.system.disk import replacing, writing_to
from vidclf.system.extras import PYARROW, require
from vidclf.system.text import as_utf8

if TYPE_CHECKING:
    from pyarrow import RecordBatch

GROUP_BYTES = 64 * 2**20  # of embeddings in a row group, at least
REMEDY = "Free space, or choose another file with to=..."


def check_target(path: Path) -> None:
    """Raise VidclfError if no table can be written to `path`, or the file exists."""
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise VidclfError(f"to={path}: the name must end in .parquet.")
    require("pyarrow", PYARROW, "parquet", f"to={path}: Parquet")
    if path.exists() or path.is_symlink():
        raise VidclfError(f"to={path}: the file exists. Choose another name or delete it.")
    if not path.absolute().parent.is_dir():
        raise VidclfError(f"to={path}: there is no folder {path.absolute().parent}. Create it first.")


def write_table(path: Path, corpus: Corpus, source: StoredFeatures) -> int:
    """Write every view of the corpus (for random sampling, the views that are scored); return their number.

    The file appears when it is complete. At most one row group is in memory.

    Columns: `video` (its name), `label` (the class's name), `group`, `side` (the part), `view` (the crops of view v are
    the views v * crops and following), `start_s` (the time of the view's first frame) and `embedding`: D numbers, or S
    lists of D if the backbone gives several steps.
    """
    from pyarrow import Table
    from pyarrow.parquet import ParquetWriter

    num_rows = 0
    with writing_to(path, REMEDY), replacing(path) as temporary:
        with ExitStack() as stack:
            writer = None
            for group in _in_groups(_batches(corpus, source)):
                writer = writer or stack.enter_context(ParquetWriter(temporary, group[0].schema))
                writer.write_table(Table.from_batches(group))
                num_rows += sum(map(len, group))
        if not num_rows:
            raise VidclfError(f"to={path}: no video has a view, so there is nothing to write.")
    return num_rows


def _in_groups(batches: Iterable["RecordBatch"]) -> Iterator[list["RecordBatch"]]:
    """Yield lists of batches that together have `GROUP_BYTES`."""
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
        for views in corpus.views(part):
            video = corpus.videos[views.video]
            features = source.features([views]).float().cpu()  # (V * crops, S, D)
            num_crops = len(features) // len(views.views)
            numbers = label_views(features, [views], num_crops).view
            starts_s = _starts_s(views, corpus.facts[views.video].info).repeat_interleave(num_crops)
            texts = {
                "video": video.name,
                "label": corpus.class_names[video.label],
                "group": video.group,
                "side": part,
            }
            columns = {key: array([as_utf8(text)] * len(features), string()) for key, text in texts.items()}
            columns |= {"view": array(numbers.numpy()), "start_s": array(starts_s.numpy())}
            yield record_batch({**columns, "embedding": _as_lists(features)})


def _starts_s(views: VideoViews, info: VideoInfo) -> Float[Tensor, " V"]:
    """Return the time of each view's first frame, in seconds from the first frame of the file."""
    first = views.frames.amin(1)
    shown = torch.tensor(info.shown_from)[first] if info.shown_from else first
    return shown.double() / info.fps


def _as_lists(features: Float[Tensor, "N S D"]) -> Any:
    """Return a column of lists of D numbers, or of S such lists if there are several steps."""
    from pyarrow import ListArray, array

    values = array(features.flatten().numpy())
    for size in (features.shape[2], *([features.shape[1]] if features.shape[1] > 1 else [])):
        values = ListArray.from_arrays(array(range(0, len(values) + 1, size), "int32"), values)
    return values
