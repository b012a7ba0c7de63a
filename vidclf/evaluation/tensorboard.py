"""Shows a run in TensorBoard beside its curves: the configuration, images, and the HParams tab."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from vidclf.data.corpus import Corpus
from vidclf.evaluation.figures import MAX_SMALL, ViewSheets, add_images, as_image, draw_confusion, draw_sheet
from vidclf.evaluation.logits import ViewLogits
from vidclf.evaluation.scores import VideoPredictions
from vidclf.system.text import sanitize

BEST = "best"  # folder below a run's logs: what HParams shows of it
MAX_CHARS = 200  # of a setting that HParams shows


def log_run(trainer: L.Trainer, text: str, choices: Mapping[str, str], metrics: Mapping[str, float]) -> None:
    """Show the configuration in the text tab, and all settings with their scores in HParams.

    A setting that another run varies must be there in every run, or parallel coordinates leave this run out.
    """
    if isinstance(logger := trainer.logger, TensorBoardLogger):
        logger.experiment.add_text("configuration", "".join(f"    {sanitize(line)}\n" for line in text.splitlines()))
        log_best(Path(logger.log_dir, BEST), {f"val/{name}": metrics[name] for name in ("top1", "loss")}, choices)
        logger.finalize("success")


def log_views(trainer: L.Trainer, corpus: Corpus, view_logits: ViewLogits, predictions: VideoPredictions) -> None:
    """Show validation views with their predictions, if the callback shows training views."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ViewSheets) and isinstance(trainer.logger, TensorBoardLogger):
            sheet = draw_sheet(corpus, "val", callback.num_views, view_logits, predictions)
            add_images(trainer.logger.experiment, "views/val", sheet, trainer.global_step)


def log_report(
    logs: Path,
    best: Path,
    results: Path,
    part: str,
    corpus: Corpus,
    view_logits: ViewLogits,
    predictions: VideoPredictions,
) -> None:
    """Show an evaluation: views, the confusion matrix and, for the test part with the run's settings, the score.

    `logs` is the run's TensorBoard folder, `best` the folder below it that HParams reads. The name of `results` is the
    part and the settings that differ from the run's.
    """
    names = corpus.class_names
    confusion = draw_confusion(predictions.labels, predictions.predicted, names, is_small=len(names) <= MAX_SMALL)
    with SummaryWriter(str(logs)) as writer:
        add_images(writer, f"confusion/{results.name}", [as_image(confusion)])
        sheet = draw_sheet(corpus, part, view_logits=view_logits, predictions=predictions)
        add_images(writer, f"views/{results.name}", sheet)
    if results.name == "test":
        log_best(best, {"test/top1": float(predictions.is_correct.mean())})


def log_best(folder: Path, scores: Mapping[str, float], choices: Mapping[str, str] | None = None) -> None:
    """Show the scores of the best checkpoint in HParams, which takes `folder` for a run once it has `choices`.

    The folder is separate from the curves, or HParams would show a column for the last value of each. The experiment
    is not described, or HParams would show the columns of this run alone.
    """
    with SummaryWriter(str(folder)) as writer:
        if choices is not None:
            settings = {sanitize(key): sanitize(value)[:MAX_CHARS] for key, value in choices.items()}
            for summary in hparams(settings, {})[1:]:  # the start and the end of the session
                writer.file_writer.add_summary(summary)
        for name, score in scores.items():
            writer.add_scalar(name, score)


def log_table(logger: Logger | None, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Show rows with the same keys as a table in the text tab."""
    if isinstance(logger, TensorBoardLogger):
        lines = [[*rows[0]], ["---"] * len(rows[0]), *([f"{value}" for value in row.values()] for row in rows)]
        logger.experiment.add_text(name, "\n".join(f"| {' | '.join(map(sanitize, line))} |" for line in lines))
        logger.experiment.flush()
