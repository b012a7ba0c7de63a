"""Run the tutorial's pipeline on its stack: OpenCV, JPEGs, Keras on TensorFlow. Only for `.venv/keras` (`make bench`).

    .venv/keras/bin/python experiments/benchmark/keras_way.py < asked.json

`run_keras.py` writes the request; the answer is one line of JSON. OpenCV reads every frame of a clip and each
floor(fps)-th becomes a JPEG. Keras reads the JPEGs back, squeezed to 224x224, and they are divided by 255.
`keras.applications.VGG16` without its top predicts in batches of 32. `fit` trains the dense network at batch 128.
Weights are random; threads and allocator are TensorFlow's defaults.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import floor
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import keras
import numpy as np

LIBRARIES = ("keras", "tensorflow-cpu", "opencv-python-headless", "numpy")
FEATURE_DIM, WIDTHS = 7 * 7 * 512, (1024, 512, 256, 128)
BATCH_SIZE, VALIDATION_SHARE = 128, 0.2


class EpochTimes(keras.callbacks.Callback):
    """Keeps the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.begin, self.times = 0.0, list[float]()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.times.append(time.perf_counter() - self.begin)


def extraction(clips: Sequence[str], num_frames: int, num_runs: int) -> dict[str, float]:
    """Return the kept frames a second, and the seconds of a frame that each part takes."""
    network = vgg16()
    network.predict(np.zeros((32, 224, 224, 3), np.float32), verbose=0)
    runs = [extract(clips[number::num_runs], num_frames, network) for number in range(num_runs)]
    parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
    return {"frames_per_s": 1 / statistics.median(sum(run.values()) for run in runs), **parts}


def extract(clips: Sequence[str], num_frames: int, network: keras.Model) -> dict[str, float]:
    """Return the seconds a frame of reading clips and writing JPEGs, of reading those, and of the network."""
    with TemporaryDirectory() as folder:
        begin = time.perf_counter()
        paths: list[Path] = []
        for clip in clips:
            paths += write_frames(clip, Path(folder), num_frames - len(paths))
        written = time.perf_counter()
        images = read_images(paths)
        read = time.perf_counter()
        features = network.predict(images, verbose=0)
        end = time.perf_counter()
    assert features.shape == (len(paths), 7, 7, 512)
    return {
        "decode_and_write_s": (written - begin) / len(paths),
        "read_s": (read - written) / len(paths),
        "network_s": (end - read) / len(paths),
    }


def training(num_rows: int, num_runs: int, num_classes: int) -> dict[str, float]:
    """Return the median seconds of a step of `fit` with its input, after an epoch of warm-up."""
    random = np.random.default_rng(0)
    features = random.random((num_rows, FEATURE_DIM), np.float32)
    labels = keras.utils.to_categorical(random.integers(num_classes, size=num_rows), num_classes)
    times = EpochTimes()
    dense_network(num_classes).fit(
        features, labels, batch_size=BATCH_SIZE, epochs=1 + num_runs, callbacks=[times], verbose=0
    )
    epoch_s = statistics.median(times.times[1:])
    return {"step_s": epoch_s / -(-num_rows // BATCH_SIZE), "epoch_s": epoch_s, "rows": num_rows}


def end_to_end(train: Sequence[str], test: Sequence[str], epochs: int) -> dict[str, float]:
    """Train and test from the clips; return the number of frames and the test accuracy."""
    classes = sorted({Path(clip).parent.name for clip in train})
    network = vgg16()
    with TemporaryDirectory() as folder:
        paths, labels = list[Path](), list[int]()
        for clip in train:
            written = write_frames(clip, Path(folder))
            paths += written
            labels += [classes.index(Path(clip).parent.name)] * len(written)
        features = flat_features(network, read_images(paths))
        model = fit(features, np.array(labels), len(classes), epochs, Path(folder) / "best.keras")
    right = num_test_frames = 0
    for clip in test:
        with TemporaryDirectory() as folder:
            images = read_images(write_frames(clip, Path(folder)))
        # As published, the features are divided by their maximum in training and not here.
        frames = model.predict(flat_features(network, images), verbose=0).argmax(1)
        right += classes[np.bincount(frames).argmax()] == Path(clip).parent.name
        num_test_frames += len(images)
    return {"train_frames": len(paths), "test_frames": num_test_frames, "top1": right / len(test)}


def fit(features: np.ndarray, labels: np.ndarray, num_classes: int, epochs: int, best: Path) -> keras.Model:
    """Return the dense network of the epoch with the lowest validation loss on a fifth of the frames."""
    order = np.random.default_rng(42).permutation(len(features))
    val, train = np.split(order, [round(VALIDATION_SHARE * len(order))])
    targets = keras.utils.to_categorical(labels, num_classes)
    largest = features[train].max()
    model = dense_network(num_classes)
    model.fit(
        features[train] / largest,
        targets[train],
        batch_size=BATCH_SIZE,
        epochs=epochs,
        validation_data=(features[val] / largest, targets[val]),
        callbacks=[keras.callbacks.ModelCheckpoint(best, monitor="val_loss", save_best_only=True, mode="min")],
        verbose=0,
    )
    return keras.models.load_model(best)


def vgg16() -> keras.Model:
    """Return VGG16's convolutions with random weights."""
    return keras.applications.VGG16(weights=None, include_top=False)


def dense_network(num_classes: int) -> keras.Model:
    """Return the tutorial's dense network, compiled with its loss and optimiser."""
    layers: list[keras.Layer] = [keras.Input((FEATURE_DIM,))]
    for width in WIDTHS:
        layers += [keras.layers.Dense(width, activation="relu"), keras.layers.Dropout(0.5)]
    model = keras.Sequential([*layers, keras.layers.Dense(num_classes, activation="softmax")])
    model.compile(loss="categorical_crossentropy", optimizer="Adam", metrics=["accuracy"])
    return model


def flat_features(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the features of all images, (N, 25088)."""
    return network.predict(images, verbose=0).reshape(len(images), FEATURE_DIM)


def write_frames(clip: str, folder: Path, most: int | None = None) -> list[Path]:
    """Read a clip to its end, or to the last kept frame; return the JPEGs that were written."""
    video = cv2.VideoCapture(clip)
    step = floor(video.get(cv2.CAP_PROP_FPS))
    number, paths = 0, list[Path]()
    while most is None or len(paths) < most:
        there, frame = video.read()
        if not there:
            break
        if number % step == 0:
            paths.append(folder / f"{Path(clip).stem}_frame{number // step}.jpg")
            cv2.imwrite(str(paths[-1]), frame)
        number += 1
    video.release()
    return paths


def read_images(paths: Sequence[Path]) -> np.ndarray:
    """Return the images that Keras reads, (N, 224, 224, 3) in 0..1."""
    load, to_array = keras.utils.load_img, keras.utils.img_to_array
    return np.array([to_array(load(path, target_size=(224, 224))) / 255 for path in paths])


MEASURES: dict[str, Callable[..., dict[str, float]]] = {
    "extraction": extraction,
    "training": training,
    "end_to_end": end_to_end,
}


def main() -> None:
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # all that Keras prints
        found = MEASURES[asked.pop("measure")](**asked)
    print(json.dumps({**found, "versions": {name: version(name) for name in LIBRARIES}}))


if __name__ == "__main__":
    main()
