"""What TensorBoard shows of a run beside its curves: the configuration, and the HParams tab."""

from collections.abc import Mapping

from lightning.pytorch.loggers import Logger, TensorBoardLogger


def log_configuration(logger: Logger | None, text: str) -> None:
    """Show the configuration in TensorBoard's text tab, as it is."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("configuration", "".join(f"    {line}\n" for line in text.splitlines()))


def log_hyperparameters(logger: Logger | None, settings: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Fill TensorBoard's HParams tab: what changes a score, and the best validation scores."""
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(dict(settings), {f"best/{name}": metrics[name] for name in ("top1", "loss")})
        logger.finalize("success")
