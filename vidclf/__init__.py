"""Video classification, from a folder of clips to an accuracy one can believe.

The way of the data (V views of a video, N views in a batch, T frames of a view, S steps and D width of a
feature sequence, K classes):

    dataset      root                            -> [Video(path, label, group)]
    split        (videos, views of each)         -> a side (train, val, test) for every (video, view)
    sampling     (num_frames, fps, generator)    -> frame indices (V, T)
    decoding     (path, indices)                 -> frames (V, T, 3, H, W) uint8 RGB
    transform    frames                          -> pictures (V * crops, T, 3, h, w) float
    backbone     pictures (N, T, 3, h, w)        -> features (N, S, D)
    head         features (N, S, D)              -> logits (N, K)
    aggregation  logits (V, K) of one video      -> log-probabilities (K,)

Frozen features are computed by `extraction`, kept by `features`; several processes share the videos by `ranks`.
"""

__version__ = "0.1.0"
