"""What TensorBoard shows of a run beside its curves: the configuration, and the HParams tab."""

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import Logger, TensorBoardLogger

from vidclf.system.terminal import printable


def log_run(logger: Logger | None, text: str, settings: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Show the configuration, as it is, in the text tab, and in HParams what changes a score beside the best ones."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text("configuration", "".join(f"    {printable(line)}\n" for line in text.splitlines()))
        shown = {name: printable(value) for name, value in settings.items()}
        logger.log_hyperparams(shown, {f"best/{name}": metrics[name] for name in ("top1", "loss")})
        logger.finalize("success")


def log_table(logger: Logger | None, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show rows with the same keys as a table in the text tab."""
    if isinstance(logger, TensorBoardLogger):
        lines = [[*rows[0]], ["---"] * len(rows[0]), *([f"{value}" for value in row.values()] for row in rows)]
        logger.experiment.add_text(name, "\n".join(f"| {' | '.join(map(printable, line))} |" for line in lines))
        logger.experiment.flush()
