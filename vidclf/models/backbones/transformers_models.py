"""Video and image encoders of transformers (VideoMAE, V-JEPA 2, DINOv2): images or clips -> features."""

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vidclf.contracts import PictureFormat
from vidclf.errors import VidclfError
from vidclf.models.backbones.hub import find_folder, folder_at, reading_folder
from vidclf.models.backbones.library import LibraryBackbone, check_name, wrong_length
from vidclf.models.backbones.trainable import resolve_precision
from vidclf.models.backbones.weights import verify_finite
from vidclf.system.extras import require

AT_LEAST = "5.10"  # before, a model's configuration could run code (CVE-2026-4372, CVE-2026-5241)
# Encoders of images or clips whose configuration names no other model: a configuration inside one can lead to code.
MODEL_TYPES = (
    *("beit", "bit", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinat", "dinov2"),
    *("dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "efficientnet", "focalnet", "hiera", "ijepa", "levit"),
    *("mobilenet_v1", "mobilenet_v2", "mobilevit", "mobilevitv2", "poolformer", "pvt", "pvt_v2", "regnet", "resnet"),
    *("siglip_vision_model", "siglip2_vision_model", "clip_vision_model", "swiftformer", "swin", "swinv2"),
    *("timesformer", "videomae", "vit", "vit_mae", "vit_msn", "vivit", "vjepa2"),
)
LEADS_ELSEWHERE = ("model_type", "auto_map", "_name_or_path", "trust_remote_code", "_attn_implementation")
NUM_FRAMES = ("num_frames", "frames_per_clip")  # in a configuration: the model takes clips
SIZE = ("image_size", "crop_size")
ENCODER = {"vjepa2": "encoder"}  # where only a part of the model makes features; the rest predicts what is masked
RESAMPLING = ("nearest-exact", "lanczos", "bilinear", "bicubic", "box", "hamming")  # in the order of Pillow's numbers
# Keys of a configuration that choose code or files, not a network.
REFUSED = ("quantization_config", "fusion_config", "transformers_weights", "distributed_config")
IGNORED = ("auto_map", "attn_implementation", "experts_implementation", "dtype", "torch_dtype", "transformers_version")


class TransformersBackbone(LibraryBackbone):
    """The features that a model of transformers has of each clip, or of each frame.

    A clip model gives the mean of its patches at each temporal step (V-JEPA 2 and VideoMAE: S = T/2); an image model
    its pooled output (S=1 a frame; DINOv2: the class token after the last norm). Other architectures follow the same
    rule, or are refused.

    Args:
        name: of a folder with config.json, the weights and the processor's configuration, as transformers saves it;
            or of a model of the Hub, `owner/model`. Code in it is never run.

    For the other arguments, and the errors, see `LibraryBackbone`. The stages are the model's blocks.
    """

    def __init__(self, name: str, trainable: str | int = "none", precision: str = "auto", fetch: bool = False) -> None:
        require("transformers", AT_LEAST, "encoders", "backbone=transformers")
        from transformers.utils import logging

        logging.set_verbosity_error()  # problems with weights are reported here
        logging.disable_progress_bar()
        number_format = resolve_precision(precision, trainable)
        folder = find_folder(name, fetch)
        with reading_folder(folder):
            description, config = _read_config(folder)
            picture_format = _picture_format(folder, config)
            model = _load(folder, config)
            verify_finite(model, str(folder))
            feature_dim = _feature_dim(model, config, picture_format)
        shown_name = folder.resolve().name if folder == folder_at(name) else name
        super().__init__(shown_name, _encoder(model), feature_dim, picture_format, number_format, trainable)
        self.configuration = json.dumps(description, sort_keys=True)
        self.input_name: str = model.main_input_name
        self.num_steps: int = picture_format.clip_length // _frames_per_step(config)
        for parameter_name, parameter in self.network.named_parameters():
            if parameter_name.endswith("mask_token"):  # for pretraining: no image is masked here
                parameter.requires_grad_(False)

    def forward(self, images: Float[Tensor, "N T 3 h w"]) -> Float[Tensor, "N S D"]:
        images = images.to(self._dtype)
        length = self.picture_format.clip_length
        self.check_size(images)
        if length == 1:
            pooled = self.network(**{self.input_name: images.flatten(0, 1)}).pooler_output
            return pooled.flatten(1).unflatten(0, images.shape[:2])  # (N*T, D) -> (N, T, D)
        if images.shape[1] != length:
            raise wrong_length(self.name, images.shape[1], f"{length} frames", length)
        tokens = self.network(**{self.input_name: images}).last_hidden_state  # (N, S * patches, D)
        return tokens.unflatten(1, (self.num_steps, -1)).mean(2)


def _read_config(folder: Path) -> tuple[dict[str, Any], Any]:
    """Return the content of config.json, and transformers' configuration made of it, with the class of `model_type`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    path = folder / "config.json"
    try:
        description = json.loads(path.read_bytes())
        kind = description["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VidclfError(
            f"{path}: not the configuration of a model of transformers ({error!r}). The folder must hold config.json, "
            "model.safetensors and preprocessor_config.json, as save_pretrained writes them."
        ) from error
    check_name(str(kind), MODEL_TYPES, f"{path} says model_type={kind}, and vidclf takes no model")
    for key, value in description.items():
        if isinstance(value, dict) and (value.keys() & {*LEADS_ELSEWHERE} or any(map(_is_nested, value.values()))):
            raise VidclfError(
                f"{path}: {key} holds a configuration of its own, which may lead to other files or to code. Save the "
                "image or video encoder alone."
            )
    if refused := [key for key in REFUSED if description.get(key)]:
        raise VidclfError(f"{path}: {', '.join(refused)} is not supported. Save the whole model in full precision.")
    if (folder / "adapter_config.json").exists():
        raise VidclfError(
            f"{folder}: it holds an adapter (adapter_config.json). Merge it into its model and save that."
        )
    kept = {key: value for key, value in description.items() if key not in IGNORED and not key.startswith("_")}
    try:
        return kept, CONFIG_MAPPING[kind].from_dict(dict(kept))
    except Exception as error:  # a class may raise anything for values that it cannot take
        raise VidclfError(f"{path}: not a valid configuration of {kind} ({error}).") from error


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)


def _load(folder: Path, config: Any) -> Any:
    """Return the model that was saved in the folder, without its classifier or decoder.

    The whole model is loaded first, so that every key of the file must be used, and every parameter filled.
    """
    kind = _saved_class(folder, config)
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
    except Exception as error:  # safetensors, pickle, shapes, missing files
        raise VidclfError(f"{folder}: its weights cannot be loaded as {kind.__name__}: {error}") from error
    labels = {"missing_keys": "not in the file", "unexpected_keys": "not used", "mismatched_keys": "of another shape"}
    errors = [f"{label}: {', '.join(sorted(map(str, report[key])))}" for key, label in labels.items() if report[key]]
    if errors:
        raise VidclfError(
            f"{folder}: these are not exactly the weights of {kind.__name__} ({'; '.join(errors)}). Fetch the files "
            "again, or name the folder of the model that they belong to."
        )
    return model.base_model


def _saved_class(folder: Path, config: Any) -> Any:
    """Return the class of transformers that the weights were saved from."""
    import transformers

    names = config.architectures or []
    kinds = [getattr(transformers, str(name), None) for name in names]
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)]
    if len(models) != 1 or models[0].config_class is not type(config):
        raise VidclfError(
            f"{folder / 'config.json'}: architectures={names}: must name the one class of transformers that the "
            f"weights were saved from, for model_type={config.model_type}. Code outside transformers is never run."
        )
    return models[0]


def _encoder(model: Any) -> Any:
    part = ENCODER.get(model.config.model_type)
    return getattr(model, part) if part else model


def _feature_dim(model: Any, config: Any, picture_format: PictureFormat) -> int:
    """Return D, if the model fits, from its output for one view on the meta device: nothing is computed."""
    length, size, kind = picture_format.clip_length, picture_format.size, type(model).__name__
    shape = (1, length, 3, size, size) if length > 1 else (1, 3, size, size)
    key = "last_hidden_state" if length > 1 else "pooler_output"
    try:
        with torch.device("meta"), torch.no_grad():
            output = _encoder(type(model)(config).eval())(**{model.main_input_name: torch.empty(shape)})
        tensor = getattr(output, key, None)
        found = () if tensor is None else tuple(tensor.shape)
    except Exception as error:  # another input, another layout, positions for another size
        raise VidclfError(f"{kind} does not fit: it cannot take images of shape {shape} alone: {error}") from error
    if length == 1:
        if len(found) < 2 or set(found[2:]) > {1}:
            raise VidclfError(
                f"{kind} does not fit: its pooled output ({key}) is {found or 'none'}, not one vector per image as in "
                "DINOv2. timm has many other image models (backbone=timm)."
            )
        return found[1]
    patch, steps = getattr(config, "patch_size", size), length // _frames_per_step(config)
    height, width = [patch] * 2 if isinstance(patch, int) else list(patch)[-2:]
    num_tokens = steps * (size // height) * (size // width)
    if len(found) != 3 or found[1] != num_tokens:
        raise VidclfError(
            f"{kind} does not fit: for {length} frames it gives {found or 'no tokens'}, not {num_tokens} tokens in "
            f"{steps} steps, one after the other, as VideoMAE and V-JEPA 2 do."
        )
    return found[2]


def _frames_per_step(config: Any) -> int:
    size = getattr(config, "tubelet_size", 1)
    return size if isinstance(size, int) else size[0]


def _picture_format(folder: Path, config: Any) -> PictureFormat:
    """Return how the folder's processor makes images."""
    length = next((getattr(config, key) for key in NUM_FRAMES if getattr(config, key, None)), 1)
    processor = _processor_of(folder, is_video=length > 1)
    keys = ("size", "crop_size", "do_center_crop", "do_resize", "do_rescale", "do_normalize", "rescale_factor")
    settings: dict[str, Any] = {key: getattr(processor, key, None) for key in keys}
    size, crop = _height_width(settings["size"]), _height_width(settings["crop_size"])
    crop = crop if settings["do_center_crop"] else size
    supported = settings["do_resize"] and settings["do_rescale"] and round(1 / settings["rescale_factor"]) == 255
    if not supported or not size or len(crop) != 2 or crop[0] != crop[1]:
        raise VidclfError(
            f"{folder}: its {type(processor).__name__} makes images in a way that is not supported: "
            f"size={settings['size']}, crop_size={settings['crop_size']}. It must resize to a shorter side or to "
            "height and width, crop a square, and divide by 255."
        )
    trained = next((_height_width(getattr(config, key)) for key in SIZE if getattr(config, key, None)), crop)
    if length > 1 and (*trained, *trained)[:2] != crop:
        raise VidclfError(
            f"{folder}: its processor makes images of {crop[0]} x {crop[1]}, and the model's positions are for "
            f"{trained[0]} x {trained[-1]}. Correct crop_size in its preprocessor_config.json."
        )
    resample, is_normalised = processor.resample, settings["do_normalize"]
    return PictureFormat(
        size=crop[0],
        resize=size[0] if len(size) == 1 else (size[0], size[1]),
        mean=tuple(processor.image_mean) if is_normalised else (0.0, 0.0, 0.0),
        std=tuple(processor.image_std) if is_normalised else (1.0, 1.0, 1.0),
        interpolation=RESAMPLING[int(resample)] if isinstance(resample, int) else resample.value,
        clip_length=length,
        antialias=True,
        crop_down=True,
    )


def _processor_of(folder: Path, is_video: bool) -> Any:
    from transformers import AutoImageProcessor, AutoVideoProcessor

    errors = []
    for kind in (AutoVideoProcessor, AutoImageProcessor) if is_video else (AutoImageProcessor,):
        try:
            return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # no file, no class, values of another kind
            errors.append((str(error).strip() or repr(error)).splitlines()[0])
    raise VidclfError(
        f"{folder}: it does not say how to make images: it needs the preprocessor_config.json (or "
        f"video_preprocessor_config.json) of its model. ({errors[0]})"
    )


def _height_width(size: Any) -> tuple[int, ...]:
    """Return (shorter side,), (height, width), or () for any other size in a processor's settings."""
    if isinstance(size, int):
        return (size,)
    if isinstance(size, list | tuple):
        return tuple(size)
    keys = ("shortest_edge", "height", "width", "longest_edge")
    shorter, height, width, longest = (
        size.get(key) if isinstance(size, dict) else getattr(size, key, None) for key in keys
    )
    if longest:
        return ()
    return (shorter,) if shorter else (height, width) if height and width else ()
