"""Video and image encoders of transformers (VideoMAE, V-JEPA 2, DINOv2): images or clips -> features."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.hub import find_folder, folder_at
from vidclf.models.backbones.library import LibraryBackbone, check_name, wrong_length
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import verify_finite
from vidclf.system.extras import require

AT_LEAST = "5.3"  # before, a model's configuration could run code (CVE-2026-4372)
NUM_FRAMES = ("num_frames", "frames_per_clip")  # in a configuration: the model takes clips
SIZE = ("image_size", "crop_size")
ENCODER = {"vjepa2": "encoder"}  # where only a part of the model makes features; the rest predicts what is masked
# Keys of a configuration that choose code or files, not a network.
REFUSED = ("quantization_config", "fusion_config", "transformers_weights", "distributed_config")
IGNORED = ("auto_map", "attn_implementation", "experts_implementation", "dtype", "torch_dtype", "transformers_version")


class TransformersBackbone(LibraryBackbone):
    """The features that a model of transformers has of each clip, or of each frame.

    A model of clips gives the mean of its patches at each of its temporal steps (V-JEPA 2 and VideoMAE: S = T/2); one
    of images what it calls its pooled output (S=1 a frame; DINOv2: the class token behind the last norm). Others than
    these three are tried by the same rule.

    Args:
        name: of a folder with config.json, the weights and the processor's configuration, as transformers saves it;
            or of a model of the Hub, `owner/model`. Code in it is never run.
        trainable: `none` (frozen), `last`, `all`, or a number of blocks.
        precision: `float32`, `bfloat16`, or `auto` (see `resolve_precision`).
        fetch: whether files that are not on this machine may be fetched.

    Attributes:
        feature_dim: D.
        picture_format: the size, numbers and clip length of the model's and its processor's configurations.

    Raises:
        VidclfError: transformers is not installed, the model cannot be had or does not fit, or its weights are not
            those of its whole network.
    """

    def __init__(self, name: str, trainable: str | int = "none", precision: str = "auto", fetch: bool = False) -> None:
        require("transformers", AT_LEAST, "encoders", "backbone=transformers")
        number_format = resolve_precision(precision, trainable)
        folder = find_folder(name, fetch)
        described, config = _read_config(folder)
        picture_format = _picture_format(folder, config)
        with _quietly():
            model = _load(folder, config)
        verify_finite(model, str(folder))
        feature_dim = _feature_dim(model, config, picture_format)
        called = folder.resolve().name if folder == folder_at(name) else name
        super().__init__(called, _encoder(model), feature_dim, picture_format, number_format, trainable)
        self.configuration = json.dumps(described, sort_keys=True)
        self.input_name: str = model.main_input_name
        self.num_steps: int = picture_format.clip_length // _tubelet(config)
        for own, parameter in self.network.named_parameters():
            if own.endswith("mask_token"):  # of pretraining: no image is masked here
                parameter.requires_grad_(False)

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        """Return the features of every clip, or of every image on its own.

        Raises:
            VidclfError: the views are of another length, or the images of another size, than the model's.
        """
        images = images.to(self._dtype)
        size, length = self.picture_format.size, self.picture_format.clip_length
        if tuple(images.shape[-2:]) != (size, size):
            raise VidclfError(
                f"{self.name} takes images of {size} x {size}, these have {images.shape[-2]} x "
                f"{images.shape[-1]}. Leave transform=backbone, or choose another model."
            )
        if length == 1:
            found = self.network(**{self.input_name: images.flatten(0, 1)}).pooler_output
            return found.flatten(1).unflatten(0, images.shape[:2])  # (N*T, D) -> (N, T, D)
        if images.shape[1] != length:
            raise wrong_length(self.name, images.shape[1], f"{length} frames", length)
        tokens = self.network(**{self.input_name: images}).last_hidden_state  # (N, S * patches, D)
        return tokens.unflatten(1, (self.num_steps, -1)).mean(2)


def _read_config(folder: Path) -> tuple[dict[str, Any], Any]:
    """Return what config.json says, and transformers' object of it: of a class of its own, by the `model_type`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    path = folder / "config.json"
    try:
        described = json.loads(path.read_bytes())
        kind = described["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VidclfError(
            f"{path}: no configuration of a model of transformers ({error!r}). A folder holds config.json, "
            "model.safetensors and preprocessor_config.json, as save_pretrained writes them."
        ) from error
    check_name(str(kind), list(CONFIG_MAPPING_NAMES), f"{path} says model_type={kind}, and transformers has none")
    if refused := [key for key in REFUSED if described.get(key)]:
        raise VidclfError(f"{path}: {', '.join(refused)} is not read here. Save the model in full precision, whole.")
    if (folder / "adapter_config.json").exists():
        raise VidclfError(
            f"{folder}: it holds an adapter (adapter_config.json). Merge it into its model and save that."
        )
    kept = {key: value for key, value in described.items() if key not in IGNORED and not key.startswith("_")}
    try:
        config = CONFIG_MAPPING[kind].from_dict(dict(kept))
    except Exception as error:  # whatever a class says of values that it cannot take
        raise VidclfError(f"{path}: transformers does not take it as {kind} ({error}).") from error
    return kept, config


