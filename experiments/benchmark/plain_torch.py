"""Run the tutorial's pipeline in plain torch: float32 in torch's default layout, no Keras, no vidclf.

OpenCV reads every frame of a clip and every floor(fps)-th becomes a JPEG. The JPEGs are read back, squeezed to 224x224
and divided by 255. VGG16's convolutions run on them, eager, in batches of 32. All features are kept in a list and
stacked. Then default Adam trains the dense network at batch 128. C's allocator keeps its defaults. This is slower than
Keras on CPUs without matrix units and does not replace it: `keras_way.py` is the tutorial's stack.
"""

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import vgg16

from experiments.benchmark.setting import NUM_CLASSES, NUM_FRAMES, NUM_ROWS, NUM_RUNS, Setting, device, now

FEATURE_DIM = 25088
WIDTHS = (1024, 512, 256, 128)


def extraction(setting: Setting) -> dict[str, float]:
    """Return the kept frames a second, and the seconds of a frame that each part takes."""
    torch.manual_seed(0)
    network = vgg16(weights=None).features.eval().to(device())
    compute_features(network, torch.zeros(32, 3, 224, 224))
    runs = [extract(setting.clips[number::NUM_RUNS], network) for number in range(NUM_RUNS)]
    parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
    total_s = statistics.median(sum(run.values()) for run in runs)
    return {"frames_per_s": 1 / total_s, **parts}


def extract(clips: list[Path], network: nn.Module) -> dict[str, float]:
    """Return the seconds a frame of reading a clip and writing JPEGs, of reading those, and of the network."""
    with TemporaryDirectory() as folder:
        begin = now()
        count = 0
        for clip in clips:
            count += write_frames(clip, Path(folder), NUM_FRAMES - count)
        written = now()
        images = torch.from_numpy(np.stack([read_image(path) for path in sorted(Path(folder).iterdir())]))
        read = now()
        features = compute_features(network, images.permute(0, 3, 1, 2).contiguous() / 255)
        end = now()
    assert features.shape == (count, FEATURE_DIM)
    return {
        "decode_and_write_s": (written - begin) / count,
        "read_s": (read - written) / count,
        "network_s": (end - read) / count,
    }


def write_frames(clip: Path, folder: Path, most: int) -> int:
    """Read a clip to its end, or to the last kept frame; return the number of JPEGs written."""
    video = cv2.VideoCapture(str(clip))
    step = int(video.get(cv2.CAP_PROP_FPS))
    number = count = 0
    while count < most:
        there, frame = video.read()
        if not there:
            break
        if number % step == 0:
            cv2.imwrite(str(folder / f"{clip.stem}_{number:04d}.jpg"), frame)
            count += 1
        number += 1
    video.release()
    return count


def read_image(path: Path) -> np.ndarray:
    """Return the image (224, 224, 3) float32 as Keras's load_img(target_size=(224, 224)) reads it."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.NEAREST), np.float32)


@torch.no_grad()
def compute_features(network: nn.Module, images: Tensor) -> Tensor:
    """Return the flat features of all images, (N, 25088)."""
    return torch.cat([network(batch.to(device())).flatten(1).cpu() for batch in images.split(32)])


def training(setting: Setting) -> dict[str, float]:
    """Return the seconds of a training step with its input, and the number of features."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in zip((FEATURE_DIM, *WIDTHS), WIDTHS, strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(0.5)]
    network = nn.Sequential(*layers, nn.Linear(WIDTHS[-1], NUM_CLASSES)).to(device())
    optimizer = torch.optim.Adam(network.parameters())
    rows = TensorDataset(torch.rand(NUM_ROWS, FEATURE_DIM), torch.randint(NUM_CLASSES, (NUM_ROWS,)))
    batches = DataLoader(rows, batch_size=128, shuffle=True)
    epochs_s = [train_epoch(network, optimizer, batches) for _ in range(1 + NUM_RUNS)]
    epoch_s = statistics.median(epochs_s[1:])
    return {"step_s": epoch_s / len(batches), "epoch_s": epoch_s, "rows": NUM_ROWS}


def train_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader) -> float:
    """Train on every row once and return the seconds it took."""
    begin = now()
    for features, labels in batches:
        loss = F.cross_entropy(network(features.to(device())), labels.to(device()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as Keras shows it
    return now() - begin
