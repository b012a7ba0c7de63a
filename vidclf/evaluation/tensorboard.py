"""What TensorBoard shows of a run beside its curves: the configuration, and the HParams tab."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from vidclf.run.compatible import SCORED_BY, flatten


def log_text(logger: Logger, name: str, text: str) -> None:
    """Show a text in TensorBoard, as it is."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(name, "".join(f"    {line}\n" for line in text.splitlines()))


def log_hyperparameters(logger: Logger, config: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Fill TensorBoard's HParams tab: what changes a score, and the best validation scores."""
    if isinstance(logger, TensorBoardLogger):
        keys = (*SCORED_BY, "optimizer", "scheduler", "seed", "batch_size")
        flat = flatten({key: config[key] for key in keys})
        logger.log_hyperparams({key: str(value) for key, value in flat.items()}, dict(metrics))
        logger.finalize("success")
