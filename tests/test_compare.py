"""`vidclf compare`: settings, scores and significance; and runs that cannot be compared, with the reason."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scored_runs import MLP, write_run
from verbs import Outcome

from experiments.intervals.seeds import study
from vidclf.compare import show
from vidclf.comparison.differences import Difference, holm_factors
from vidclf.comparison.files import write_comparison
from vidclf.comparison.leaderboard import Leaderboard, build_leaderboard, short_names
from vidclf.comparison.scored import read_scored
from vidclf.comparison.settings import settings_of, varying_settings
from vidclf.comparison.tables import exact_settings, notes_on, pairs_table, settings_table
from vidclf.errors import VidclfError
from vidclf.evaluation.intervals import Clusters, interval_of_accuracy
from vidclf.evaluation.paired import sign_flip_test
from vidclf.pages.rendering import Table, as_csv, as_markdown, print_table
from vidclf.run.sweep import find_runs, why_missing, write_failure

HOSTILE = "<script>alert(1)</script>|[x](javascript:1)\x1b[31m`=1+1"
TWO = (("a", 0.5, {}), ("b", 0.9, {"head": MLP}))


def answers(share: float, seed: int = 0, num_videos: int = 90) -> np.ndarray:
    return np.random.default_rng(seed).random(num_videos) < share


def board_of(*folders: Path, pool_seeds: bool = True) -> Leaderboard:
    return build_leaderboard([read_scored(folder, "test") for folder in folders], pool_seeds)


def differences_of(*folders: Path) -> list[Difference]:
    return [pair.difference for pair in board_of(*folders).pairs]


def official(number: int) -> dict[str, object]:
    return {"_target_": "vidclf.data.splits.Official", "number": number}


# The numbers


def test_holm_by_hand():
    ps = np.array([0.01, 0.04, 0.03, 0.5])
    assert (ps * holm_factors(ps)).tolist() == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert (holm_factors(np.array([0.4, 0.6])) * [0.4, 0.6]).tolist() == pytest.approx([0.8, 0.8])


def test_equal_settings_are_rarely_told_apart():
    assert sum(study(number, num_settings=6) for number in range(5)) <= 1  # see experiments/intervals


def test_a_paired_difference_can_be_significant_although_intervals_overlap(tmp_path: Path):
    better = answers(0.6)
    worse = better.copy()
    worse[np.flatnonzero(better)[::4]] = False
    board = board_of(write_run(tmp_path / "a", worse), write_run(tmp_path / "b", better, head=MLP))
    assert [setting.name for setting in board.settings] == ["b", "a"]
    assert board.settings[0].interval.low < board.settings[1].interval.high  # apart, they might be equal
    ((_, _, pair),) = board.pairs
    assert (pair.verdict, pair.is_significant) == ("better", True)
    assert 0 < pair.interval.low < pair.value < pair.interval.high
    assert pair.value == pytest.approx(better.mean() - worse.mean())


def test_a_run_is_identical_to_itself_and_to_nothing_that_is_only_as_good(tmp_path: Path):
    run = write_run(tmp_path / "a", answers(0.7))
    (pair,) = differences_of(run, run)
    assert (pair.value, pair.p, pair.verdict, pair.interval) == (0, 1, "identical", (0, 0))
    other = write_run(tmp_path / "b", answers(0.7), head=MLP)  # correct in the same videos, and once wrong otherwise
    lines = (other / "test" / "predictions.csv").read_text().splitlines()
    row = next(row for row, line in enumerate(lines) if ",jump,run," in line)
    lines[row] = lines[row].replace(",jump,run,", ",jump,walk,")
    (other / "test" / "predictions.csv").write_text("\n".join(lines) + "\n")
    (pair,) = differences_of(run, other)
    assert (pair.value, pair.p, pair.num_discordant, pair.verdict) == (0, 1, 0, "not significant")
    assert pair.interval.low < 0 < pair.interval.high


def test_variation_of_seeds_is_separate_from_that_of_videos(tmp_path: Path):
    runs = [write_run(tmp_path / f"{seed}", answers(0.7, seed), seed=seed) for seed in range(3)]
    board = board_of(*runs, write_run(tmp_path / "mlp", answers(0.9), head=MLP))
    (seeds,) = (setting for setting in board.settings if len(setting.top1s) > 1)
    top1s = [answers(0.7, seed).mean() for seed in range(3)]
    assert (seeds.choices, sorted(seeds.top1s)) == ({"head": "linear"}, pytest.approx(sorted(top1s)))
    assert seeds.deviation == pytest.approx(np.std(top1s, ddof=1))
    assert seeds.metrics["top1"] == pytest.approx(np.mean(top1s))
    assert seeds.interval.low < np.mean(top1s) < seeds.interval.high


def test_settings_are_compared_by_their_means_over_the_seeds_that_both_have(tmp_path: Path):
    for seed in range(3):
        write_run(tmp_path / f"linear{seed}", answers(0.5, seed), seed=seed)
        write_run(tmp_path / f"mlp{seed}", answers(0.5, seed) | answers(0.3, 9 - seed), head=MLP, seed=seed)
    board = board_of(*sorted(tmp_path.iterdir()))
    ((first, second, pair),) = board.pairs  # not the 15 pairs of single runs, so that Holm corrects nothing
    assert pair.corrected == pair.p < 0.05
    assert [first.name, second.name] == ["head=mlp", "head=linear"]
    assert len(board_of(*sorted(tmp_path.iterdir()), pool_seeds=False).pairs) == 15  # on request
    gains = np.array([(answers(0.5, seed) | answers(0.3, 9 - seed)) ^ answers(0.5, seed) for seed in range(3)])
    assert pair.value == pytest.approx(gains.mean())
    assert pair.p == pytest.approx(sign_flip_test(gains.sum(0).reshape(30, 3).sum(1).astype(float), 1))

    write_run(tmp_path / "linear3", answers(0.99, 3), seed=3)  # a seed without a partner
    board = board_of(*sorted(tmp_path.iterdir()))
    assert abs(board.pairs[0].difference.value) == pytest.approx(gains.mean())
    assert "by the seeds that both have" in " ".join(notes_on(board, "test"))


def test_a_repeated_run_is_compared_with_other_settings_alone(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(0.5, seed)) for seed, name in enumerate(("a", "again"))]
    runs.append(write_run(tmp_path / "mlp", answers(0.9), head=MLP))
    board = board_of(*runs)
    names = [sorted((pair.first.name, pair.second.name)) for pair in board.pairs]
    assert sorted(names) == [["a", "mlp"], ["again", "mlp"]]


def test_seeds_of_one_setting_are_not_compared(tmp_path: Path):
    board = board_of(
        *(write_run(tmp_path / f"{seed}", answers(0.3 + 0.3 * seed, seed), seed=seed) for seed in range(3))
    )
    assert (len(board.settings), board.pairs) == (1, [])
    assert "the mean over its seeds; seeds=true shows each" in " ".join(notes_on(board, "test"))


def test_intervals_of_several_differences_agree_with_holms_verdicts(tmp_path: Path):
    heads = [{"_target_": f"mine.Head{number}"} for number in range(5)]
    runs = [
        write_run(tmp_path / f"{number}", answers(0.5) | answers(0.13 * number, 7), head=head)
        for number, head in enumerate(heads)
    ]
    pairs = differences_of(*runs)
    assert len(pairs) == 10
    assert {pair.is_significant for pair in pairs} == {True, False}
    assert any(pair.p < 0.05 < pair.corrected for pair in pairs)
    for pair in pairs:
        assert pair.is_significant == (pair.interval.low > 0)
        assert pair.p <= pair.corrected


def test_scores_are_means_over_splits_of_unlike_sizes_and_a_shared_group_counts_once(tmp_path: Path):
    """Split 1 tests 90 videos, split 2 the first 30 of them again."""
    for name, share in (("linear", 0.5), ("mlp", 0.8)):
        head = {"head": MLP} if name == "mlp" else {}
        write_run(tmp_path / f"{name}1", answers(share, 1), split=official(1), **head)
        write_run(tmp_path / f"{name}2", answers(share, 2, 30), split=official(2), **head)
    board = board_of(*sorted(tmp_path.iterdir()))
    first, second = answers(0.8, 1), answers(0.8, 2, 30)
    assert board.settings[0].metrics["top1"] == pytest.approx((first.mean() + second.mean()) / 2)
    ((_, _, pair),) = board.pairs
    gains = [first.astype(int) - answers(0.5, 1), second.astype(int) - answers(0.5, 2, 30)]
    assert pair.value == pytest.approx((gains[0].mean() + gains[1].mean()) / 2)
    videos = board.settings[0].videos
    assert (len({*videos.groups}), len(videos.contents), videos.num_repeated) == (30, 120, 30)
    assert "30 videos tested by several splits" in " ".join(notes_on(board, "test"))
    videos = np.r_[np.arange(90), np.arange(30)] // 3
    interval = interval_of_accuracy(
        np.r_[first, second].astype(float), Clusters.of(videos.tolist()), (np.arange(120) < 90).astype(int)
    )
    assert board.settings[0].interval == pytest.approx(interval)
    scaled = gains[0].reshape(30, 3).sum(1).astype(float)
    scaled[:10] += 3 * gains[1].reshape(10, 3).sum(1)  # a video of the smaller split weighs three times as much
    assert pair.p == pytest.approx(sign_flip_test(scaled, 1), rel=0.05)


def test_runs_that_list_their_videos_in_another_order_are_compared_video_by_video(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(0.7), **head) for name, head in (("a", {}), ("b", {"head": MLP}))]
    path = runs[1] / "test" / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    assert differences_of(*runs)[0].verdict == "identical"


def test_the_same_files_under_other_names_and_groups_are_paired(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(0.7), **head) for name, head in (("a", {}), ("b", {"head": MLP}))]
    path = runs[1] / "test" / "predictions.csv"
    header, *rows = path.read_text().splitlines()
    renamed = [re.sub(r",(g\d+),", r",class/\1,", row.replace("/v", "/elsewhere/v")) for row in rows]
    path.write_text("\n".join([header, *sorted(renamed)]) + "\n")
    assert differences_of(*runs)[0].verdict == "identical"


def test_splits_of_one_setting_are_averaged_with_their_groups_pooled(tmp_path: Path):
    shares = {1: 0.6, 2: 0.7, 3: 0.8}
    for number, share in shares.items():
        settings = {"first": 90 * number, "split": official(number)}
        write_run(tmp_path / f"linear{number}", answers(share, number), **settings)
        write_run(tmp_path / f"mlp{number}", answers(share + 0.1, number), head=MLP, **settings)
    write_run(tmp_path / "lone", answers(0.95), first=90, split=official(1), seed=5)
    board = board_of(*sorted(tmp_path.iterdir()))
    assert [(setting.name, setting.choices) for setting in board.settings] == [
        ("lone", {"head": "linear"}),
        ("head=mlp", {"head": "mlp"}),
        ("head=linear", {"head": "linear"}),
    ]
    assert [(pair.first.name, pair.second.name) for pair in board.pairs] == [("head=mlp", "head=linear")]
    mean = np.mean([answers(share, number).mean() for number, share in shares.items()])
    entry = board.settings[2]
    assert entry.metrics["top1"] == pytest.approx(mean)
    alone = interval_of_accuracy(answers(0.6, 1).astype(float), Clusters.of([v // 3 for v in range(90)]))
    assert 0 < entry.interval.high - entry.interval.low < 0.75 * (alone.high - alone.low)
    notes = " ".join(notes_on(board, "test"))
    assert "means over 3 splits, groups pooled, each video tested once" in notes
    assert "head=mlp, head=linear: paired only with each other, and not with lone: 90 of its 270 videos are" in notes


def test_one_group_has_no_interval_and_the_reason_is_printed(tmp_path: Path):
    runs = [
        write_run(tmp_path / name, answers(share, 0, 6), videos_a_group=6, **head)
        for name, share, head in (("a", 0.7, {}), ("b", 0.3, {"head": MLP}))
    ]
    board = board_of(*runs)
    assert [setting.interval for setting in board.settings] == [None, None]
    assert board.pairs[0].difference.interval is None
    assert "There is no interval: all videos are of one group" in " ".join(notes_on(board, "test"))


def test_settings_are_named_as_on_the_command_line():
    linear = {"head": {"_target_": "vidclf.models.heads.linear.Linear", "_partial_": True}, "seed": 0}
    rate = {"sampling": {"_target_": "vidclf.data.sampling.Rate", "rate_hz": 5}}
    frames = {"sampling": {"_target_": "vidclf.data.sampling.Uniform", "num_frames": 8}}
    custom = {"head": {"_target_": "my_heads.Mine", "hidden": 3}}
    first, second = settings_of(linear | rate), settings_of(custom | frames)
    assert (first["head"], first["sampling"], first["sampling.rate_hz"]) == ("linear", "rate", "5")
    assert (second["head"], second["sampling"]) == ("Mine", "eight_frames")
    assert varying_settings([first, second]) == ["sampling", "head", "seed"]  # not the settings of only one option
    assert varying_settings([first, settings_of(linear | {"sampling": rate["sampling"] | {"rate_hz": 1}})]) == [
        "sampling.rate_hz"
    ]


# What is not compared


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"first": 3},
            "87 of its 90 videos are among the other's 90, which lacks jump/v90.avi, jump/v91.avi",
        ),
        ({"content": "d"}, "0 of its 90 videos are among the other's 90, which lacks jump/v0.avi, .* and 85 more"),
        ({"videos_a_group": 90}, "60 videos have another label: "),
        ({"videos_a_group": 9}, "60 videos have another label"),
        ({"classes": ["jump", "run", "swim"]}, "only one of them knows the classes swim, walk"),
        ({"first": 90, "split": official(2)}, "0 of its 90 videos"),
    ],
)
def test_runs_on_other_videos_are_ranked_but_not_paired_and_the_reason_is_said(
    settings: dict, reason: str, tmp_path: Path
):
    runs = [write_run(tmp_path / name, answers(0.9), **head) for name, head in (("a", {}), ("b", {"head": MLP}))]
    board = board_of(*runs, write_run(tmp_path / "c", answers(0.5), seed=5, **settings))
    assert [setting.name for setting in board.settings] == ["a", "b", "c"]
    assert [(pair.first.name, pair.second.name) for pair in board.pairs] == [("a", "b")]
    assert re.search(f"c: not paired with a: {reason}", " ".join(notes_on(board, "test")))


def test_videos_that_are_grouped_otherwise_are_not_paired(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(0.7), **head) for name, head in (("a", {}), ("b", {"head": MLP}))]
    change(runs[1] / "test" / "predictions.csv", ",g3,", ",g0,")
    assert board_of(*runs).pairs == []
    assert "the same videos are in other groups" in " ".join(notes_on(board_of(*runs), "test"))


def test_segments_of_one_file_are_different_videos(tmp_path: Path):
    run = write_run(tmp_path / "a", [True, False])
    path = run / "test" / "predictions.csv"
    change(path, "v0.avi", "v0.avi#0-2.5")
    change(path, "v1.avi", "v0.avi#2.5-")
    change(path, ",c1", ",c0")
    assert read_scored(run, "test").contents == ["c0#0-2.5", "c0#2.5-"]


def test_a_run_that_is_not_or_half_evaluated_is_refused_with_the_command_to_run(tmp_path: Path):
    run = write_run(tmp_path / "a", [], part=None)
    with pytest.raises(VidclfError, match=r"a: not evaluated on test. Call vidclf evaluate run=.*a part=test"):
        read_scored(run, "test")
    (run / "test").mkdir()
    (run / "test" / "logits.safetensors").touch()
    with pytest.raises(VidclfError, match="a: only half evaluated on test"):
        read_scored(run, "test")
    other = write_run(tmp_path / "b", answers(0.7))
    (other / "test" / "predictions.csv").unlink()
    with pytest.raises(VidclfError, match=r"predictions.csv: missing, so the run is only half evaluated"):
        read_scored(other, "test")


def change(path: Path, was: str, now: str) -> None:
    path.write_text(re.sub(was, now, path.read_text()))


@pytest.mark.parametrize(
    ("name", "was", "now", "message"),
    [
        ("predictions.csv", "jump/v0", "jump/v1", "they are not of one evaluation"),
        ("metrics.json", r'"top1": 0\.\d+', '"top1": 0.99', "while metrics.json says 0.99"),
        ("metrics.json", r'"top1": 0\.\d+', '"top1": 0.01', "while metrics.json says 0.01"),
        ("metrics.json", r'"top1": 0\.\d+', '"top1": NaN', "a number is not finite"),
        ("metrics.json", r"\{", "[", "not the scores that vidclf writes"),
        ("predictions.csv", "content", "contents", "not the predictions that this version writes"),
        ("predictions.csv", "walk", "swim", "the run knows no class swim"),
    ],
)
def test_scores_that_do_not_fit_together_are_refused(name: str, was: str, now: str, message: str, tmp_path: Path):
    run = write_run(tmp_path / "a", answers(0.7))
    change(run / "test" / name, was, now)
    with pytest.raises(VidclfError, match=message):
        read_scored(run, "test")


def test_a_sweeps_runs_are_found_in_order_and_its_failed_jobs_listed(tmp_path: Path):
    for job in (0, 2, 10):
        write_run(tmp_path / f"{job}_seed-{job}", answers(0.7))
    (tmp_path / "1_seed-1" / ".hydra").mkdir(parents=True)
    write_failure(tmp_path / "1_seed-1", "VidclfError: no\n\x1b[31mluck" + 9999 * "!")
    killed = write_run(tmp_path / "3_seed-3", answers(0.7))
    (killed / "metrics.json").unlink()  # in training: best.ckpt is that of some epoch
    (tmp_path / "notes").mkdir()
    found, failed = find_runs([tmp_path])
    assert [run.name for run in found] == ["0_seed-0", "2_seed-2", "10_seed-10"]
    assert [run.name for run in failed] == ["1_seed-1", "3_seed-3"]
    assert why_missing(failed[0]).startswith("failed: VidclfError: no \x1b[31mluck!!!")
    assert len(why_missing(failed[0])) < 600
    assert "not trained to the end. To go on, repeat the sweep's command" in why_missing(failed[1])
    with pytest.raises(VidclfError, match=r"notes: neither a run .* nor a sweep"):
        find_runs([tmp_path / "notes"])
    with pytest.raises(VidclfError, match="nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])


# The verb


def test_a_sweep_is_one_call_and_failed_jobs_are_listed(vidclf: Callable[..., Outcome], tmp_path: Path):
    sweep = tmp_path / "it's [a] sweep=1,2"
    for job, share in enumerate((0.5, 0.9)):
        write_run(sweep / f"{job}_x", answers(share), trainer={"max_epochs": 3 + job})
    write_run(sweep / "2_x", [], part=None)
    (sweep / "3_x" / "checkpoints").mkdir(parents=True)
    outcome = vidclf("compare", sweep.name)
    assert outcome.status == 0, outcome.err
    assert "left out: it's [a] sweep=1,2/3_x: not trained to the end" in outcome.err
    assert "2_x: not evaluated on test. Call vidclf evaluate" in outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "Compared: 2 settings (2 runs) on test, the best first"
    assert lines[1].split() == ["name", "top1", "n", "seeds", "max_epochs"]
    assert lines[3].split() == ["1", "1_x", "0.878", "[0.787,", "0.940]", "90", "1", "4"]
    assert "1_x is significantly better than 0_x: by +0.4" in outcome.out
    assert lines[-1] == "results compare.html"
    assert {path.name for path in tmp_path.iterdir()} == {sweep.name, "compare.html"}


def test_one_run_twice_is_identical_and_nothing_is_written(vidclf: Callable[..., Outcome], tmp_path: Path):
    write_run(tmp_path / "a", answers(0.7))
    outcome = vidclf("compare", "a", "a", "to=null")
    assert outcome.status == 0, outcome.err
    assert "a and a: identical predictions." in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_runs_that_cannot_be_compared_are_an_error(vidclf: Callable[..., Outcome], tmp_path: Path):
    run = write_run(tmp_path / "a", answers(0.7))
    outcome = vidclf("compare", str(run), "head=mlp")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.endswith("head=mlp: runs are compared as they are. Allowed keys: part, run, seeds, to.\n")
    assert "out: has become to=FILE" in vidclf("compare", str(run), "out=x").err
    shutil.move(run / "test", run / "test-sampling.rate_hz-5")
    with pytest.raises(
        VidclfError, match=r"a: not evaluated on test with the run's own settings \(but with others: test-sam"
    ):
        show([run], "test")
    with pytest.raises(VidclfError, match=r"test-sampling.rate_hz-5: this holds results of a run, not the run"):
        show([run / "test-sampling.rate_hz-5"], "test")
    write_run(tmp_path / "sweep" / "0_x", [], part=None)
    with pytest.raises(VidclfError, match=r"None of 1 runs can be compared. The first: .*0_x: not evaluated on test\."):
        show([tmp_path / "sweep"], "test")


class Reader(HTMLParser):
    """Keeps the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_are_text_in_every_table(tmp_path: Path):
    name = HOSTILE.replace("/", "_")
    mine = {"_target_": f"mine.{HOSTILE}"}
    runs = [
        write_run(tmp_path / f"={name}", answers(0.5), head=mine),
        write_run(tmp_path / f"{name}2", answers(0.9)),
    ]
    board = board_of(*runs)
    for ending in ("html", "md", "csv"):
        write_comparison(tmp_path / f"x.{ending}", board, f"two {HOSTILE}", [*notes_on(board, "test")])
    page = Reader()
    page.feed((tmp_path / "x.html").read_text())
    assert "script" not in page.tags
    assert "default-src 'none'" in (tmp_path / "x.html").read_text()
    assert HOSTILE.replace("\x1b", "")[:25] in page.text
    markdown = (tmp_path / "x.md").read_text()
    assert "<script>" not in markdown.split("\n", 1)[1]
    assert "\x1b" not in markdown
    assert (
        len({len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line[:3] in ("| 1", "| 2")}) == 1
    )
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["name"] == f"'={name}".replace("\x1b", "\N{REPLACEMENT CHARACTER}")  # a spreadsheet would compute it


