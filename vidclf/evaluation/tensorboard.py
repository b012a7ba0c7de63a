"""What TensorBoard shows of a run beside its curves: the configuration, images, and the HParams tab."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vidclf.data.corpus import Corpus
from vidclf.evaluation.figures import ViewSheets, add_images, draw_sheet
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.system.text import sanitize

BEST = "best"  # below a run's logs: what HParams shows of it
MAX_SIGNS = 200  # of a setting that HParams shows


def log_run(trainer: L.Trainer, text: str, choices: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Show the configuration, as it is, in the text tab, and what was chosen and came of it in HParams."""
    if isinstance(logger := trainer.logger, TensorBoardLogger):
        logger.experiment.add_text("configuration", "".join(f"    {sanitize(line)}\n" for line in text.splitlines()))
        log_best(Path(logger.log_dir, BEST), {f"val/{name}": metrics[name] for name in ("top1", "loss")}, choices)
        logger.finalize("success")


def log_views(trainer: L.Trainer, corpus: Corpus, judged: ViewLogits, videos: VideoPredictions) -> None:
    """Show what was made of validation views, where the callback shows those of training."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ViewSheets) and isinstance(trainer.logger, TensorBoardLogger):
            sheet = draw_sheet(corpus, "val", callback.num_views, judged, videos)
            add_images(trainer.logger.experiment, "views/val", sheet, trainer.global_step)


def log_report(
    logs: Path, best: Path, results: Path, part: str, corpus: Corpus, judged: ViewLogits, videos: VideoPredictions
) -> None:
    """Show what evaluate found: views, the confusion matrix and, of the test part by the run's settings, the score.

    Args:
        logs: the run's TensorBoard.
        best: the folder below it of what HParams shows.
        results: where confusion.png is; its name is the part, and what differs from the run's settings.
        part: train, val or test.
        corpus: whose part it is.
        judged: the part.
        videos: what the run's aggregation makes of it.
    """
    with SummaryWriter(str(logs)) as writer, Image.open(results / "confusion.png") as confusion:
        add_images(writer, f"confusion/{results.name}", [confusion])
        add_images(writer, f"views/{results.name}", draw_sheet(corpus, part, judged=judged, videos=videos))
    if results.name == "test":
        log_best(best, {"test/top1": float(videos.is_correct.mean())})


def log_best(folder: Path, scores: Mapping[str, float], choices: Mapping[str, str] | None = None) -> None:
    """Show scores of the best checkpoint in HParams: `folder` is what it takes for a run, once it has `choices`.

    It is a folder of its own, or HParams would have a column for each curve, with its last value. No experiment is
    described, or the columns would be those of one run: without, they are all that any run has.
    """
    with SummaryWriter(str(folder)) as writer:
        if choices is not None:
            shown = {sanitize(key): sanitize(value)[:MAX_SIGNS] for key, value in choices.items()}
            for summary in hparams(shown, {})[1:]:  # the session's beginning, and its end
                writer.file_writer.add_summary(summary)
        for name, score in scores.items():
            writer.add_scalar(name, score)


def log_table(logger: Logger | None, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show rows with the same keys as a table in the text tab."""
    if isinstance(logger, TensorBoardLogger):
        lines = [[*rows[0]], ["---"] * len(rows[0]), *([f"{value}" for value in row.values()] for row in rows)]
        logger.experiment.add_text(name, "\n".join(f"| {' | '.join(map(sanitize, line))} |" for line in lines))
        logger.experiment.flush()
