"""Choose which videos to label next, and write a page on which to label them."""

import os
from pathlib import Path

import torch
from jaxtyping import Float

from vidclf.api import LoadedRun, windows_of
from vidclf.build.datasets import build_store
from vidclf.data.catalogue import Catalogue
from vidclf.data.grouping import group_rule
from vidclf.errors import VidclfError
from vidclf.features.recipe import why_not_storable
from vidclf.features.store import FeatureStore, read_means
from vidclf.pages.rendering import print_text, render_page
from vidclf.prediction.files import Failures
from vidclf.prediction.sources import find_files
from vidclf.reporting.candidates import Candidate, check_named, describe, find_candidates, mean_of
from vidclf.reporting.neighbours import MAX_BYTES, train_videos
from vidclf.reporting.ranking import choose
from vidclf.reporting.results import read_rows
from vidclf.run.config import Config
from vidclf.run.folder import Run
from vidclf.system.disk import check_replaceable, write_atomically, writing_to
from vidclf.system.machine import num_cores
from vidclf.system.terminal import say
from vidclf.system.text import plural

MAX_NUMBER = 300
REMEDY = "Name another file with to=FILE."


def run(config: Config, run: Run | None) -> None:
    """Write the page into the file `to`."""
    assert run is not None
    number, to = config["number"], Path(config["to"]).expanduser()
    if not 1 <= number <= MAX_NUMBER:
        raise VidclfError(f"number={number}: must be from 1 to {MAX_NUMBER}.")
    if to.suffix.lower() not in (".html", ".htm") or to.is_dir():
        raise VidclfError(f"to={to}: the name must end in .html. {REMEDY}")
    check_replaceable(to, "<title>vidclf review", "review")
    group = config["group"] or config["dataset"].get("group") or "file"
    rule = _by_file if group in ("file", "subject") else group_rule(group, os.path.dirname, "group")
    sources = [config["source"]] if isinstance(config["source"], str) else [*map(str, config["source"])]
    paths = check_named(find_files(sources))
    predictor = LoadedRun(config, run).predictor
    obstacle = why_not_storable(predictor.classifier.backbone.backbone, predictor.transform)
    store = (
        None if obstacle else build_store(config, predictor.classifier.backbone, predictor.transform, predictor.device)
    )
    failures = Failures(len(paths), skip=True)
    num_threads = config["num_threads"] or num_cores()
    catalogue = Catalogue(Path(config["store"]["root"]))
    found = [*find_candidates(predictor, paths, windows_of(config), num_threads, store, catalogue, failures)]
    if not found:
        raise VidclfError(f"source: none of {plural(len(paths), 'video')} can be read, for the reasons above.")
    names = [candidate.video.path.as_posix() for candidate in found]
    groups = [rule(name) or name for name in names]
    features = torch.stack([candidate.features for candidate in found])
    labelled = _labelled(run, store, features.shape[1])
    chosen = choose(torch.stack([one.log_probabilities for one in found]), features, labelled, groups, number)
    _write(to, run, [found[position] for position in chosen], len(found), len(labelled))


def _by_file(name: str) -> str:
    return name


def _labelled(run: Run, store: FeatureStore | None, feature_dim: int) -> Float[torch.Tensor, "L D"]:
    """Return the mean features of the run's train videos that the store has, as wide as those of the candidates."""
    contents = train_videos(read_rows(run.folder / "split.csv"))
    means = read_means(store.folder, [*contents], MAX_BYTES) if store else {}
    if not means:
        say("The store has no features of the run's train videos, so what is like them is not avoided.")
        return torch.empty(0, feature_dim)
    return torch.stack([mean_of(one[None]) for one in means.values()])


def _write(to: Path, run: Run, chosen: list[Candidate], num_found: int, num_labelled: int) -> None:
    page, images = describe(chosen, run.class_names)
    noun = "video" if chosen[0].video.start_s is None else "window"
    title = f"{len(chosen)} of {plural(num_found, noun)}"
    content = render_page(
        "review.html", "review.js", title=title, run=run.folder.name, num_labelled=num_labelled, images=images,
        data=page, **page,
    )  # fmt: skip
    with writing_to(to, REMEDY):
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(to, content)
    print_text(
        f"{title} to label: the page has a key for each class, and saves labels.csv for "
        f"dataset={'manifest' if noun == 'video' else 'events'}."
    )
    print_text(f"page {to}")
