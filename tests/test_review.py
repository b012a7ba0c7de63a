"""vidclf review: which videos to label next, and a page that keeps the answers."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from browser import CHROMIUMS, find_chromium, open_page
from verbs import Outcome

from vidclf.pages.rendering import render_page
from vidclf.reporting.ranking import choose, uncertainty

NONE = torch.empty(0, 2)


def logs(*probabilities: float) -> torch.Tensor:
    """Return the log-probabilities of two classes, given the first's."""
    return torch.tensor([[one, 1 - one] for one in probabilities], dtype=torch.float64).log()


def test_uncertainty_is_the_entropy_as_a_share_of_the_largest():
    assert uncertainty(logs(0.5, 1.0)).tolist() == pytest.approx([1, 0])
    assert uncertainty(logs(0.9)).item() == pytest.approx(0.469, abs=1e-3)  # bits


def test_of_alike_videos_the_least_sure_comes_first():
    features = torch.tensor([[1.0, 0], [1, 0], [-1, 0]])
    assert choose(logs(0.9, 0.6, 0.99), features, NONE, ["a", "b", "c"], 1) == [1]


def test_what_is_like_a_labelled_or_a_chosen_video_comes_last():
    features = torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [-1, -1]])
    order = choose(logs(0.5, 0.5, 0.5, 0.5), features, torch.tensor([[-1.0, -1]]), ["a", "b", "c", "d"], 4)
    assert order[0] in (0, 1, 2)
    assert {*order[:2]} in ({0, 2}, {1, 2})  # of 0 and 1, which are alike, one
    assert order[3] == 3


def test_a_group_is_chosen_again_when_all_were_chosen_once():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    groups = ["a", "a", "a", "b", "b", "c"]
    order = choose(logs(0.5, 0.6, 0.7, 0.6, 0.8, 0.9), features, torch.empty(0, 4), groups, 10)
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert sorted(groups[position] for position in order[:3]) == ["a", "b", "c"]
    assert sorted(groups[position] for position in order[3:5]) == ["a", "b"]


def page_of(rows: list[dict[str, object]], names: list[str]) -> bytes:
    page = {"folder": "/videos", "names": names, "rows": rows}
    return render_page(
        "review.html", "review.js", title="2 of 3 videos", run="demo", num_labelled=0, images={}, data=page, **page
    )


AWKWARD = ["</script><script>alert(1)</script>", 'a "b", c', "=1+1", "naïve ü"]


@pytest.mark.parametrize("times", [(None, None), (1.5, 3.5)])
def test_the_page_saves_the_answers_that_keys_gave(times: tuple[float | None, float | None], tmp_path: Path):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUMS)} is on the PATH")
    guesses = [(AWKWARD[0], 0.7), ("run", 0.3)]
    rows = [
        {"path": path, "start_s": times[0], "end_s": times[1], "guesses": guesses} for path in (*AWKWARD, "last.mp4")
    ]
    (tmp_path / "page.html").write_bytes(page_of(rows, [*AWKWARD, "run"]))
    with open_page(chromium, tmp_path / "browser") as page:
        page.ask("Page.navigate", url=(tmp_path / "page.html").as_uri())
        page.wait_for("document.querySelectorAll('.clip.current').length === 1")
        for key in (
            "1",
            "2",
            "3",
            "4",
            "Delete",
            "5",
            "9",
        ):  # the fifth is taken back before it is given; 9 is no class
            page.run(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
        assert page.run("document.getElementById('count').textContent") == "5 of 5 have a label"
        page.run("show(1, false); document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Delete'}))")
        saved = page.run("table()")
        assert page.run("document.querySelectorAll('script').length") == 2  # no name became one
    found = list(csv.DictReader(io.StringIO(saved)))
    assert [row["path"] for row in found] == [AWKWARD[0], *AWKWARD[2:], "last.mp4"]
    assert [row["label"] for row in found] == [AWKWARD[0], *AWKWARD[2:], "run"]
    assert [row.get("start_s") for row in found] == [None if times[0] is None else "1.5"] * 4


@pytest.mark.slow
def test_the_page_shows_what_the_run_is_least_sure_of(
    vidclf: Callable[..., Outcome], run: Path, clips: Path, tmp_path: Path
):
    to = tmp_path / "review.html"
    outcome = vidclf("review", f"run={run}", str(clips), "number=3", f"to={to}", f"store.root={tmp_path}/store")
    assert outcome.status == 0, outcome.err
    data = json.loads(re.search(r'id="data-of-page">(.*?)</script>', to.read_text(), re.S)[1])  # type: ignore[index]
    assert len(data["rows"]) == 3
    assert all((Path(data["folder"]) / row["path"]).is_file() for row in data["rows"])
    again = vidclf("review", f"run={run}", str(clips), "number=3", f"to={to}", f"store.root={tmp_path}/store")
    assert again.status == 0, again.err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("number=0", "number=0: must be from 1 to 300"),
        ("to=page.pdf", "must end in .html"),
        ("group=abc", "group=abc: it has 0 groups in parentheses"),
        ("source=nothing/*.mp4", "matches no file"),
    ],
)
def test_a_setting_that_is_not_allowed_is_a_sentence(
    vidclf: Callable[..., Outcome], run: Path, clips: Path, setting: str, message: str
):
    source = [] if setting.startswith("source") else [f"source={clips}"]
    outcome = vidclf("review", f"run={run}", *source, setting)
    assert outcome.status == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_a_file_that_another_program_wrote_is_not_replaced(vidclf: Callable[..., Outcome], run: Path, tmp_path: Path):
    (tmp_path / "page.html").write_text("mine")
    outcome = vidclf("review", f"run={run}", "source=x.mp4", f"to={tmp_path}/page.html")
    assert outcome.status == 1
    assert (tmp_path / "page.html").read_text() == "mine"
