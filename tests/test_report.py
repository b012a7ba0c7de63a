"""The page of a run: its numbers follow from the run's files, names do nothing, and no stranger's path is followed."""

import base64
import csv
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUMS, find_chromium, open_page
from cleanlab.rank import get_label_quality_scores
from PIL import Image
from safetensors.torch import load_file
from scored_runs import CLASSES, CONFIG, MLP, write_results, write_run
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from test_check import Page
from verbs import Outcome
from videos import encode_video

from vidclf.data.catalogue import Catalogue
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy
from vidclf.features.store import FeatureStore
from vidclf.reporting import labels
from vidclf.reporting.curves import charts_of, read_curves
from vidclf.reporting.neighbours import find_neighbours
from vidclf.reporting.page import describe_run
from vidclf.reporting.results import read_results
from vidclf.reporting.videos import draw, find_videos, folder_of, locate

HOSTILE = [
    '<script>alert(1)</script><img src=x onerror="alert(2)">',
    "=HYPERLINK(1)",
    "</script><script>alert(3)</script>",
    "\u202eevil \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600\nnew\tline",
    200 * "x",
    "{{ 7 * 7 }}${x}",
    "caf\udce9'\"&amp;`",
]


def some_run(folder: Path, count: int = 90, num_views: int = 3, **settings: Any) -> Path:
    """Write a run on made-up videos that is right more often than not."""
    rng = np.random.default_rng(0)
    num_classes = len(settings.get("classes", CLASSES))
    answers = [number // 3 % num_classes for number in range(count)]
    logits = rng.normal(size=(count, num_views, num_classes))
    logits[np.arange(count), :, answers] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return write_results(folder, settings.pop("labels", answers), probabilities, **settings)


def page_of(run: Path, root: Path | None = None, part: str = "test", store: Path = Path("none")) -> dict[str, Any]:
    return describe_run(read_results(run, part), root, store)[0]


def data_in(page: str) -> dict[str, Any]:
    """Return the data that a page carries."""
    (text,) = re.findall(r'<script type="application/json" id="data-of-page">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_every_number_on_the_page_follows_from_the_runs_files(vidclf: Callable[..., Outcome], tmp_path: Path):
    some_run(tmp_path / "run", metrics={"temperature": 0.7, "one_frame_top1": 0.4})
    outcome = vidclf("report", "run")
    assert outcome.status == 0, outcome.err
    data = data_in((tmp_path / "report.html").read_text())["run"]
    with (tmp_path / "run" / "test" / "predictions.csv").open(newline="") as file:
        rows = {row["video"]: row for row in csv.DictReader(file)}
    metrics = json.loads((tmp_path / "run" / "test" / "metrics.json").read_text())
    tensors = load_file(tmp_path / "run" / "test" / "logits.safetensors")
    names = (tmp_path / "run" / "test" / "videos.txt").read_text().splitlines()
    by_video = [tensors["logits"][tensors["video"] == number].softmax(1) for number in range(len(names))]
    true, predicted = ([CLASSES.index(row[key]) for row in rows.values()] for key in ("label", "predicted"))
    correct = np.equal(true, predicted).astype(float)
    groups = [(row["label"], row["group"]) for row in rows.values()]
    assert data["metrics"] == pytest.approx(metrics)
    assert data["top1"] == pytest.approx([correct.mean(), *interval_of_accuracy(correct, Clusters.of(groups))])
    assert dict(data["bars"]) == {
        "this run": pytest.approx(correct.mean()),
        "chance": pytest.approx(1 / 3),
        "one frame alone": 0.4,
    }
    assert (data["num_videos"], data["num_groups"]) == (90, len({*groups}))
    shown = {name: [CLASSES[label], CLASSES[guess], group] for name, label, guess, _, group in data["videos"]}
    assert shown == {name: [row[key] for key in ("label", "predicted", "group")] for name, row in rows.items()}
    probabilities = {name: probability for name, *_, probability, _ in data["videos"]}
    assert probabilities == pytest.approx({name: float(row["probability"]) for name, row in rows.items()})
    counts = np.zeros((3, 3), int)
    for label, guess, count, share in data["confusion"]:
        counts[label, guess] = count
        assert share == pytest.approx(count / true.count(label))
    assert (counts == confusion_matrix(true, predicted)).all()
    expected = precision_recall_fscore_support(true, predicted)
    for row, *scores, support in zip(data["classes"], *expected, strict=True):
        assert [row[key][0] for key in ("precision", "recall", "f1")] == pytest.approx(scores)
        assert row["videos"] == support
    for label, row in enumerate(data["classes"]):
        is_label = np.equal(true, label)
        of_label = Clusters.of([group for group, used in zip(groups, is_label, strict=True) if used])
        assert row["recall"][1:] == pytest.approx([*interval_of_accuracy(correct[is_label], of_label)])
    by_name = dict(zip(names, by_video, strict=True))
    for number, line in data["lines"].items():
        name, label, guess, *_ = data["videos"][int(number)]
        assert np.asarray(line) == pytest.approx(by_name[name][:, [guess, label]].numpy(), abs=1e-6)
    wrong = sorted(
        (row for row in rows.values() if row["label"] != row["predicted"]), key=lambda r: -float(r["probability"])
    )
    assert [data["videos"][number][0] for number in data["mistakes"]] == [row["video"] for row in wrong]
    assert {name: top1 for name, _, top1 in data["groups"]} == pytest.approx(
        {"/".join(unit): correct[[group == unit for group in groups]].mean() for unit in groups}
    )
    means = torch.stack([of_video.mean(0) for of_video in by_video])
    best = means.max(1).values.numpy()
    assert sum(count for *_, count in data["reliability"]) == 90
    assert sum(p * count for p, _, count in data["reliability"]) == pytest.approx(best.sum(), rel=1e-5)
    tempered = (means.double().log() / 0.7).softmax(1).max(1).values.numpy()
    for threshold, share, (accuracy, *_) in data["coverage"]:
        assert share == pytest.approx((tempered >= threshold).mean())
        assert accuracy == pytest.approx(correct[tempered >= threshold].mean())
    with (tmp_path / "run" / "test" / "views.csv").open(newline="") as file:
        assert data["num_views"] == [
            [pytest.approx(float(cell)) for cell in row.values()] for row in csv.DictReader(file)
        ]


def test_label_errors_are_ranked_as_cleanlab_ranks_them():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(5), 200)
    given = rng.integers(0, 5, 200)
    for rule, method in ((labels.self_confidence, "self_confidence"), (labels.normalized_margin, "normalized_margin")):
        theirs = get_label_quality_scores(given, probabilities, method=method)
        assert rule(probabilities, given) == pytest.approx(theirs)
    order = labels.rank_labels(probabilities, given)
    assert (np.diff(labels.self_confidence(probabilities, given)[order]) >= 0).all()


def test_flipped_labels_come_first(tmp_path: Path):
    answers = [number // 3 % 3 for number in range(90)]
    flipped = {5, 31, 62}
    given = [(label + (number in flipped)) % 3 for number, label in enumerate(answers)]
    page = page_of(some_run(tmp_path / "run", labels=given, num_views=20))
    assert {int(page["videos"][number][0].split("/v")[1][:-4]) for number, *_ in page["doubtful"][:3]} == flipped


def test_names_of_any_kind_are_text(vidclf: Callable[..., Outcome], tmp_path: Path):
    names = [f"{HOSTILE[number % 8].replace('/', '_')}/{number}{HOSTILE[number // 8 % 8]}" for number in range(96)]
    some_run(tmp_path / "run", 96, classes=HOSTILE, names=names, groups=[HOSTILE[number // 12] for number in range(96)])
    outcome = vidclf("report", "run")
    assert outcome.status == 0, outcome.err
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert text.count("<script") == 2  # the data and ours
    assert not page.tags & {"iframe", "link", "object", "img"}
    assert all(address and re.fullmatch(r"#\w+", address) for address in page.addresses)
    assert {number for number, *_ in data_in(text)["run"]["confusion"]} == {*range(8)}
    assert "{{ 7 * 7 }}${x}" in page.text
    assert "49" not in data_in(text)["run"]["names"]
    assert not {"\u202e", "\n", "\x1b"} & {*"".join(data_in(text)["run"]["names"])}


@pytest.mark.parametrize(("count", "classes"), [(12, ["a", "b"]), (303, [f"class {number}" for number in range(101)])])
def test_few_and_many_classes_have_a_page(
    count: int, classes: list[str], vidclf: Callable[..., Outcome], tmp_path: Path
):
    some_run(tmp_path / "run", count, classes=classes)
    outcome = vidclf("report", "run")
    assert outcome.status == 0, outcome.err
    assert len(data_in((tmp_path / "report.html").read_text())["run"]["classes"]) == len(classes)


def test_videos_of_one_group_have_no_intervals_and_the_page_says_so(vidclf: Callable[..., Outcome], tmp_path: Path):
    some_run(tmp_path / "run", 3, labels=[0, 0, 0], groups=["g"] * 3)
    outcome = vidclf("report", "run")
    assert outcome.status == 0, outcome.err
    data = data_in((tmp_path / "report.html").read_text())["run"]
    assert data["top1"][1:] == [None, None]
    assert "There is no interval" in data["findings"][0][0]


def test_a_run_without_logits_or_with_an_aggregation_of_its_own_has_a_page(tmp_path: Path):
    run = some_run(tmp_path / "a", aggregation={"_target_": "os.system", "command": "touch owned"})
    assert read_results(run, "test").predictions is None
    assert page_of(run)["doubtful"] == []
    run = some_run(tmp_path / "b", aggregation={"_target_": "vidclf.models.aggregation.topk_mean", "k": "x"})
    assert page_of(run)["reliability"] == []
    run = some_run(tmp_path / "c")
    (run / "test" / "logits.safetensors").unlink()
    assert page_of(run)["lines"] == {}
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("logits.safetensors", b"x", r"not the logits of .*predictions.csv"),
        ("views.csv", b"views,top1,top1_low,top1_high\n1,nan,,\n", r"top1='nan', which is no number"),
        ("bouts.csv", b"path,source,start_s,end_s,label\na,truth,0,1,other\n", r"bouts.csv: a bout of .*other"),
        ("failed.csv", b"video,reason\na\n", r"failed.csv: not a table that vidclf writes"),
    ],
)
def test_files_that_do_not_fit_are_refused(name: str, content: bytes, message: str, tmp_path: Path):
    run = some_run(tmp_path / "run")
    (run / "test" / name).write_bytes(content)
    with pytest.raises(VidclfError, match=message):
        page_of(run)


def test_what_a_stranger_may_write_does_not_break_the_page(vidclf: Callable[..., Outcome], tmp_path: Path):
    odd = {"temperature": 1e-300, "top1_high": 1e300, "num_failed": 1e18, "one_frame_top1": 7.0}
    run = some_run(tmp_path / "run", metrics=odd, dataset=["x"], head={"x": [3]})
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text("!!python/object/apply:os.system ['touch owned']")
    (run / "test" / "timeline_classes.csv").write_text("a,b\n")
    (run / "split.csv").write_text("content\n" + "0" * 64 + "\n")
    (run / "tensorboard").mkdir()
    os.mkfifo(run / "tensorboard" / "events.out.tfevents.1.pipe")
    metrics = json.loads((run / "test" / "metrics.json").read_text())
    del metrics["top1_low"]
    (run / "test" / "metrics.json").write_text(json.dumps(metrics))
    outcome = vidclf("report", "run")
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "owned").exists()


def test_what_cannot_be_shown_or_written_is_one_sentence(vidclf: Callable[..., Outcome], tmp_path: Path):
    some_run(tmp_path / "run")
    write_run(tmp_path / "new", [], part=None)
    (tmp_path / "mine.html").write_text("mine")
    (tmp_path / "file").touch()
    for arguments, message in (
        (["new"], "new: not evaluated on test. Call vidclf evaluate run=new part=test"),
        (["run", "part=all"], "part=all: must be one of train, val, test."),
        (["run", "to=page.pdf"], "to=page.pdf: the name must end in .html."),
        (["run", "to=mine.html"], "to=mine.html: exists, and report did not write it. Name another file with to=FILE"),
        (["run", "to=file/page.html"], "file: cannot be used"),
        (["run", "root=gone"], "root=gone: there is no such folder."),
        (
            ["run", "head=gru"],
            "report head=gru: a run is shown as it is. Allowed keys: part, root, run, store.root, to.",
        ),
    ):
        outcome = vidclf("report", *arguments)
        assert outcome.status == 1
        assert message in outcome.err or "cannot write" in outcome.err
        assert outcome.err.count("\n") <= 2
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert [vidclf("report", "run").status for _ in range(2)] == [0, 0]  # the second page replaces the first


@pytest.fixture
def filmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a run with its videos, all predicted wrongly, below the current folder; two are one segment each."""
    monkeypatch.chdir(tmp_path)
    names = [f"jump/v{number}.avi" for number in range(4)]
    for number, name in enumerate(names):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        encode_video(tmp_path / "videos" / name, num_frames=30 + number)
    facts = Catalogue(tmp_path / "store").look_up([tmp_path / "videos" / name for name in names])
    contents = [fact.content for fact in facts]  # type: ignore[union-attr]
    table = np.tile([0.1, 0.2, 0.7], (5, 2, 1))
    return write_results(
        tmp_path / "run",
        [0] * 5,
        table,
        names=[*names, "jump/v0.avi#0.4-0.8"],
        groups=list("abcde"),
        contents=[*contents, contents[0]],
        dataset={"root": "videos"},
    )


def pictures_of(run: Path, root: Path | None = None) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    page, pictures = describe_run(read_results(run, "test"), root, Path("store"))
    return page, {page["videos"][number][0]: image for number, image in pictures.images.items()}


def test_clips_are_films_of_the_videos_that_were_scored(filmed: Path):
    page, images = pictures_of(filmed)
    assert page["no_clips"] == []
    assert len(images) == 5
    for name, first, last in (("jump/v1.avi", 0, 30), ("jump/v0.avi#0.4-0.8", 10, 20)):
        kind, content = images[name]
        assert kind == "webp"
        with Image.open(io.BytesIO(base64.b64decode(content))) as film:
            assert film.info["loop"] == 0
            assert film.n_frames == min(12, last - first)
    assert page["durations"][0][0] == pytest.approx(0.4)


def test_stills_show_the_segment(filmed: Path):
    results = read_results(filmed, "test")
    position = results.scored.videos.index("jump/v0.avi#0.4-0.8")
    videos, _ = find_videos(results, [position], Path("videos"), Path("store"))
    assert videos[position].frames(4).tolist() == [11, 13, 16, 18]
    assert draw(videos, num_films=0).images[position][0] == "jpeg"


def test_videos_that_are_gone_or_have_changed_are_shown_without_a_clip(filmed: Path, tmp_path: Path):
    (tmp_path / "videos" / "jump" / "v1.avi").unlink()
    (tmp_path / "videos" / "jump" / "v2.avi").write_bytes((tmp_path / "videos" / "jump" / "v3.avi").read_bytes())
    (tmp_path / "videos" / "jump" / "v3.avi").write_bytes(b"no video")
    page, images = pictures_of(filmed)
    assert {*images} == {"jump/v0.avi", "jump/v0.avi#0.4-0.8"}
    assert sorted(page["no_clips"]) == [
        "1 of 5 videos are shown without a clip: changed since they were scored.",
        "1 of 5 videos are shown without a clip: damaged.",
        "1 of 5 videos are shown without a clip: not in the folder.",
    ]
    (tmp_path / "videos").rename(tmp_path / "elsewhere")
    assert pictures_of(filmed)[1] == {}
    assert pictures_of(filmed)[0]["no_clips"] == [
        "The run's videos are no longer in videos. Name their folder with root=DIR."
    ]
    assert {*pictures_of(filmed, Path("elsewhere"))[1]} == {*images}


def test_a_strangers_folder_outside_the_current_one_is_not_looked_into(filmed: Path, tmp_path: Path):
    outside = tmp_path.parent
    (tmp_path / "link").symlink_to(outside)
    inside = str(tmp_path)
    for root in (
        str(outside),
        "..",
        "link",
        f"{inside}/link",
        f"{inside}/..",
        "videos/../..",
        "/",
        "~",
        "a\0b",
        ["x"],
        {},
    ):
        assert folder_of({"dataset": {"root": root}}, None)[0] is None
        assert folder_of({"dataset": {"file": f"{root}/table.csv"}}, None)[0] is None
    assert folder_of({}, None)[0] is folder_of({"dataset": "x"}, None)[0] is None
    assert folder_of({"dataset": {"root": str(tmp_path / "videos")}}, None)[0] == tmp_path / "videos"
    assert folder_of({"dataset": {"root": str(outside)}}, tmp_path / "videos")[0] == tmp_path / "videos"


def test_a_strangers_names_lead_nowhere_else(filmed: Path, tmp_path: Path):
    folder = tmp_path / "videos"
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((folder / "jump" / "v0.avi").read_bytes())
    (folder / "link.mp4").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    (folder / "inside.mp4").symlink_to("jump/v0.avi")
    os.mkfifo(folder / "pipe.mp4")
    names = ["../secret.mp4", str(secret), "link.mp4", "out/secret.mp4", "pipe.mp4", "jump/../../secret.mp4", "a\0b"]
    names += [5000 * "x", "", ".", "jump", "C:\\secret.mp4", "jump\\..\\..\\secret.mp4", "jump/v0.avi#x-y", "/dev/zero"]
    assert [name for name in names if locate(name, folder)] == []
    assert locate("inside.mp4", folder)
    assert locate("jump/v0.avi", folder)


def test_a_file_is_shown_only_if_its_content_is_the_runs(filmed: Path):
    text = (filmed / "test" / "predictions.csv").read_text()
    content = text.splitlines()[1].rpartition(",")[2]
    (filmed / "test" / "predictions.csv").write_text(text.replace(content, "0" * 64))
    page, images = pictures_of(filmed)
    assert {*images} == {"jump/v1.avi", "jump/v2.avi", "jump/v3.avi"}
    assert page["no_clips"] == ["2 of 5 videos are shown without a clip: changed since they were scored."]


def test_a_link_out_of_a_run_is_refused(tmp_path: Path):
    run = some_run(tmp_path / "run")
    (tmp_path / "secret.csv").write_text("video,side\n")
    (run / "split.csv").unlink()
    (run / "split.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(VidclfError, match=r"split.csv: is a link that leads out"):
        page_of(run)


def test_the_closest_training_clip_is_that_of_the_largest_cosine(store: FeatureStore, tmp_path: Path):
    run = some_run(tmp_path / "run", 3)
    results = read_results(run, "test")
    features = {f"{number:064x}": vector for number, vector in ((0, [1.0, 0.1]), (100, [1.0, 0.0]), (101, [0.0, 1.0]))}
    for content, vector in features.items():
        rows = torch.tensor([[0], [1]])
        store.add(content, rows, torch.tensor(vector).expand(2, 1, 1, 2))
    results.split.extend(
        {"video": f"{name}/x.avi", "side": "train", "content": f"{number:064x}"}
        for name, number in (("walk", 100), ("nowhere", 101))
    )
    results.description["weights_hash"] = json.loads((store.folder / "recipe.json").read_text())["weights"]  # type: ignore[index]
    found = find_neighbours(results, [0, 1], store.folder.parent)
    assert {*found} == {results.scored.contents.index(f"{0:064x}")}
    assert found[0][:2] == ("walk/x.avi", "walk")
    assert found[0].closeness == pytest.approx(0.9 / np.hypot(*[1, 0.8]) * 1.0, abs=0.5)
    results.description["weights_hash"] = "others"  # type: ignore[index]
    assert find_neighbours(results, [0], store.folder.parent) == {}


def test_curves_of_either_logger_are_read(tmp_path: Path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "a" / "tensorboard")) as writer:
        for step in range(1000):
            writer.add_scalar("val/loss", 1 / (step + 1), step)
            writer.add_scalar("train/loss", float("nan") if step == 3 else 2.0, step)
    curves = read_curves(tmp_path / "a")
    assert curves["val/loss"][1] == (4, pytest.approx(0.2))
    assert len(curves["val/loss"]) == 250
    (chart,) = charts_of(curves)
    assert (chart["title"], chart["low"], chart["high"]) == ("loss", pytest.approx(1 / 997), 2.0)
    (tmp_path / "b" / "csv").mkdir(parents=True)
    (tmp_path / "b" / "csv" / "metrics.csv").write_text("epoch,step,val/top1\n0,1,0.5\n0,1,\n1,3,0.75\n")
    assert read_curves(tmp_path / "b") == {"val/top1": [(1, 0.5), (3, 0.75)]}
    (tmp_path / "c" / "tensorboard").mkdir(parents=True)
    (tmp_path / "c" / "tensorboard" / "events.out.tfevents.1.x").write_bytes(b"damaged" * 9)
    assert read_curves(tmp_path / "c") == {}


def test_a_sweep_has_its_leaderboard_what_varied_and_the_run_that_val_chose(
    vidclf: Callable[..., Outcome], tmp_path: Path
):
    for number, (name, head) in enumerate((("linear", CONFIG["head"]), ("mlp", MLP))):
        run = some_run(tmp_path / "sweep" / f"{number}_head-{name}", head=head)
        (run / "metrics.json").write_text(json.dumps({"top1": 0.9 - number / 10}))
    outcome = vidclf("report", "sweep", "to=pages/sweep.html")
    assert outcome.status == 0, outcome.err
    text = (tmp_path / "pages" / "sweep.html").read_text()
    data = data_in(text)
    assert [setting["top1"] for setting in data["sweep"]["settings"]] == [data["run"]["top1"][0]] * 2
    assert data["sweep"]["pairs"][0]["verdict"] == "identical"
    assert [axis["name"] for axis in data["sweep"]["axes"]] == ["head", "top1"]
    assert [line["heights"] for line in data["sweep"]["lines"]] == [[0.0, 0.0], [1.0, 0.0]]
    assert data["run"]["run"] == "0_head-linear"
    assert "highest validation top1, 0.900" in text


def test_doubtful_labels_of_a_sweep_over_splits_are_out_of_fold(vidclf: Callable[..., Outcome], tmp_path: Path):
    for number in (1, 2):
        names = [f"jump/{number}-{video}.avi" for video in range(30)]
        split = {"_target_": "vidclf.data.splits.Official", "number": number}
        contents = [f"{100 * number + video:064x}" for video in range(30)]
        some_run(tmp_path / "sweep" / f"{number}_x", 30, names=names, contents=contents, split=split)
    assert vidclf("report", "sweep").status == 0
    doubtful = data_in((tmp_path / "report.html").read_text())["sweep"]["doubtful"]
    assert {name.split("/")[1][0] for name, *_ in doubtful} == {"1", "2"}
    confidences = [confidence for *_, confidence, _ in doubtful]
    assert confidences == sorted(confidences)


def test_a_browser_shows_the_page_without_an_error_or_a_request(
    filmed: Path, vidclf: Callable[..., Outcome], tmp_path: Path
):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUMS)} is on the PATH")
    outcome = vidclf("report", "run", "store.root=store")
    assert outcome.status == 0, outcome.err
    with open_page(chromium, tmp_path / "browser") as page:
        page.ask("Page.navigate", url=f"file://{tmp_path / 'report.html'}")
        page.wait_for("document.readyState == 'complete'")
        assert page.run("performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length") == 0
        assert page.run("[...document.images].every(image => image.naturalWidth > 0) && document.images.length") == 5
        assert page.run("getComputedStyle(document.querySelector('.clip')).borderStyle") == "solid"  # our style holds
        cell = 'document.querySelector(\'g[data-label="0"][data-predicted="2"]\')'
        page.run(f"{cell}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
        assert (
            page.run("document.getElementById('chosen').textContent").split(" Show")[0]
            == "jump predicted as walk: 5 videos."
        )
        button = "document.querySelectorAll('.classes button')[0]"
        names = "[...document.querySelectorAll('.classes tr')].slice(1).map(row => row.cells[0].textContent).join()"
        page.run(f"{button}.click()")
        assert page.run(names) == "jump,run,walk"
        page.run(f"{button}.click()")
        assert page.run(names) == "walk,run,jump"
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
        page.ask("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=True)
        assert page.run("document.documentElement.scrollWidth") <= 400
        page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
        assert page.run("document.title").startswith("vidclf report")
        assert len([error for error in page.errors if "Content Security Policy" not in error]) == 0