def _load(folder: Path, config: Any) -> Any:
    """Return the model that the folder's weights were saved of, without its classifier or decoder.

    It is loaded whole, so that each key of the file must be used, and each parameter filled.
    """
    kind = _saved_as(folder, config)
    try:
        model, report = kind.from_pretrained(
            str(folder),
            config=config,
            attn_implementation="sdpa" if getattr(kind, "_supports_sdpa", False) else "eager",
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed, and refused below
        )
    except Exception as error:  # of safetensors, pickle, shapes and files that are not there
        raise VidclfError(f"{folder}: its weights cannot be loaded as {kind.__name__}: {error}") from error
    said = {"missing_keys": "not in the file", "unexpected_keys": "not used", "mismatched_keys": "of another shape"}
    wrong = [f"{word}: {', '.join(sorted(map(str, report[key])))}" for key, word in said.items() if report[key]]
    if wrong:
        raise VidclfError(
            f"{folder}: these are not the weights of {kind.__name__}, whole ({'; '.join(wrong)}). Fetch the files "
            "again, or name the folder of the model that they were saved of."
        )
    return model.base_model


def _saved_as(folder: Path, config: Any) -> Any:
    """Return the class of transformers that the weights were saved of."""
    import transformers

    names = config.architectures or []
    found = [getattr(transformers, str(name), None) for name in names]
    models = [kind for kind in found if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    if len(models) != 1 or models[0].config_class is not type(config):
        raise VidclfError(
            f"{folder / 'config.json'}: architectures={names}, and it must name the one class of transformers that "
            f"the weights were saved of, for model_type={config.model_type}. Code of others is never run."
        )
    return models[0]


def _encoder(model: Any) -> Any:
    part = ENCODER.get(model.config.model_type)
    return getattr(model, part) if part else model


def _feature_dim(model: Any, config: Any, picture_format: PictureFormat) -> int:
    """Return D, by the shapes of what the model gives for one view; nothing is computed.

    Raises:
        VidclfError: the model takes something else, or gives what there is no rule for.
    """
    length, size, kind = picture_format.clip_length, picture_format.size, type(model).__name__
    shape = (1, length, 3, size, size) if length > 1 else (1, 3, size, size)
    try:
        with torch.device("meta"), torch.no_grad():
            found = _encoder(type(model)(config).eval())(**{model.main_input_name: torch.empty(shape)})
        tokens, pooled = (getattr(found, key, None) for key in ("last_hidden_state", "pooler_output"))
        of_tokens, of_image = (() if one is None else tuple(one.shape) for one in (tokens, pooled))
    except Exception as error:  # another input, another layout, positions for another size
        raise VidclfError(f"{kind} does not fit: it cannot take images of shape {shape} alone: {error}") from error
    if length == 1:
        if len(of_image) < 2 or set(of_image[2:]) > {1}:
            raise VidclfError(
                f"{kind} does not fit: its pooled output (pooler_output) is {of_image or 'none'}, not one vector a "
                "image, as DINOv2's is. Many other models of images are in timm (backbone=timm)."
            )
        return of_image[1]
    patch, steps = getattr(config, "patch_size", size), length // _tubelet(config)
    height, width = [patch] * 2 if isinstance(patch, int) else list(patch)[-2:]
    num_tokens = steps * (size // height) * (size // width)
    if len(of_tokens) != 3 or of_tokens[1] != num_tokens:
        raise VidclfError(
            f"{kind} does not fit: of {length} frames it gives {of_tokens or 'no tokens'}, not {num_tokens} tokens, "
            f"{steps} steps one after the other. VideoMAE and V-JEPA 2 do."
        )
    return of_tokens[2]


def _tubelet(config: Any) -> int:
    """Return how many frames make a step."""
    found = getattr(config, "tubelet_size", 1)
    return found if isinstance(found, int) else found[0]


def _picture_format(folder: Path, config: Any) -> PictureFormat:
    """Return how the folder's processor makes images.

    Raises:
        VidclfError: it has none, or makes them in a way that there is none here for.
    """
    from torchvision.transforms import InterpolationMode

    length = next((getattr(config, key) for key in NUM_FRAMES if getattr(config, key, None)), 1)
    processor = _processor_of(folder, is_video=length > 1)
    size, crop = (_sides(getattr(processor, key, None)) for key in ("size", "crop_size"))
    crop = crop if getattr(processor, "do_center_crop", False) else size
    usual = getattr(processor, "do_resize", False) and getattr(processor, "do_rescale", False)
    usual = usual and round(1 / processor.rescale_factor) == 255
    if not usual or not size or len(crop) != 2 or crop[0] != crop[1]:
        raise VidclfError(
            f"{folder}: its {type(processor).__name__} makes images in a way that there is none here for: "
            f"size={getattr(processor, 'size', None)}, crop_size={getattr(processor, 'crop_size', None)}. It must "
            "resize to a side or to height and width, cut out a square, and divide by 255."
        )
    trained = next((_sides(getattr(config, key)) for key in SIZE if getattr(config, key, None)), crop)
    if length > 1 and (*trained, *trained)[:2] != crop:
        raise VidclfError(
            f"{folder}: its processor makes images of {crop[0]} x {crop[1]}, and the model's positions are for "
            f"{trained[0]} x {trained[-1]}. Mend crop_size in its preprocessor_config.json."
        )
    normalized = getattr(processor, "do_normalize", False)
    names = dict(enumerate(("nearest-exact", "lanczos", "bilinear", "bicubic", "box", "hamming")))  # as Pillow counts
    resample = processor.resample
    return PictureFormat(
        size=crop[0],
        resize=size[0] if len(size) == 1 else (size[0], size[1]),
        mean=tuple(processor.image_mean) if normalized else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if normalized else (1.0, 1.0, 1.0),
        interpolation=InterpolationMode(names[int(resample)]).value if isinstance(resample, int) else resample.value,
        clip_length=length,
        antialias=True,
        crop_down=True,
    )


def _processor_of(folder: Path, is_video: bool) -> Any:
    from transformers import AutoImageProcessor, AutoVideoProcessor

    errors = []
    for kind in (AutoVideoProcessor, AutoImageProcessor) if is_video else (AutoImageProcessor,):
        try:
            with _quietly():
                return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # no file, no class, values of another kind
            errors.append(str(error).strip().splitlines()[0] if str(error).strip() else repr(error))
    raise VidclfError(
        f"{folder}: how its images are made is not known: it needs the preprocessor_config.json (or "
        f"video_preprocessor_config.json) of its model. ({errors[0]})"
    )


def _sides(size: Any) -> tuple[int, ...]:
    """Return (shorter side,), (height, width), or () for anything else that a processor may say."""
    if isinstance(size, int):
        return (size,)
    if isinstance(size, list | tuple):
        return tuple(size)
    keys = ("shortest_edge", "height", "width", "longest_edge")
    side, height, width, longest = (
        size.get(key) if isinstance(size, dict) else getattr(size, key, None) for key in keys
    )
    if longest:
        return ()
    return (side,) if side else (height, width) if height and width else ()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let transformers draw no bars and log errors only: what is wrong with weights is said once, by us."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
