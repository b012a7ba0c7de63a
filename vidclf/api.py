"""vidclf from Python: `load` a run and label videos with it, `compose` a verb's configuration."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from jaxtyping import Float
from omegaconf import OmegaConf, open_dict
from torch import Tensor

from vidclf.build.parts import build_device, build_node, build_transform, restore_classifier
from vidclf.errors import VidclfError, VideoError
from vidclf.evaluation.cleaning import CHOSEN, DEFAULT, chosen_in, cleaning_of, step_of
from vidclf.prediction.files import Predictor, look_at
from vidclf.prediction.windows import Windows
from vidclf.run.config import CONF, HYDRA, Config, configure, explain
from vidclf.run.folder import Run
from vidclf.run.values import fits
from vidclf.run.words import name_words, prepare_arguments
from vidclf.system.machine import num_cores

SHORTEST_S = 0.001  # of windows and strides


class LoadedRun:
    """A trained run, ready to label videos.

    Attributes:
        config: its configuration, plain data.
        class_names: in label order.
        predictor: the classifier with the stages before it.
    """

    def __init__(self, config: Config, run: Run) -> None:
        self.config, self.class_names = config, run.class_names
        device = build_device(config)
        classifier = restore_classifier(config, run)
        transform = build_transform(config, classifier.backbone.picture_format)
        self.predictor = Predictor(classifier, build_node(config["sampling"]), transform, run.class_names, device)

    def predict(self, path: str | Path) -> dict[str, Any]:
        """Return {"path", "label", "probability", "top5"} of a video file.

        Raises:
            VideoError: the file is not a video, or is damaged.
        """
        return next(self.predict_many([path]))

    def predict_many(self, paths: Sequence[str | Path]) -> Iterator[dict[str, Any]]:
        """Yield the same of each file, in order; decoding runs ahead.

        Raises:
            VideoError: as `predict`, in the file's turn.
        """
        looked = look_at([Path(path) for path in paths], self._num_threads)
        for path, label in self.predictor.label_files(looked, self._num_threads):
            if isinstance(label, VideoError):
                raise label
            yield {"path": str(path), **label}

    def embed(self, path: str | Path) -> Float[Tensor, "V S D"]:
        """Return the backbone's features of a video file: V views of S steps, D wide.

        Raises:
            VideoError: the file is not a video, or is damaged.
        """
        ((_, _, features),) = self.predictor.embed(look_at([Path(path)], self._num_threads), self._num_threads)
        assert features is not None
        if isinstance(features, VideoError):
            raise features
        return features

    @property
    def _num_threads(self) -> int:
        return self.config["num_threads"] or num_cores()


def windows_of(
    config: Config, window_s: float | int | None = None, stride_s: float | int | None = None
) -> Windows | None:
    """Return the windows of a run, or others for its sampling; None: its configuration has none, it labels files.

    Args:
        config: of the run.
        window_s: their length; None: the run's.
        stride_s: from one to the next; None: the run's, or half a window.

    Raises:
        VidclfError: one of them is no number of seconds, or too small.
    """
    dataset = config["dataset"]
    window_s = dataset.get("window_s") if window_s is None else window_s
    stride_s = dataset.get("stride_s") if stride_s is None else stride_s
    for key, value in (("window_s", window_s), ("stride_s", stride_s)):
        if value is not None and not (fits(value, float) and SHORTEST_S <= value < math.inf):
            raise VidclfError(f"{key}={value}: must be a number, at least {SHORTEST_S}, in seconds.")
    if window_s is None:
        return None
    rate_hz = dataset.get("rate_hz", config["sampling"].get("rate_hz"))
    return Windows(window_s, stride_s or window_s / 2, rate_hz)


def cleaning_in(config: Config, run: Run) -> tuple[float | int, dict[str, float]]:
    """Return the step of a run's timelines, and how they are cleaned: as set, or as chosen on val."""
    settings: Mapping[str, Any] = config.get("timeline") or DEFAULT
    chosen = chosen_in(run.folder) if "window_s" in config["dataset"] else dict.fromkeys(CHOSEN, 0.0)
    return step_of(settings), cleaning_of(settings, chosen)


def load(run: str | Path, trust: bool = False) -> LoadedRun:
    """Load a trained run.

    Args:
        run: the folder that `vidclf train` wrote, or a checkpoint in it.
        trust: whether the run may name classes from outside vidclf, which then run.

    Raises:
        VidclfError: there is no run, it cannot be read, or it is not trusted.
    """
    config, loaded = _configure("predict", [f"run={run}", "source=-", f"trust={str(trust).lower()}"])
    assert loaded is not None
    return LoadedRun(config, loaded)


def compose(verb: str, overrides: Sequence[str] = ()) -> Config:
    """Return a verb's configuration as plain data, as `vidclf VERB OVERRIDES --cfg job` prints it.

    Raises:
        VidclfError: a key is unknown, or a required one is missing.
    """
    return _configure(verb, overrides)[0]


def _configure(verb: str, overrides: Sequence[str]) -> tuple[Config, Run | None]:
    typed = name_words(verb, overrides)
    before = HydraConfig.instance().cfg
    try:
        with initialize_config_dir(CONF, **HYDRA):
            cfg = hydra.compose(verb, prepare_arguments(verb, typed), return_hydra_config=True)
            with open_dict(cfg.hydra.runtime):
                cfg.hydra.runtime.output_dir = str(cfg.hydra.run.dir)
            HydraConfig.instance().set_config(cfg)
            plain: Any = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            return configure(plain, verb, typed)
    except Exception as error:
        raise explain(error, verb, typed) from None
    finally:
        HydraConfig.instance().cfg = before
