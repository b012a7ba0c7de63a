"""The command line: verbs, help, output streams, and exit statuses."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from verbs import SMALL, Outcome, copy_package, run_copy

from vidclf import __version__, cli
from vidclf.cli import _may_name_own_classes, main, report, verbs
from vidclf.command.verbs import read_verb
from vidclf.errors import VidclfError


def test_help_names_every_verb_and_imports_nothing_heavy():
    code = "import sys; from vidclf.cli import main; main(); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    help_text, modules = result.stdout.rstrip().rsplit("\n", 1)
    assert [line.split()[0] for line in help_text.splitlines() if re.match(r"  \w", line)] == list(verbs())
    assert "Example: vidclf train experiment=demo" in help_text
    assert not {"torch", "lightning", "hydra", "matplotlib", "av"} & set(modules.split())


def test_every_verb_is_a_file_and_a_yaml_with_a_line_of_help():
    package = Path(cli.__file__).parent
    for verb, description in verbs().items():
        assert (package / f"{verb}.py").is_file()
        assert len(description.split()) > 5
        assert read_verb(verb).example


def test_a_new_verb_that_starts_from_a_run_is_one_file_and_one_yaml(trained: Outcome, tmp_path: Path):
    """In a copy of the package, its help shows its example and its overrides apply to the run."""
    site = copy_package(tmp_path / "site")
    (site / "vidclf" / "count.py").write_text(
        "def run(config, run):\n"
        "    print(len(run.class_names), config['by'], config['head']['widths'], config['aggregation']['_target_'])\n"
    )
    (site / "vidclf" / "conf" / "count.yaml").write_text(
        "# vidclf count: count the classes of a run, for a test\n"
        "defaults: [train, _self_]\nrun: ???\nby: 1\n"
        "verb: {starts_from: run, example: run=runs/demo/x by=2}\n"
        "hydra: {output_subdir: null, run: {dir: .}, job: {name: count}}\n"
    )
    assert "Examples:\n  vidclf count run=runs/demo/x by=2\n" in run_copy(site, "vidclf", "count", "--help")
    arguments = (f"run={trained.run}", "by=2", "aggregation=max", "head.widths=[3]")
    assert run_copy(site, "vidclf", "count", *arguments) == "2 2 [3] vidclf.models.aggregation.max\n"


def test_an_unknown_verb_is_named_and_the_verbs_are_listed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["vidclf", "fit"])
    with pytest.raises(SystemExit, match=r"fit .*check, compare, demo, evaluate"):
        main()


def test_the_version_is_the_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["vidclf", "--version"])
    main()
    assert capsys.readouterr().out == f"{__version__}\n"


def test_results_go_to_stdout_and_notices_to_stderr(trained: Outcome):
    title, *rows, last = trained.out.splitlines()
    assert title.startswith("Validation, epoch ")
    assert re.fullmatch(r"top1 [01]\.\d{3} \[.*\] on 4 videos in 2 groups \(chance 0.500, .*\)", rows[0])
    assert [row.split()[0] for row in rows[1:]] == ["mean_class", "loss", "ece"]
    assert last == f"run {trained.run}"
    examining, extracting, extracted, *epochs, following = trained.err.splitlines()
    assert "20 videos" in examining
    assert "12 videos" in extracting
    assert re.match(r"12 videos in [\d.]+ s: ", extracted)
    assert [line.split(": ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    shown = trained.run.relative_to(trained.run.parents[2])  # below the folder where it was called
    assert following == f"next: vidclf evaluate run={shown}, then vidclf report {shown}"
    assert all(re.search(r": train/loss \S+, val/loss \S+, val/top1 \S+, \S+ s$", line) for line in epochs)


def test_a_key_that_hydra_does_not_know_is_one_message_and_status_1(vidclf: Callable[..., Outcome]):
    outcome = vidclf("train", "heads=mlp")
    assert outcome.status == 1
    assert outcome.out == ""
    assert outcome.err.startswith("VidclfError: heads: vidclf train has no such setting. Did you mean head?")
    assert "Traceback" not in outcome.err


def test_a_mistyped_key_is_reported_before_torch_is_imported(tmp_path: Path):
    code = "import sys, vidclf.cli as cli; print(cli.call('train', ['heads=mlp']), 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "1 False\n"


def test_a_mistake_in_a_users_head_prints_its_stack_trace(vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path):
    (tmp_path / "my_heads.py").write_text(
        "def broken(feature_dim, num_classes):\n    raise RuntimeError('my mistake')\n"
    )
    outcome = vidclf("train", f"dataset.root={clips}", *SMALL[:3], "head=custom", "head._target_=my_heads.broken")
    assert outcome.status == 1
    assert "Traceback" in outcome.err
    assert "my_heads.py" in outcome.err
    assert "RuntimeError: my mistake" in outcome.err


def test_a_type_error_in_a_users_sampling_is_shown_and_a_wrong_argument_is_a_message(
    vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path
):
    (tmp_path / "my_samplings.py").write_text("class Mine:\n    def __init__(self, k):\n        k + 'x'\n")
    mine = (f"dataset.root={clips}", *SMALL[:2], "sampling=custom", "sampling._target_=my_samplings.Mine")
    assert "TypeError: unsupported operand" in vidclf("train", *mine, "+sampling.k=1").err
    wrong = vidclf("train", *mine, "+sampling.n=1").err
    assert "Mine takes no n." in wrong
    assert "Traceback" not in wrong


def test_paths_are_relative_to_the_callers_folder_even_where_the_job_changes_it(
    vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path
):
    (tmp_path / "clips").symlink_to(clips)
    outcome = vidclf("train", "dataset.root=clips", *SMALL, "trainer.max_epochs=1", "hydra.job.chdir=true")
    assert outcome.status == 0, outcome.err
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "data", "runs"}
    assert {path.name for path in outcome.run.iterdir()} >= {"checkpoints", "split.csv", "metrics.json"}
    assert not (outcome.run / "data").exists()


STOP = """
from lightning.pytorch.callbacks import Callback

