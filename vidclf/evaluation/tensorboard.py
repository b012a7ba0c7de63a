"""What TensorBoard shows of a run beside its curves: the configuration, and the HParams tab."""

from collections.abc import Mapping

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from vidclf.system.terminal import printable


def log_run(logger: Logger | None, text: str, settings: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Show the configuration, as it is, in the text tab, and in HParams what changes a score beside the best ones."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("configuration", "".join(f"    {printable(line)}\n" for line in text.splitlines()))
        shown = {name: printable(value) for name, value in settings.items()}
        logger.log_hyperparams(shown, {f"best/{name}": metrics[name] for name in ("top1", "loss")})
        logger.finalize("success")
