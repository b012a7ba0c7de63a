"""A mistyped command line is answered with what was probably meant; no grammar and no search path is shown."""

import sys

import pytest
from hydra.errors import MissingConfigException

from vidclf import api
from vidclf.cli import main
from vidclf.command.mistakes import did_you_mean
from vidclf.errors import VidclfError
from vidclf.run.config import explain
from vidclf.run.words import prepare_arguments

OF_HYDRA = ("Hydra", "hydra.cc", "search path", "override", "Traceback", "mismatched", "Lexer", "full_key", "struct")


@pytest.mark.parametrize(
    ("typed", "known", "sentence"),
    [
        ("haed", ["head", "seed", "loss"], " Did you mean head?"),
        ("lr", ["seed", "optimizer.lr"], " Did you mean optimizer.lr?"),
        ("epochs", ["seed", "trainer.max_epochs"], " Did you mean trainer.max_epochs?"),
        ("xyzzy", ["head", "seed"], ""),
    ],
)
def test_a_name_that_resembles_another_is_suggested(typed: str, known: list[str], sentence: str):
    assert did_you_mean(typed, known) == sentence


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train haed=linear", "haed: vidclf train has no such setting. Did you mean head?"),
        ("train splt.seed=1", "splt.seed: vidclf train has no such setting. Did you mean split?"),
        ("train lr=0.1", "Did you mean optimizer.lr?"),
        ("train head=liner", "head=liner: head has no such option. Did you mean linear? Options: attention_pool,"),
        ("train -m head=linear,mpl", "head=mpl: head has no such option. Did you mean mlp?"),
        ("train head=null", "head=null: head has no such option"),
        ("train study=seed", "Did you mean seeds?"),
        ("train --epochs 3", "--epochs: settings are written KEY=3, without dashes. Did you mean trainer.max_epochs?"),
        ("train --lr=0.1", "settings are written KEY=0.1, without dashes. Did you mean optimizer.lr?"),
        ("train experiment demo", "Choose one of demo, demo_3d"),
        ("train demo", "Did you mean experiment=demo or dataset=demo?"),
        (
            "predict RUN FILE",
            "Usage: vidclf predict run=RUN source=SOURCE [KEY=VALUE ...], such as: vidclf predict run=",
        ),
        (
            "train sampling.rate_hz=(",
            "sampling.rate_hz=(: this value cannot be read. Quote it: 'sampling.rate_hz=\"(\"'",
        ),
        ("train head.name=a:b}", "cannot be read. Quote it: 'head.name=\"a:b}\"'"),
    ],
)
def test_a_word_that_is_no_setting_is_answered_before_hydra_starts(command: str, sentence: str):
    verb, *words = command.split()
    with pytest.raises(VidclfError) as caught:
        prepare_arguments(verb, words)
    assert sentence in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train head.dropot=0.2", "head.dropot: head has no setting dropot. Did you mean dropout?"),
        ("train head=gru head.hiden_dim=2", "Did you mean hidden_dim? It has hidden_dim, num_layers,"),
        ("train split.sede=1", "split.sede: split has no setting sede. Did you mean seed?"),
        ("train trainer.max_epoch=3", "Did you mean max_epochs?"),
        ("train trainer.min_epochs=3", "Another argument of its class is added by +trainer.min_epochs=3."),
        ("train callbacks.bst.mode=max", "callbacks.bst.mode: callbacks has no setting bst. Did you mean best?"),
        ("train store.roots=x", "store has no setting roots. Did you mean root?"),
        ("train seed.x=1", "seed.x: seed is 0 and has no settings of its own."),
        ("train head=linear,mlp", "head=linear,mlp: several values. For a run of each, add -m"),
        ("train +seed=1", "+seed: this setting exists. Leave out the +."),
        ("train ~sed", "~sed: there is no such setting to delete."),
        ("train batch_size=${sed}", "${sed}: there is no such setting."),
        ("train +batchsize=3", "Did you mean batch_size?"),
        ("predict", "run, source must be given: vidclf predict run=... source=.... Usage: vidclf predict run=RUN"),
        ("evaluate", "run must be given: vidclf evaluate run=.... Usage: vidclf evaluate RUN... [KEY=VALUE ...], such"),
    ],
)
def test_a_setting_that_does_not_exist_is_answered_in_a_sentence(command: str, sentence: str):
    verb, *words = command.split()
    with pytest.raises(VidclfError) as caught:
        api.compose(verb, words)
    assert sentence in str(caught.value)
    assert [term for term in OF_HYDRA if term in str(caught.value).replace("+override", "")] == []


def test_a_file_of_settings_that_does_not_exist_is_answered_in_a_sentence():
    error = MissingConfigException("Cannot find primary config 'mine'. Check that it's in your config search path.\n")
    message = str(explain(error, "train", ["--config-name", "mine"]))
    assert message == "mine.yaml: --config-name and --config-path name no such file. Leave them out."


@pytest.mark.parametrize(
    ("verb", "sentence"), [("trian", "Did you mean train?"), ("head=mlp", "vidclf train head=mlp")]
)
def test_a_verb_that_is_mistyped_or_left_out_is_answered(verb: str, sentence: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["vidclf", verb])
    with pytest.raises(SystemExit) as end:
        main()
    assert sentence in str(end.value)
