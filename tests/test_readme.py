"""Every command and every example in the READMEs works as it is written."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from verbs import Outcome

from vidclf.cli import verbs
from vidclf.command.help import help_on
from vidclf.command.verbs import read_verb
from vidclf.data.datasets.ucf101 import UCF101
from vidclf.run.config import CONF, HYDRA, check_keys
from vidclf.run.words import name_words

PROJECT = Path(__file__).parents[1]
EXPERIMENT_READMES = (PROJECT / "experiments").glob("*/README.md")
READMES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "conf/README.md", "experiments/README.md")),
    *sorted((PROJECT / "vidclf").rglob("README.md")),
    *sorted(EXPERIMENT_READMES),
]
TEXTS = {path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8") for path in READMES}
RUN = re.compile(r"<time>|\$run\b")


def blocks(language: str, name: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[name], re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Yield (README, command) of every `vidclf` command in a block or in a table's cell."""
    for name in TEXTS:
        for block in blocks("bash", name):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                for command in re.split(r"&&|;\s*(?:do\s|done)?", line):
                    if (command := command.strip().removeprefix("$ ")).startswith("vidclf "):
                        yield name, command


COMMANDS = list(commands())
CODE = {
    file: text
    for name in TEXTS
    for file, text in re.findall(r"```python\n(?:# (\w+\.py)\n)(.*?)```", TEXTS[name], re.DOTALL)
}
TRAININGS = [
    command.partition("  #")[0] for _, command in COMMANDS if "_target_=my_" in command and " train " in command
]
OWN_VIDEOS = re.search(r"```bash\n([^`]*dataset=folder[^`]*)```", TEXTS["vidclf/data/README.md"])
TWENTY_LINES = re.search(r"```python\n(# twenty lines\n.*?)```", TEXTS["vidclf/README.md"], re.DOTALL)
ON_SMALL_DATA = ("dataset=ucf101", "trainer.max_epochs=1", "num_threads=1", "callbacks.view_sheets.num_views=1")


def test_there_are_commands_and_parts_to_try():
    assert len(COMMANDS) > 40
    assert sorted(CODE) == ["my_backbones.py", "my_heads.py"]
    assert [re.search(r"(\w+)=custom", line)[1] for line in TRAININGS] == ["head", "backbone"]


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_a_command_names_a_verb_and_keys_and_groups_that_exist(name: str, command: str):
    _, verb, *arguments = shlex.split(RUN.sub("x", command), comments=True)
    if verb == "help":
        assert help_on(*arguments)
        return
    assert verb in verbs()
    arguments = [
        argument for argument in name_words(verb, arguments) if not argument.startswith("-") and argument != "job"
    ]
    if read_verb(verb).takes_several_runs:  # folders become one list
        arguments = [*(argument for argument in arguments if not argument.startswith("run=")), "run=x"]
    overrides = [_first_value(argument) for argument in arguments]
    with initialize_config_dir(CONF, **HYDRA):
        config = compose(verb, ["~callbacks", "~logger", *overrides])
        check_keys(config, verb)


def _first_value(argument: str) -> str:
    """Return an override with a single value: the first if it sweeps over several."""
    override = OverridesParser.create().parse_override(_quoted(argument))
    if not override.is_sweep_override():
        return _quoted(argument)
    return f"{override.input_line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"


def _quoted(argument: str) -> str:
    key, _, value = argument.partition("=")
    is_grammar = value.startswith(("[", "{", "'", '"')) or "," in value
    plain = re.fullmatch(r"[\w./:$-]*", value)
    return argument if is_grammar or plain else f"{key}='{value}'"


@pytest.mark.parametrize("name", TEXTS)
def test_a_readme_links_to_files_and_headings_that_exist(name: str):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", TEXTS[name]):
        path, _, heading = target.partition("#")
        file = (PROJECT / name).parent / path if path else PROJECT / name
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings]


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150
    assert len(TEXTS["README.md"].split()) <= 1400


@pytest.mark.parametrize("line", TRAININGS)
def test_your_own_part_trains_and_is_evaluated(line: str, vidclf: Callable[..., Outcome], clips: Path, tmp_path: Path):
    for name, text in CODE.items():
        (tmp_path / name).write_text(text)
    outcome = vidclf("train", *line.split()[2:], *ON_SMALL_DATA, f"dataset.root={clips}")
    assert outcome.status == 0, outcome.err
    refused = vidclf("evaluate", f"run={outcome.run}")
    assert refused.status == 1
    assert "trust=true" in refused.err
    assert vidclf("evaluate", f"run={outcome.run}", "trust=true").status == 0


def test_a_folder_of_phone_videos_becomes_a_run_with_a_test_score(
    vidclf: Callable[..., Outcome], shared: Path, tmp_path: Path
):
    """The block as it is written; a backbone that needs no weights from the net stands in for resnet50."""
    for name in ("JumpingJack", "WallPushups"):
        for group in range(1, 6):
            person = tmp_path / "my_videos" / name / f"person{group}"
            person.mkdir(parents=True)
            shutil.copy(shared / "ucf3" / name / f"v_{name}_g{group:02d}_c01.avi", person / "IMG_0001.AVI")
    assert OWN_VIDEOS
    run = ""
    for _, verb, *arguments in map(shlex.split, OWN_VIDEOS[1].splitlines()):
        arguments = [argument.replace("runs/train/<time>", run) for argument in arguments]
        without_weights = [] if verb == "evaluate" else ["backbone=tiny", "trainer.max_epochs=1", "num_threads=1"]
        outcome = vidclf(verb, *arguments, *without_weights)
        assert outcome.status == 0, outcome.err
        if verb == "train":
            run = str(outcome.run)
    assert json.loads(Path(run, "test", "metrics.json").read_text())["num_videos"] == 2


@pytest.mark.filterwarnings("ignore")  # Lightning's own, which the command line silences
def test_the_building_blocks_train_by_hand(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """The block as it is written, on a small data set and for one epoch."""
    assert TWENTY_LINES
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vidclf.data.datasets.demo.Demo", lambda root: UCF101(clips))
    code = re.sub(r"epochs=\d+", "epochs=1", TWENTY_LINES[1])
    exec(compile(code, "vidclf/README.md", "exec"), {})
    name, accuracy = capsys.readouterr().out.splitlines()[-1].split()
    assert name == "top1"
    assert 0 <= float(accuracy) <= 1
