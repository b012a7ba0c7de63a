"""Look through a data set before anyone trains: what is in it, what is wrong with it, what could cheat."""

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from vidclf.cli import verb
from vidclf.errors import VidclfError

if TYPE_CHECKING:
    from pathlib import Path

    from vidclf.audit.findings import Checked


@verb
def main(cfg: DictConfig) -> None:
    """Print what was found; leave a page, and a table of sound videos if `out` names one."""
    from pathlib import Path

    from vidclf.audit.findings import check
    from vidclf.audit.lookalikes import ALIKE, ALIKE_IN_PIXELS
    from vidclf.audit.page import write_manifest, write_page
    from vidclf.audit.shortcuts import keep_shortcuts
    from vidclf.build import datasets as sources
    from vidclf.build import parts as build
    from vidclf.models.backbones.pixels import Pixels
    from vidclf.run.config import asked
    from vidclf.system.disk import writing_to
    from vidclf.system.machine import num_cores
    from vidclf.system.terminal import table

    config, _ = asked(cfg, "check")
    page, out, alike = config["check"]["page"], config["out"], config["check"]["alike"]
    if alike is not None and not (isinstance(alike, int | float) and 0 < alike < 1):
        raise VidclfError(f"check.alike={alike}: it must be between 0 (as alike as many are) and 1 (identical).")
    out, page = (None if path is None else Path(path).expanduser() for path in (out, page))
    _check_files(page, out)
    if "on_error" in config["dataset"]:  # damaged files are listed, and end nothing
        config["dataset"] = {**config["dataset"], "on_error": "skip"}
    backbone = _backbone(config)
    alike = alike or (ALIKE_IN_PIXELS if isinstance(backbone.backbone, Pixels) else ALIKE)
    device = build.build_device(config)
    backbone.to(device).eval()
    corpus = sources.build_corpus(config)
    source = sources.build_source(config, corpus, backbone, device)
    checked = check(corpus, source, backbone, alike, config["num_threads"] or num_cores())
    _say(checked)
    with writing_to(Path(config["store"]["root"]), "Name another folder with store.root=..."):
        keep_shortcuts(Path(config["store"]["root"]), corpus, checked.shortcuts)
    for path, write in ((page, write_page), (out, write_manifest)):
        if path is not None:
            with writing_to(path, "Name another file with check.page=... or out=..."):
                write(path, checked)
    table("Checked", _rows(checked), f"page {page}" if page is not None else "")
    if corpus.failed:
        raise VidclfError(f"{len(corpus.failed)} of {len(corpus.videos)} videos cannot be read; see above.")
    if config["check"]["strict"] and checked.num_leaks:
        raise VidclfError(f"check.strict: {checked.num_leaks} leak(s) between the sides of the split; see above.")


def _check_files(page: "Path | None", out: "Path | None") -> None:
    """Raise VidclfError where what is to be written would not be, or over what is there: before hours of work."""
    from vidclf.system.disk import writing_to

    if out is not None and out.exists():
        raise VidclfError(f"out={out}: there is such a file, and it is not overwritten. Name another, or remove it.")
    if out is not None and (out.suffix.lower() != ".csv" or out == page):
        raise VidclfError(f"out={out}: it is a CSV, in a file of its own; let its name end in .csv.")
    if page is not None and (page.is_dir() or page.suffix.lower() not in (".html", ".htm")):
        raise VidclfError(f"check.page={page}: it is an HTML file; let its name end in .html, or say null for none.")
    for path in (page, out):
        if path is not None:
            with writing_to(path, "Name another file with check.page=... or out=..."):
                path.parent.mkdir(parents=True, exist_ok=True)


def _say(checked: "Checked") -> None:
    """Print a line a class, what cannot be read, and what is wrong."""
    from vidclf.audit.page import table_of_classes
    from vidclf.system.terminal import say
    from vidclf.system.text import sanitize

    classes = table_of_classes(checked)
    for name, *counts in classes.rows:
        told = ", ".join(f"{key} {value}" for key, value in zip(classes.header[1:], counts, strict=True))
        say(sanitize(f"{name}: {told}"))
    for error in checked.corpus.failed.values():
        say(sanitize(f"cannot be read: {error}"))
    for problem in checked.problems:
        say(sanitize(problem))


def _rows(checked: "Checked") -> dict[str, object]:
    rows: dict[str, object] = {"num_videos": len(checked.corpus.videos), "num_failed": len(checked.corpus.failed)}
    rows |= {"num_copies": len(checked.copies), "num_alike": len(checked.pairs), "num_leaks": checked.num_leaks}
    for name, shortcut in checked.shortcuts.items():
        if shortcut:
            rows |= {f"{name}_top1": shortcut.top1, f"{name}_low": shortcut.low, f"{name}_high": shortcut.high}
            rows["majority_top1"] = shortcut.majority
    return rows


def _backbone(config: dict[str, Any]) -> Any:
    """Return the backbone; where nobody chose one and its weights cannot be had: pixels, and so in `config`."""
    from hydra import compose
    from hydra.errors import InstantiationException
    from omegaconf import OmegaConf

    from vidclf.build import parts as build
    from vidclf.run.config import explicit_overrides, key_of
    from vidclf.system.terminal import say

    try:
        return build.build_backbone(config)
    except InstantiationException as error:
        chosen = {key_of(override).partition(".")[0] for override in explicit_overrides()}
        if not isinstance(error.__cause__, VidclfError) or "backbone" in chosen:
            raise
        say(
            f"{error.__cause__}\nSo videos are compared by their pixels: what is encoded again or mirrored is found, "
            "what is cropped or another take of a scene is not. backbone=... chooses a network."
        )
    config["backbone"] = OmegaConf.to_container(compose("backbone/pixels").backbone)
    return build.build_backbone(config)


if __name__ == "__main__":
    main()
