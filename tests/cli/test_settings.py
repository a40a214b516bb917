"""Parameters on the command line: --set, and options that reach the model only where given."""

import os
import sys

import numpy as np
import pytest

from skanomaly import create_model
from skanomaly.cli._settings import check_caches, make_model, parse_settings


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("448", 448),
        ("-0.5", -0.5),
        ("1e-3", 1e-3),
        ("True", True),
        ("None", None),
        ("5,8", (5, 8)),
        ("(5, 8)", (5, 8)),
        ("[2, 3]", [2, 3]),
        ("cuda:0", "cuda:0"),
        ("metal nut", "metal nut"),
        ("'448'", "448"),
        ("", ""),
        ("a=b", "a=b"),
        ("0603", "0603"),
        ("{}", "{}"),
        ("{[]}", "{[]}"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_values(text, value):
    parsed = parse_settings([f"x={text}"])["x"]
    assert parsed == value and type(parsed) is type(value)


def test_a_folder_below_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_settings(["cache_dir=~/cache"]) == {"cache_dir": "/home/me/cache"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["topk"], "--set takes name=value, got 'topk'"),
        (["=3"], "--set takes name=value"),
        (["topk=1", "topk=2"], "--set topk is given twice"),
    ],
)
def test_what_is_no_setting(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(texts)


def test_settings_reach_their_steps():
    model = make_model(
        "filterbank",
        scorer="knn",
        contamination=0.3,
        settings=["image_size=64", "knn__n_neighbors=3", "metric=euclidean", "topk=2"],
    )
    expected = {"contamination": 0.3, "n_neighbors": 3, "metric": "euclidean", "topk": 2}
    params = model["knn"].get_params()
    assert model["emb"].image_size == 64 and {key: params[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "scorer__topk=0.02",
            "--set scorer__topk: tiny has no parameter 'scorer__topk', because it has no step "
            "'scorer'; its steps are emb, knn",
        ),
        (
            "patchwise__n_patches=2",
            "--set patchwise__n_patches: tiny has no parameter 'patchwise__n_patches', because it "
            "has no step 'patchwise'; its steps are emb, knn; --scorer patchwise has "
            "patchwise__n_patches",
        ),
        (
            "knn__n_patches=2",
            "--set knn__n_patches: tiny has no parameter 'knn__n_patches'; --scorer patchwise "
            "has it",
        ),
    ],
)
def test_a_parameter_of_no_step(setting, message):
    """Those who misspell a step learn which there are, not which scorers have the parameter."""
    with pytest.raises(ValueError) as error:
        make_model("tiny", scorer="knn", settings=[setting])
    assert str(error.value) == message


def test_a_value_that_is_given_twice():
    with pytest.raises(ValueError, match="--contamination and --set contamination say the same"):
        make_model("filterbank", contamination=0.3, settings=["contamination=0.2"])
    with pytest.raises(ValueError, match="--weights and --set checkpoint_path say the same"):
        make_model("vision_padim_anomalib", weights="a.ckpt", settings=["checkpoint_path=b.ckpt"])


@pytest.mark.parametrize("name", ["filterbank", "vision_winclip"])
def test_contamination_is_the_models_own_unless_asked_for(name):
    """A zero-shot model has a threshold of its own, which a share would replace."""
    if name == "vision_winclip":
        pytest.importorskip("open_clip")
    own = create_model(name)[-1].contamination
    assert own == ("auto" if name == "vision_winclip" else 0.1)
    assert make_model(name)[-1].contamination == own
    assert make_model(name, contamination=0.2)[-1].contamination == 0.2


# The progress bar


class Terminal:
    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


def test_a_progress_bar_where_a_person_looks_on(monkeypatch):
    assert not make_model("filterbank")["emb"].verbose
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    assert make_model("filterbank")["emb"].verbose
    assert make_model("filterbank", settings=["verbose=False"])["emb"].verbose is False
    assert make_model("filterbank", settings=["emb__verbose=False"])["emb"].verbose is False


@pytest.mark.parametrize("filled", [False, True])
def test_a_folder_that_cannot_be_written_is_judged_as_by_the_embedder(
    tmp_path, monkeypatch, capsys, filled
):
    if filled:
        (tmp_path / "tokens").write_bytes(b"of others")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and access(path, mode))
    model = make_model("filterbank", settings=["image_size=16", f"cache_dir={tmp_path}"])
    images = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    if filled:
        check_caches(model)
        model["emb"].transform(images)
    else:
        with pytest.raises(ValueError) as embedders:
            model["emb"].transform(images)
        with pytest.raises(ValueError, match="is empty and cannot be written to") as ours:
            check_caches(model)
        assert str(ours.value) == str(embedders.value)
    assert capsys.readouterr().err == ""
