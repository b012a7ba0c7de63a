"""Check a data set before training: its classes, damaged files, leaks between parts, and shortcuts."""

from pathlib import Path

from hydra import compose
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from vidclf.audit.findings import CheckedCorpus, Findings, find_problems
from vidclf.audit.lookalikes import ALIKE, ALIKE_IN_PIXELS
from vidclf.audit.page import shortcut_sentences, table_of_classes, write_manifest, write_page
from vidclf.audit.shortcuts import keep_shortcuts
from vidclf.build.datasets import build_corpus, build_source
from vidclf.build.parts import build_backbone, build_device
from vidclf.contracts import Dataset, optional
from vidclf.errors import VidclfError
from vidclf.models.backbones.pixels import Pixels
from vidclf.models.backbones.wrap import FrozenBackbone, TunedBackbone
from vidclf.run.config import Config, explicit_overrides, key_of
from vidclf.run.folder import Run
from vidclf.system.disk import writing_to
from vidclf.system.machine import num_cores
from vidclf.system.terminal import say, table
from vidclf.system.text import sanitize

MAX_LINES = 10  # of files that cannot be read, and of what stops a training


def run(config: Config, run: Run | None) -> None:
    """Print the findings; write them as a page, and write a table of readable videos if `out` names one."""
    page, out, alike = config["check"]["page"], config["out"], config["check"]["alike"]
    if alike is not None and not (isinstance(alike, int | float) and 0 < alike < 1):
        raise VidclfError(f"check.alike={alike}: must be between 0 (as alike as many videos are) and 1 (identical).")
    out, page = (None if path is None else Path(path).expanduser() for path in (out, page))
    _check_files(page, out)
    if "on_error" in config["dataset"]:  # damaged files are listed
        config = {**config, "dataset": {**config["dataset"], "on_error": "skip"}}
    corpus = build_corpus(config, kind=CheckedCorpus)  # before weights are fetched
    assert isinstance(corpus, CheckedCorpus)
    if out is not None and optional(corpus.dataset, Dataset, "timelines") is not None:
        raise VidclfError(f"out={out}: windows of long videos overlap, and a table lists videos apart. Leave it out.")
    backbone, config = _build_backbone(config)
    alike = alike or (ALIKE_IN_PIXELS if isinstance(backbone.backbone, Pixels) else ALIKE)
    device = build_device(config)
    backbone.to(device).eval()
    corpus.look()
    source = build_source(config, corpus, backbone, device)
    num_threads = config["num_threads"] or num_cores()
    findings = find_problems(corpus, source, backbone, alike, num_threads, config["check"]["join_classes"])
    _print_findings(findings)
    with writing_to(Path(config["store"]["root"]), "Name another folder with store.root=..."):
        keep_shortcuts(Path(config["store"]["root"]), corpus, findings.shortcuts, findings.num_leaks)
    for path, write in ((page, write_page), (out, write_manifest)):
        if path is not None:
            with writing_to(path, "Name another file with check.page=... or out=..."):
                write(path, findings)
    table("Checked", _rows(findings), f"page {page}" if page is not None else "")
    if corpus.failed:
        raise VidclfError(f"{len(corpus.failed)} of {len(corpus.videos)} videos cannot be read; see above.")
    if corpus.problems:
        raise VidclfError(f"{len(corpus.problems)} problem(s) stop a training on these videos; see above.")
    if config["check"]["strict"] and findings.num_leaks:
        raise VidclfError(f"check.strict: {findings.num_leaks} leak(s) between the parts of the split; see above.")


def _check_files(page: Path | None, out: Path | None) -> None:
    """Raise VidclfError before the work if a file could not be written, or must not be overwritten."""
    if out is not None and out.exists():
        raise VidclfError(f"out={out}: the file exists. Choose another name or delete it.")
    if out is not None and (out.suffix.lower() != ".csv" or out == page):
        raise VidclfError(f"out={out}: the name must end in .csv, and differ from check.page.")
    if page is not None and (page.is_dir() or page.suffix.lower() not in (".html", ".htm")):
        raise VidclfError(f"check.page={page}: the name must end in .html; null writes no page.")
    for path in (page, out):
        if path is not None:
            with writing_to(path, "Name another file with check.page=... or out=..."):
                path.parent.mkdir(parents=True, exist_ok=True)


def _print_findings(findings: Findings) -> None:
    """Print a line for each class and each file that cannot be read, then a sentence for each problem and shortcut."""
    classes = table_of_classes(findings)
    for name, *counts in classes.rows:
        text = ", ".join(f"{key} {value}" for key, value in zip(classes.header[1:], counts, strict=True))
        say(sanitize(f"{name}: {text}"))
    failed = [f"cannot be read: {error}" for error in findings.corpus.failed.values()]
    others = findings.problems[len(findings.corpus.problems) :]
    for sentences in (failed, findings.corpus.problems):
        for sentence in sentences[:MAX_LINES]:
            say(sanitize(sentence))
        if len(sentences) > MAX_LINES:
            say(f"... and {len(sentences) - MAX_LINES} more of this kind; the page lists all.")
    for sentence in (*others, *shortcut_sentences(findings), *findings.agreement):
        say(sanitize(sentence))


def _rows(findings: Findings) -> dict[str, object]:
    corpus = findings.corpus
    return {
        "videos": len(corpus.videos),
        "groups": len({video.unit for video in corpus.videos}),
        "cannot be read": len(corpus.failed),
        "copied files": len(findings.copies),
        "look-alike pairs": len(findings.pairs),
        "leaks between parts": findings.num_leaks if corpus.is_divided else "no split",
    }


def _build_backbone(config: Config) -> tuple[FrozenBackbone | TunedBackbone, Config]:
    """Return the backbone and its configuration: Pixels if none was chosen and the default's weights are missing."""
    try:
        return build_backbone(config), config
    except InstantiationException as error:
        chosen = {key_of(override).partition(".")[0] for override in explicit_overrides()}
        if not isinstance(error.__cause__, VidclfError) or "backbone" in chosen:
            raise
        say(
            f"{error.__cause__}\nVideos are compared by their pixels instead. That finds copies encoded again or "
            "mirrored, but not cropped copies or other takes of a scene. Choose a network with backbone=..."
        )
    config = {**config, "backbone": OmegaConf.to_container(compose("backbone/pixels").backbone)}
    return build_backbone(config), config
