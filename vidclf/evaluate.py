"""Score a part of the data with a run, by the run's settings or by changed ones."""

from collections.abc import Sequence
from pathlib import Path

from vidclf.audit.shortcuts import kept_shortcuts
from vidclf.build.datasets import build_corpus, build_source
from vidclf.build.parts import build_aggregations, restore_classifier
from vidclf.build.training import build_trainer
from vidclf.comparison.scored import temperature_in
from vidclf.contracts import PARTS
from vidclf.data.corpus import Corpus
from vidclf.errors import VidclfError
from vidclf.evaluation.ethogram import report_timelines, write_coverage
from vidclf.evaluation.logits import ViewLogits, compute_metrics, print_warnings, score_part
from vidclf.evaluation.probes import Prober, parse_probes
from vidclf.evaluation.results import print_scores, score_of, write_aggregations, write_report
from vidclf.evaluation.scores import VideoPredictions
from vidclf.evaluation.tensorboard import BEST, log_report
from vidclf.models.classifier import Classifier
from vidclf.run.compatible import check_classes, check_split, differences, results_name
from vidclf.run.config import Config, explicit_overrides, is_sweep
from vidclf.run.folder import Run, load_checkpoint, results_folder, shown_folder, write_scores
from vidclf.run.sweep import is_complete
from vidclf.system.ranks import is_rank_zero, start_ranks
from vidclf.system.terminal import say, table


def run(config: Config, run: Run | None) -> None:
    """Write metrics.json, logits, predictions, failed.csv, tables and figures into the run's folder."""
    assert run is not None
    part = config["part"]
    if part not in PARTS:
        raise VidclfError(f"part={part}: must be one of {', '.join(PARTS)}.")
    probes = [] if config["probe"] is None else parse_probes(config["probe"])
    _say_if_incomplete(run)
    corpus = build_corpus(config)
    check_classes(run, corpus.class_names)
    classifier = restore_classifier(config, run)
    trainer = build_trainer(config, classifier.backbone)
    start_ranks(trainer)
    device = trainer.strategy.root_device
    corpus.look()
    check_split(run, corpus, part)
    same_videos = corpus.split.fingerprint == run.split_fingerprint
    changed = differences(run, config, explicit_overrides(), same_videos)
    source = build_source(config, corpus, classifier.backbone, device)
    source.prepare(corpus.views(part))
    view_logits = score_part(trainer, classifier, source, corpus, part)
    predictions = view_logits.aggregate(classifier.aggregation, corpus.videos)
    if not probes:
        if is_rank_zero():
            _write_scores(run, config, part, changed, view_logits, predictions, classifier, corpus)
        return
    if classifier.backbone.picture_format.clip_length > 1:  # clips in disorder are not needed again
        source = build_source(config, corpus, classifier.backbone, device, stored=False)
    rows = {}
    for probe, scores in Prober(trainer, classifier, source, corpus, part, predictions).score(probes):
        if is_rank_zero():
            results = results_folder(run, results_name(part, [*changed, f"probe={probe}"]))
            write_scores(results, scores, corpus.videos, corpus.failed)
        rows[f"probe={probe}"] = score_of(scores, "top1") + f", temporal gain {score_of(scores, 'temporal_gain')}"
    title = f"{part} part of {run.folder}: top1 {predictions.is_correct.mean():.3f} in order, and with each probe"
    table(title, rows, f"results {run.folder / results_name(part, changed)}-probe-*")


def _say_if_incomplete(run: Run) -> None:
    """Say at which epoch a training stopped that did not come to its end."""
    last = run.path.with_name("last.ckpt")
    if is_complete(run.folder) or not last.is_file():
        return
    num_epochs, planned = load_checkpoint(last).num_epochs, run.config["trainer"]["max_epochs"]
    if num_epochs != planned:
        say(
            f"{run.folder}: training stopped after epoch {num_epochs} of {planned}; the scores are of epoch "
            f"{run.num_epochs}. To go on: vidclf train resume={run.folder}"
        )


def _write_scores(
    run: Run,
    config: Config,
    part: str,
    changed: Sequence[str],
    view_logits: ViewLogits,
    predictions: VideoPredictions,
    classifier: Classifier,
    corpus: Corpus,
) -> None:
    """Write the scores, tables and figures of a part, and print the scores."""
    on_val = [text for text in changed if not text.startswith("timeline.")]  # which changes no window's score
    val = run.folder / results_name("val", on_val) if on_val else run.folder
    temperature = temperature_in(val)
    aggregations = build_aggregations()
    metrics = compute_metrics(view_logits, predictions, corpus, part, aggregations, temperature)
    results = results_folder(run, results_name(part, changed))
    write_report(results, view_logits, predictions, classifier.aggregation, corpus)
    timeline = report_timelines(results, predictions, corpus, config.get("timeline"), None if part == "val" else val)
    if timeline:
        write_coverage(results, predictions, temperature)
    metrics |= timeline
    if part == "test":
        metrics |= kept_shortcuts(Path(config["store"]["root"]), corpus)
        write_aggregations(results, view_logits, aggregations, corpus.videos)
    logs, best = (results_folder(run, name) for name in ("tensorboard", f"tensorboard/{BEST}"))
    log_report(logs, best, results, part, corpus, view_logits, predictions)
    write_scores(results, metrics, corpus.videos, corpus.failed)
    print_warnings(predictions, corpus.class_names)
    print_scores(f"{part} part of {run.folder}", metrics, f"results {results}", in_one_line=is_sweep())
    if not (is_sweep() or changed):
        say(f"next: vidclf report {shown_folder(run.folder)}" + ("" if part == "test" else f" part={part}"))
