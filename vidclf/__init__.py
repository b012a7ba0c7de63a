"""Video classification, from a folder of clips to an accuracy that can be trusted.

The data's path (V views of a video, N views in a batch, T frames of a view, S steps and D width of a feature sequence,
K classes):

    dataset      root                            -> [Video(path, label, group)]
    catalogue    path                            -> facts from one look at the whole file: frames, content, damage
    split        (videos, views of each)         -> a part (train, val, test) for every (video, view)
    sampling     (num_frames, fps, generator)    -> frame indices (V, T)
    corpus       all of these                    -> [VideoViews(video, label, views, frames)] of a part
    decoding     (path, indices)                 -> frames (V, T, 3, H, W) uint8 RGB
    transform    frames                          -> images (V * crops, T, 3, h, w) float
    backbone     images (N, T, 3, h, w)          -> features (N, S, D)
    scaling      features                        -> features, scaled by what was fitted on train
    head         features (N, S, D)              -> logits (N, K)
    aggregation  logits (V, K) of one video      -> log-probabilities (K,)

One run of `vidclf train`, call by call: `cli.py` checks the words of the command line (`command/`), composes the
configuration (`run/config.py`) and calls `train.py`. The data set lists its videos (`data/datasets/`), and the split
decides their parts (`data/splits/`). Then the backbone (`build/parts.py`) and the Trainer (`build/training.py`) are
built, the catalogue looks at every file (`data/catalogue.py`, `data/decoding.py`), and the sampling decides which
frames are shown (`data/corpus.py`). The source (`features/batches.py`) extracts missing features
(`features/extract.py`) into the store (`features/store.py`). Lightning trains the head: `datamodule.py` hands batches
to `models/learner.py`. The best checkpoint is scored on val (`evaluation/`) and left in the run's folder
(`run/folder.py`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vidclf.api import compose, load

__version__ = "0.4.0"  # pyproject.toml reads it
# The folder of YAML files: inside the package where it is installed, beside it in a checkout.
CONF = str(next(folder for folder in Path(__file__).parents[:2] if (folder / "conf").is_dir()) / "conf")
__all__ = ["__version__", "compose", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` and `compose` when they are used first: they need torch, which takes seconds."""
    if name in ("compose", "load"):
        from vidclf import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