class Stop(Callback):
    def on_train_epoch_end(self, trainer, module):
        raise KeyboardInterrupt
"""


def test_ctrl_c_in_training_is_a_message_and_status_130(vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path):
    (tmp_path / "my_callbacks.py").write_text(STOP)
    outcome = vidclf("train", f"dataset.root={clips}", *SMALL, "+callbacks.stop._target_=my_callbacks.Stop")
    assert outcome.status == 130
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert outcome.err.splitlines()[-1].startswith("Interrupted. What was written is kept. To go on: vidclf train ")
    if (folder / "checkpoints" / "last.ckpt").is_file():  # that epoch's may not have been written yet
        assert outcome.err.endswith(f"resume=runs/train/{folder.name} num_threads=1 trust=true\n")
    assert "Traceback" not in outcome.err


def test_sigterm_in_training_is_a_message_and_status_143(vidclf: Callable[..., Outcome], tmp_path: Path, clips: Path):
    terminate = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    (tmp_path / "my_callbacks.py").write_text(STOP.replace("raise KeyboardInterrupt", terminate))
    outcome = vidclf("train", f"dataset.root={clips}", *SMALL, "+callbacks.stop._target_=my_callbacks.Stop")
    assert outcome.status == 143
    assert outcome.err.splitlines()[-1].startswith("Terminated.")
    assert "Traceback" not in outcome.err


def test_ctrl_c_before_training_is_a_message_too_and_leaves_no_folder(
    vidclf: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vidclf.train.build_corpus", interrupt)
    outcome = vidclf("train")
    assert outcome.status == 130
    assert outcome.err.startswith("Interrupted.")
    assert outcome.err.count("\n") == 1
    assert [*tmp_path.glob("runs/*/*")] == []


def test_a_closed_pipe_ends_the_verb_silently(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(BrokenPipeError) as caught:
            print("a line", flush=True)
        report(caught.value)
    assert capsys.readouterr().err == ""


def instantiation_error(cause: Exception) -> InstantiationException:
    error = InstantiationException("Error in call to target 'x.Y':\nTypeError(...)")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (VidclfError("what, got"), "VidclfError: what, got\n"),
        (instantiation_error(VidclfError("what")), "VidclfError: what\n"),
        (
            instantiation_error(TypeError("no k")),
            "Y: TypeError: no k\n",
        ),
        (PermissionError(13, "Permission denied", "/runs"), "/runs: no access (Permission denied). "),
        (OSError(28, "No space left on device", "/runs"), "/runs: no access (No space left on device). "),
    ],
)
def test_an_error_that_the_user_can_fix_is_a_message(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
):
    report(error)
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("error", [RuntimeError("bug"), FileNotFoundError("x")])
def test_an_error_in_code_prints_its_stack_trace(error: Exception, capsys: pytest.CaptureFixture[str]):
    report(error)
    assert f"{type(error).__name__}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "is_searched"),
    [
        (["run=x"], False),
        (["run=x", "trust=false"], False),
        (["run=x", "trust=true"], True),
        (["head=custom", "head._target_=my_heads.Mine"], True),
        (["+callbacks.mine._target_=my_callbacks.Mine"], True),
        (["--config-dir=conf", "experiment=mine"], True),
    ],
)
def test_the_current_folder_is_searched_for_classes_only_where_a_person_names_some(words: list[str], is_searched: bool):
    """A folder of a stranger's may hold a module that a library would import if it were there."""
    assert _may_name_own_classes(words) is is_searched
