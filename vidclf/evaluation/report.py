"""What evaluate leaves beside metrics.json: logits of views, predictions of videos, the confusion matrix."""

from pathlib import Path

from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from vidclf.contracts import Video
from vidclf.data.corpus import Corpus
from vidclf.evaluation.judge import Judged
from vidclf.evaluation.scores import Aggregation
from vidclf.evaluation.sheets import draw_confusion
from vidclf.models.classifier import aggregate_videos
from vidclf.system.disk import write_csv


def write_report(folder: Path, log_folder: Path, judged: Judged, aggregation: Aggregation, corpus: Corpus) -> None:
    """Write logits.safetensors, predictions.csv and confusion.png; that is in the run's TensorBoard, too."""
    write_logits(folder, judged, corpus.videos)
    write_predictions(folder, judged, aggregation, corpus)
    write_confusion(folder, judged, aggregation, corpus.class_names, log_folder)


def write_logits(folder: Path, judged: Judged, videos: list[Video]) -> None:
    """Write logits.safetensors: `logits` (N, K), `labels`, `video`, `view` (N,), and the videos' names.

    `video` counts the names in videos.txt's lines, from 0.
    """
    tensors = {name: getattr(judged, name).contiguous() for name in ("logits", "labels", "video", "view")}
    save_file(tensors, folder / "logits.safetensors")
    names = "".join(f"{video.name}\n" for video in videos)
    (folder / "videos.txt").write_text(names, encoding="utf-8", errors="surrogateescape")


def write_predictions(folder: Path, judged: Judged, aggregation: Aggregation, corpus: Corpus) -> None:
    """Write predictions.csv: a line a video, with the probability of the predicted class."""
    log_probabilities, labels = aggregate_videos(judged.logits, judged.labels, judged.video, aggregation)
    names = corpus.class_names
    rows = []
    for video, label, scores in zip(judged.video.unique().tolist(), labels.tolist(), log_probabilities, strict=True):
        label_predicted, probability = most_probable(scores, names)[0]
        rows.append((corpus.videos[video].name, names[label], label_predicted, probability))
    write_csv(folder / "predictions.csv", ("video", "label", "predicted", "probability"), rows)


def write_confusion(
    folder: Path, judged: Judged, aggregation: Aggregation, class_names: list[str], log_folder: Path
) -> None:
    """Draw the confusion matrix into confusion.png and into the run's TensorBoard."""
    log_probabilities, labels = aggregate_videos(judged.logits, judged.labels, judged.video, aggregation)
    figure = draw_confusion(labels, log_probabilities.argmax(dim=1), class_names)
    figure.savefig(folder / "confusion.png", dpi=120)
    with SummaryWriter(str(log_folder)) as writer:
        writer.add_figure(f"confusion/{folder.name}", figure, close=True)


def most_probable(log_probabilities: Float[Tensor, " K"], names: list[str], top: int = 5) -> list[tuple[str, float]]:
    """Return the `top` classes and their probabilities, the highest first."""
    values, labels = log_probabilities.exp().topk(min(top, len(names)))
    return [(names[label], value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]
