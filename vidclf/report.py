"""Write one page on a run or a sweep, which opens offline and carries its data."""

from pathlib import Path

from vidclf.comparison.show import read_all
from vidclf.contracts import PARTS
from vidclf.errors import VidclfError
from vidclf.pages.rendering import print_text, render_page
from vidclf.reporting.page import describe_run, plain
from vidclf.reporting.results import read_results
from vidclf.reporting.sweep import describe_sweep
from vidclf.run.config import Config, explicit_overrides, key_of, known_keys
from vidclf.run.folder import Run
from vidclf.run.sweep import is_run
from vidclf.system.disk import check_replaceable, write_atomically, writing_to
from vidclf.system.terminal import say

REMEDY = "Name another file with to=FILE."


def run(config: Config, run: Run | None) -> None:
    """Write the page into the file `to`, and print the findings."""
    allowed = known_keys("report") - known_keys("train") | {"store.root"}
    for override in explicit_overrides():
        if key_of(override) not in allowed:
            raise VidclfError(
                f"report {override}: a run is shown as it is. Allowed keys: {', '.join(sorted(allowed))}."
            )
    part, to = config["part"], Path(config["to"]).expanduser()
    if part not in PARTS:
        raise VidclfError(f"part={part}: must be one of {', '.join(PARTS)}.")
    _check_target(to)
    paths = [Path(path) for path in config["run"]]
    sweep, best = None, paths[0]
    if len(paths) > 1 or not (is_run(best) or best.is_file()):
        scored, left_out = read_all(paths, part)
        for reason in left_out:
            say(f"left out: {reason}")
        sweep, best = describe_sweep(scored, part, left_out)
    root = None if config["root"] is None else Path(config["root"])
    page, pictures = describe_run(read_results(best, part), root, Path(config["store"]["root"]))
    title = f"{best.name or best.resolve().name} on {part}" if sweep is None else f"{paths[0].name} on {part}"
    data = plain({"run": page, "sweep": sweep})
    content = render_page(
        "report.html", "report.js", title=title, run=page, images=pictures.images, sweep=sweep, data=data
    )
    with writing_to(to, REMEDY):
        to.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(to, content)
    for finding in page["findings"]:
        print_text(f"- {finding.sentence}")
    if not page["findings"]:
        print_text("No finding.")
    for reason in page["no_clips"]:
        say(reason)
    print_text(f"page {to}")


def _check_target(to: Path) -> None:
    """Raise VidclfError before the work unless a page may be written to `to`."""
    if to.suffix.lower() not in (".html", ".htm") or to.is_dir():
        raise VidclfError(f"to={to}: the name must end in .html. {REMEDY}")
    check_replaceable(to, "<title>vidclf report", "report")
    with writing_to(to, REMEDY):
        to.parent.mkdir(parents=True, exist_ok=True)