def test_the_ending_says_what_is_written_and_csv_has_all_digits(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(0.7), **head) for name, head in (("a", {}), ("b", {"head": MLP}))]
    show(runs, "test", to=tmp_path / "new" / "x.csv")
    with (tmp_path / "new" / "x.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["top1"]) == answers(0.7).mean()
    with (tmp_path / "new" / "x-pairs.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["verdict"] == "identical"
    for name in ("new/x.csv", "new/x.html", "new/x.html", "new/x.md", "new/x.md"):  # the next replaces ours
        show(runs, "test", to=tmp_path / name)
    (tmp_path / "mine.csv").write_text("path,label\n")
    (tmp_path / "file").touch()
    for name, message in (
        ("tables", r"to=.*tables: must end in \.html \(a page\), \.md \(Markdown\) or \.csv \(all digits\)"),
        ("mine.csv", r"to=.*mine\.csv: exists, and compare did not write it\. Name another file"),
        ("file/x.csv", r"file/x\.csv: cannot write"),
    ):
        with pytest.raises(VidclfError, match=message):
            show(runs, "test", to=tmp_path / name)
    assert (tmp_path / "mine.csv").read_text() == "path,label\n"


def test_the_page_draws_every_interval_on_one_axis(tmp_path: Path):
    runs = [write_run(tmp_path / name, answers(share), **head) for name, share, head in TWO]
    board = board_of(*runs)
    write_comparison(tmp_path / "x.html", board, "two", [])
    page = (tmp_path / "x.html").read_text()
    for setting in board.settings:
        low, high = setting.interval
        assert f'class="range" x="{100 * low:.2f}%" width="{100 * (high - low):.2f}%"' in page
        assert f'class="point" cx="{100 * setting.metrics["top1"]:.2f}%"' in page
    assert page.count('class="mark" x1="33.33%"') == 2  # chance
    assert page.count('class="mark" x1="50.00%"') == 1  # no difference


def test_names_of_settings_are_short_where_that_is_clear():
    assert short_names(["head", "optimizer.lr", "backbone.layer", "head.layer"]) == {
        "head": "head",
        "optimizer.lr": "lr",
        "backbone.layer": "backbone.layer",
        "head.layer": "head.layer",
    }


def test_nothing_is_wider_than_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for number in range(6):
        wide = {"_target_": f"mine.Head{number}", "width": number, "a_long_setting": 10**20 + number}
        write_run(tmp_path / f"{number}{60 * 'w'}", answers(0.13 * number), head=wide, scaling=f"{60 * 's'}{number}")
    for columns, num_cut in ((80, 6), (40, 12)):  # a line of settings is cut; of 40 columns, that of scores too
        monkeypatch.setenv("COLUMNS", str(columns))
        show(sorted(tmp_path.iterdir()), "test")
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= columns
        assert out.count("\n   top1 0.") == 6
        assert sum(line.endswith("\N{HORIZONTAL ELLIPSIS}") for line in out.splitlines()) == num_cut
        assert out.count("verdict ") == 10
        assert "5 more pairs, less significant:" in out
    monkeypatch.setenv("COLUMNS", "400")
    show(sorted(tmp_path.iterdir()), "test")
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["name", "top1", "n", "seeds", "scaling"]


def test_a_setting_has_its_score_and_its_number_of_seeds_before_what_varied(tmp_path: Path):
    for seed in range(2):
        write_run(tmp_path / f"linear{seed}", answers(0.5, seed), seed=seed)
        write_run(tmp_path / f"mlp{seed}", answers(0.9, seed), head=MLP, seed=seed)
    board = board_of(*sorted(tmp_path.iterdir()))
    table = settings_table(board)
    assert table.header == ["", "name", "top1", "n", "seeds"]  # the names say what varied
    assert [row[:2] + row[3:] for row in table.rows] == [[1, "head=mlp", 90, 2], [2, "head=linear", 90, 2]]
    assert len(pairs_table(board, 10).rows) == 1
    exact = exact_settings(board)
    row = dict(zip(exact.header, exact.rows[0], strict=True))
    assert (row["runs"], row["head"]) == ("mlp0 mlp1", "mlp")
    assert row["top1"] == pytest.approx((answers(0.9, 0).mean() + answers(0.9, 1).mean()) / 2)
    singles = settings_table(board_of(*sorted(tmp_path.iterdir()), pool_seeds=False))
    assert singles.header[5:] == ["head", "seed"]


def test_tables_keep_their_values():
    table = Table(["a", "b"], [["x|y", 1.5], ["=1", -2]])
    assert as_markdown(table) == "| a | b |\n| --- | --- |\n| x\\|y | 1.5 |\n| =1 | -2 |\n"
    assert as_csv(table) == b"a,b\nx|y,1.5\n'=1,-2\n"


def test_a_terminal_shows_markup_in_names_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_table(Table(["[b]run[/b]"], [["[red]x[/red]\x1b[2J"]]), breaks=[1])
    shown = capsys.readouterr().out
    assert "[b]run[/b]" in shown
    assert "[red]x[/red]\N{REPLACEMENT CHARACTER}[2J" in shown


def test_evaluated_runs_are_compared_and_several_are_evaluated_in_one_call(
    vidclf: Callable[..., Outcome], trained: Outcome, tmp_path: Path
):
    """On logits and scores that evaluate wrote."""
    for job in range(2):
        shutil.copytree(trained.run, tmp_path / "sweep" / f"{job}_x")
    (tmp_path / "sweep" / "2_failed" / ".hydra").mkdir(parents=True)
    store = f"store.root={trained.run.parents[2] / 'data' / 'features'}"
    before = {path.name for folder in (tmp_path, tmp_path / "sweep", trained.run) for path in folder.iterdir()}
    outcome = vidclf("evaluate", "sweep", store)
    assert outcome.status == 0, outcome.err
    after = {
        path.name
        for folder in (tmp_path, *tmp_path.glob("sweep"), *tmp_path.glob("sweep/?_x"))
        for path in folder.iterdir()
    }
    assert after - before == {"test"}  # no multirun.yaml, nor the folder that it was in
    assert "left out: sweep/2_failed" in outcome.err
    first, second = (tmp_path / "sweep" / f"{job}_x" / "test" for job in range(2))
    assert (first / "metrics.json").read_bytes() == (second / "metrics.json").read_bytes()
    compared = vidclf("compare", "sweep")
    assert compared.status == 0, compared.err
    assert "0_x and 1_x: identical predictions." in compared.out
    assert "chance 0.500, the most frequent class of train 0.500" in " ".join(compared.out.split())


def test_a_sweep_ends_with_a_table_of_its_validation_scores(
    vidclf: Callable[..., Outcome], trained: Outcome, clips: Path, tmp_path: Path
):
    from verbs import SMALL

    settings = (f"dataset.root={clips}", f"store.root={trained.run.parents[2] / 'data' / 'features'}", *SMALL)
    outcome = vidclf("train", "-m", *settings, "~callbacks.view_sheets", "seed=0", "split.number=4,1")
    assert outcome.status == 1  # there is no split 4
    assert "Compared: 1 setting (1 run) on val, the best first" in outcome.out
    assert re.search(r"left out: .*/0_[^/]*split.number-4[^/]*: failed: VidclfError: split.number=4: ", outcome.err)
    assert outcome.err.count("VidclfError: split.number=4: ") == 2  # by the job, and in the table
    (run,) = tmp_path.glob("runs/train/*/*/metrics.json")
    first = outcome.out.splitlines()[0]  # a line for each job, before the table
    assert first.startswith(f"{run.parent.name}: top1 {json.loads(run.read_text())['top1']:.3f} [")
    assert not (tmp_path / "compare.html").exists()
