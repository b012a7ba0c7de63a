"""Runs in TensorBoard: HParams by TensorBoard's reader, and everything in a real browser."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import CHROMIUMS, IMAGES, SHOWN, find_chromium, open_page
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.get_experiment import Handler as GetExperiment
from tensorboard.plugins.hparams.list_session_groups import Handler as ListSessions
from verbs import SMALL, Outcome

from vidclf.comparison.settings import defaults_of, settings_of
from vidclf.evaluation.tensorboard import log_best
from vidclf.run.config import CONF, HYDRA


def hparams_of(folder: Path) -> tuple[list[str], list[str], dict[str, tuple[dict[str, str], dict[str, float]]]]:
    """Return the settings that differ, the metrics, and each run's settings and scores in HParams."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder)).Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    request = RequestContext(), context, ""
    columns = GetExperiment(*request, api_pb2.GetExperimentRequest()).run()
    statuses = [api_pb2.STATUS_SUCCESS]
    rows = ListSessions(*request, api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=99)).run()
    return (
        [info.name for info in columns.hparam_infos if info.differs],
        [f"{info.name.group}{info.name.tag}" for info in columns.metric_infos],
        {
            group.name: (
                {key: value.string_value for key, value in group.hparams.items()},
                {metric.name.tag: metric.value for metric in group.metric_values},
            )
            for group in rows.session_groups
        },
    )


def test_runs_with_different_settings_have_all_columns(tmp_path: Path):
    log_best(tmp_path / "a" / "best", {"val/top1": 0.5}, {"head": "linear", "seed": "0"})
    log_best(tmp_path / "b" / "best", {"val/top1": 0.25}, {"head": "mlp", "head.dropout": "0.3"})
    varied, metrics, runs = hparams_of(tmp_path)
    assert (varied, metrics) == (["head"], ["val/top1"])
    assert runs == {
        "a/best": ({"head": "linear", "seed": "0"}, {"val/top1": 0.5}),
        "b/best": ({"head": "mlp", "head.dropout": "0.3"}, {"val/top1": 0.25}),
    }


def test_a_run_that_is_evaluated_twice_is_one_run_with_its_last_score(tmp_path: Path):
    log_best(tmp_path / "a" / "best", {"val/top1": 0.5}, {"head": "linear"})
    assert hparams_of(tmp_path)[1] == ["val/top1"]
    for top1 in (0.125, 0.25):
        log_best(tmp_path / "a" / "best", {"test/top1": top1})
    _, metrics, runs = hparams_of(tmp_path)
    assert metrics == ["test/top1", "val/top1"]
    assert runs == {"a/best": ({"head": "linear"}, {"val/top1": 0.5, "test/top1": 0.25})}


def test_names_and_values_of_any_bytes_are_shown(tmp_path: Path):
    log_best(tmp_path / "best", {"val/top1": 0.5}, {"head.\udcff": "\udc80<script>\0\n${x}", "head": 9999 * "x"})
    ((chosen, _),) = hparams_of(tmp_path)[2].values()
    assert (
        chosen["head.\N{REPLACEMENT CHARACTER}"]
        == "\N{REPLACEMENT CHARACTER}<script>" + 2 * "\N{REPLACEMENT CHARACTER}" + "${x}"
    )
    assert len(chosen["head"]) < 1000


@pytest.mark.parametrize(
    "overrides", [["experiment=demo"], ["experiment=demo_3d"], ["head=custom", "head._target_=my.Own"]]
)
def test_hparams_hold_what_another_run_may_vary(overrides: list[str]):
    with initialize_config_dir(CONF, **HYDRA):
        cfg = compose("train", ["~callbacks", "~logger", *overrides])
    settings = settings_of(OmegaConf.to_container(cfg, resolve=True))
    assert settings.keys() >= {
        *("dataset", "split", "sampling", "transform", "backbone", "scaling", "head", "aggregation", "augmentation"),
        *("optimizer", "optimizer.lr", "scheduler", "seed", "batch_size", "mixing", "loss", "trainer.max_epochs"),
    }
    assert not [key for key in settings if "_target_" in key or "_partial_" in key or key == "dataset.root"]


def test_hparams_hold_the_defaults_of_settings_that_another_run_adds():
    node = {"_target_": "vidclf.models.heads.recurrent.GRU", "_partial_": True, "hidden_dim": 9}
    defaults = defaults_of({"head": node, "loss": {}, "seed": 0})
    assert defaults["head.bidirectional"] in ("True", "False")
    assert not defaults.keys() & {"head.hidden_dim", "head.feature_dim", "head.num_classes"}


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Yield the address of a TensorBoard of a folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--load_fast=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr
    try:
        line = next(line for line in process.stderr if " at http" in line)
        yield line.split(" at ")[1].split()[0]
    finally:
        process.kill()
        process.communicate()


def test_a_browser_shows_a_run_and_a_sweep(
    clips: Path, trained: Outcome, run: Path, tmp_path: Path, vidclf: Callable[..., Outcome]
):
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(f"no browser: none of {', '.join(CHROMIUMS)} is on the PATH")
    settings = (f"dataset.root={clips}", f"store.root={trained.run.parents[2] / 'data' / 'features'}")
    sweep = ("head=linear", "sampling.rate_hz=5", "trainer.max_epochs=1")
    for verb, *arguments in (("train", "-m", *SMALL[:2], *sweep), ("evaluate", f"run={run}")):
        outcome = vidclf(verb, *settings, *arguments)
        assert outcome.status == 0, outcome.err
    with tensorboard(tmp_path / "runs") as address, open_page(chromium, tmp_path / "browser") as page:
        page.ask("Page.navigate", url=f"{address}#hparams")
        words = {*page.wait_for(f"{SHOWN}.split('Trial ID')[1] || ''", of="linear").split()}
        assert words >= {"head", "linear", "mlp", "sampling.rate_hz", "5", "10", "val/top1", "val/loss", "test/top1"}
        assert not [text for text in ("_target_", "_partial_", "train/loss", "lr-Adam") if text in page.run(SHOWN)]
        page.ask("Page.navigate", url=f"{address}#images")
        shown = page.wait_for(SHOWN, of="views/val")
        assert "confusion/test" in shown
        assert min(min(size) for size in page.wait_for(IMAGES)) > 100
        page.ask("Page.navigate", url=f"{address}#scalars")
        page.wait_for(SHOWN, of="val/loss")
        assert page.errors == []
