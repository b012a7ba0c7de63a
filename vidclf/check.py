"""Look through a data set before anyone trains: what is in it, what is wrong with it, what could cheat."""

from omegaconf import DictConfig

from vidclf.cli import verb


@verb
def main(cfg: DictConfig) -> None:
    """Print what was found; leave a page."""
    from pathlib import Path

    from vidclf.errors import VidclfError
    from vidclf.evaluation.check import check, rows_of_classes, write_page
    from vidclf.run import build
    from vidclf.run.config import asked
    from vidclf.system.disk import writing_to
    from vidclf.system.machine import num_cores
    from vidclf.system.terminal import printable, say, table

    config, _ = asked(cfg, "check")
    if "on_error" in config["dataset"]:  # damaged files are listed, and end nothing
        config["dataset"] = {**config["dataset"], "on_error": "skip"}
    corpus = build.build_corpus(config)
    checked = check(corpus, config["num_threads"] or num_cores())
    for row in rows_of_classes(checked):
        name, *counts = row.items()
        say(printable(f"{name[1]}: {', '.join(f'{key} {value}' for key, value in counts)}"))
    for error in corpus.failed.values():
        say(printable(f"cannot be read: {error}"))
    for problem in checked.problems:
        say(printable(problem))
    rows: dict[str, object] = {"num_videos": len(corpus.videos), "num_failed": len(corpus.failed)}
    rows |= {"num_copies": len(checked.copies), "num_leaks": len(checked.leaks)}
    if checked.shortcut:
        rows |= {"container_top1": checked.shortcut.top1, "container_low": checked.shortcut.low}
        rows |= {"container_high": checked.shortcut.high, "majority_top1": checked.shortcut.majority}
    page = config["check"]["page"]
    if page is not None:
        with writing_to(Path(page), "Name another file with check.page=..."):
            Path(page).parent.mkdir(parents=True, exist_ok=True)
            write_page(Path(page), checked)
    table("Checked", rows, f"page {page}" if page is not None else "")
    if corpus.failed:
        raise VidclfError(f"{len(corpus.failed)} of {len(corpus.videos)} videos cannot be read; see above.")
    if config["check"]["strict"] and checked.leaks:
        raise VidclfError(f"check.strict: {len(checked.leaks)} file(s) stand on two sides of the split; see above.")


if __name__ == "__main__":
    main()
