"""Small random encoders of timm and transformers, built from configurations and saved in folders: no network."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.utils import logging

logging.disable_progress_bar()

VIDEOMAE = {
    "image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 48, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16, "num_labels": 3,
}  # fmt: skip
VJEPA2 = {
    "crop_size": 32, "patch_size": 8, "frames_per_clip": 6, "hidden_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1, "num_labels": 3,
}  # fmt: skip
DINOV2 = {"image_size": 42, "patch_size": 7, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
CROP = {"height": 32, "width": 32}


def random(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw all parameters: the initial zeros and ones would hide a parameter that is not loaded."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return model.eval()


def save(folder: Path, model: Any, processor: Any) -> Path:
    random(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def videomae(folder: Path, kind: str = "VideoMAEModel", **changed: Any) -> Path:
    model = getattr(transformers, kind)(transformers.VideoMAEConfig(**(VIDEOMAE | changed)))
    processor = transformers.VideoMAEVideoProcessor(
        size={"shortest_edge": 36}, crop_size=CROP, image_mean=[0.4, 0.5, 0.6]
    )
    return save(folder, model, processor)


def vjepa2(folder: Path, kind: str = "VJEPA2Model") -> Path:
    model = getattr(transformers, kind)(transformers.VJEPA2Config(**VJEPA2))
    return save(folder, model, transformers.VJEPA2VideoProcessor(crop_size=32))


def dinov2(folder: Path) -> Path:
    """Save a model with positions for another image size, which it interpolates, as in the published models."""
    model = transformers.Dinov2Model(transformers.Dinov2Config(**DINOV2))
    processor = transformers.BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return save(folder, model, processor)


def change(path: Path, **changed: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changed
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
