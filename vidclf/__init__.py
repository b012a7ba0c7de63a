"""Video classification, from a folder of clips to an accuracy one can believe.

The way of the data (V views of a video, N views in a batch, T frames of a view, S steps and D width of a
feature sequence, K classes):

    dataset      root                            -> [Video(path, label, group)]
    catalogue    path                            -> what one look at the whole file says: frames, content, damage
    split        (videos, views of each)         -> a side (train, val, test) for every (video, view)
    sampling     (num_frames, fps, generator)    -> frame indices (V, T)
    corpus       all of these                    -> [VideoViews(video, label, views, frames)] of a part
    decoding     (path, indices)                 -> frames (V, T, 3, H, W) uint8 RGB
    transform    frames                          -> images (V * crops, T, 3, h, w) float
    backbone     images (N, T, 3, h, w)        -> features (N, S, D)
    scaling      features                        -> features, by a scale fitted on those of training
    head         features (N, S, D)              -> logits (N, K)
    aggregation  logits (V, K) of one video      -> log-probabilities (K,)

`contracts.py` says what travels; `data/` knows no model and `models/` no file. They meet in `features/`, which keeps
what a frozen backbone has computed, and in `datamodule.py`, which hands batches of Views to Lightning. `run/` makes
objects of a configuration, `system/` knows the machine, and each verb is a file here, read from top to bottom.
"""

__version__ = "0.3.0"
