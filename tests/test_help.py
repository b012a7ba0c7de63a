"""The help on verbs, groups and options is made from conf/ and fits a terminal."""

import re
import subprocess
import sys

import pytest

from vidclf.command.help import help_on
from vidclf.command.verbs import groups_of, options_of, read_verb, settings_of, verbs
from vidclf.errors import VidclfError

GROUPS = [*groups_of("train")]
OPTIONS = [f"{group}={option}" for group in GROUPS for option in options_of(group)]


@pytest.mark.parametrize("topic", ["", *verbs(), *GROUPS, *OPTIONS])
def test_help_fits_80_columns(topic: str):
    text = help_on(topic)
    assert len(text.splitlines()) > int("=" not in topic)
    assert [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()] == []


@pytest.mark.parametrize("verb", verbs())
def test_the_help_of_a_verb_has_its_settings_groups_and_examples(verb: str):
    text = help_on(verb)
    assert text.startswith(f"vidclf {verb}: ")
    assert f"Usage: vidclf {verb} " in text
    for key in settings_of(verb):
        assert re.search(rf"^  {key}[=.]", text, re.MULTILINE)
    assert all(f"  vidclf {verb} {example}\n" in text for example in read_verb(verb).example.splitlines())
    if read_verb(verb).starts_from != "all_runs":
        assert [group for group in GROUPS if not re.search(rf"^  {group}=[\w.]+ +\w", text, re.MULTILINE)] == []


def test_the_help_of_a_verb_shows_the_options_that_it_overrides():
    assert "  backbone=efficientnet_b0 " in help_on("check")
    assert "  layer_decay=1.0           the rate of each stage of a trained backbone is this\n" in help_on("train")


def test_the_help_of_a_group_lists_its_options_and_that_of_an_option_its_settings():
    assert "\n  head=mlp                  The tutorial's dropout network on the mean over the\n" in help_on("head")
    text = help_on("head=mlp")
    assert text.startswith("head=mlp: The tutorial's dropout network")
    assert "\n  head.widths=[1024,512,256,128]\n" in text
    assert "\n  head.dropout=0.5" in text
    assert "head._target_=..." in help_on("head=custom")
    assert "\nAnd those of callbacks=default." in help_on("callbacks=ema")


@pytest.mark.parametrize(("topic", "meant"), [("haed", "head"), ("evalate", "evaluate"), ("head=liner", "linear")])
def test_help_on_nothing_names_what_was_probably_meant(topic: str, meant: str):
    with pytest.raises(VidclfError, match=rf"help {topic}: no such topic\. Did you mean {meant}\?"):
        help_on(topic)


@pytest.mark.slow
def test_the_help_of_a_verb_starts_nothing():
    code = "import sys; from vidclf.cli import main; main(); print(*sys.modules)"
    for words in (["train", "--help"], ["help", "train"], ["train", "head=mlp", "-h"]):
        result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        help_text, modules = result.stdout.rstrip().rsplit("\n", 1)
        assert help_text == help_on("train")
        assert not {"torch", "hydra", "omegaconf"} & set(modules.split())
