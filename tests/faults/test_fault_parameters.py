"""Rows of the fault matrix about the bounds of parameters and options."""

import numpy as np
import pytest
from _fault_models import GOOD, saved
from _fault_table import Table
from typer.testing import CliRunner

from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    PatchSubspaceScorer,
    RetrievalKNNScorer,
    TinyPatches,
    create_model,
    list_models,
)
from skanomaly.cli import app

ORDER = 5
TABLE = Table(
    "parameters",
    "Parameters and options",
    "A constructor never raises an error; `fit` and `transform` do, before any image is read. The\n"
    "message names the parameter or the option as it was typed, what is allowed, and what was\n"
    "given.",
)
NAN = float("nan")
SHARE = [0, 0.0, 1.5, -1, NAN, True, "0.1"]
BOUNDS = {
    PatchKNNScorer: {
        "n_neighbors": [0, -1, 1.5, True, None, "1"],
        "metric": ["manhattan", None, 3],
        "coreset": [0, 0.0, 1.5, True, NAN, "half"],
        "topk": SHARE,
        "aggregation": ["median", 1.5, -0.1, NAN, None, True],
        "contamination": [0, -0.1, 0.6, 1, NAN, True, "auto"],
    },
    LocalKNNScorer: {
        "radius": [-1, 1.5, True, None],
        "whitening": ["own", True],
        "shrinkage": [-0.1, 1.1, NAN, True],
        "regularization": [-1, NAN, None, True],
        "n_components": [0, 1.5, True],
        "few": [-1, 1.5, True],
    },
    PatchGaussianScorer: {
        "covariance": ["full", None, 1],
        "n_components": [0, -1, True],
        "topk": SHARE,
        "contamination": [0, 0.6, NAN],
    },
    PatchSubspaceScorer: {"explained_variance": [0.0, 1.0, 1, -0.5, NAN, True, "0.9"]},
    RetrievalKNNScorer: {
        "n_retrieved": [0, -1, 1.5, True],
        "n_neighbors": [0, 1.5, True],
        "radius": [-1, 1.5, True],
    },
    FilterBankPatches: {
        "image_size": [0, -32, 1.5, True, "32"],
        "resize": ["crop", None, 3],
        "batch_size": [0, -1, 1.5, True, None],
        "cache_size": [0, -1, True],
        "augmentation": ["mirrored", 3, True],
        "stream": ["yes", 2, None],
    },
    TinyPatches: {"image_size": [0, 1.5, True], "batch_size": [0, True]},
}
TOKENS = np.random.default_rng(0).normal(size=(8, 3, 3, 6)).astype(np.float32)
for kind, parameters in BOUNDS.items():
    for name, values in parameters.items():
        listed = ", ".join(map(repr, values))

        @TABLE.row(
            f"{kind.__name__}-{name}",
            f"`{kind.__name__}({name}=...)` of {listed}",
            f"`ValueError`: “'{name}' parameter of {kind.__name__}” and what was given",
        )
        def _(here, kind=kind, name=name, values=values):
            for value in values:
                made = kind(**{name: value})
                with pytest.raises(ValueError) as info:
                    if hasattr(made, "transform"):
                        made.transform([here / "is not read.png"])
                    else:
                        made.fit(TOKENS)
                text = str(info.value)
                assert f"{name!r} parameter of {kind.__name__}" in text, (value, text)
                assert repr(value) in text, (value, text)


@TABLE.row(
    "more-{what}",
    "more {what} than there are",
    "`ValueError` that names the parameter, and what there is",
    what=["n_neighbors", "n_components", "topk"],
)
def _(here, what):
    made = {
        "n_neighbors": PatchKNNScorer(n_neighbors=1000),
        "n_components": LocalKNNScorer(n_components=7, few=1),
        "topk": PatchKNNScorer(topk=10),
    }[what]
    with pytest.raises(ValueError, match=f"{what}=[0-9]+ is more than the [0-9]+ "):
        made.fit(TOKENS)


@TABLE.row("unknown-model", "a model of no name", "`ValueError` that suggests a near one")
def _(here):
    near = sorted(list_models())[0]
    with pytest.raises(ValueError, match=near):
        create_model(near[:-1])


@TABLE.row("unknown-parameter", "a parameter of no name", "`ValueError` that names it")
def _(here):
    with pytest.raises((TypeError, ValueError), match="n_neighbours"):
        create_model("filterbank", scorer="knn", n_neighbours=3)


@TABLE.row(
    "image-size-of-no-cell",
    "`image_size=33`, where the patch has 8 pixels",
    "`ValueError`: “is not a multiple of the patch of 8 pixels; the nearest is”",
)
def _(here):
    with pytest.raises(ValueError, match="image_size=33 is not a multiple of the patch of .* the"):
        FilterBankPatches(image_size=33).transform(GOOD[:1])


COMMANDS = {
    "--set topk=2.5": ["--set", "topk=2.5"],
    "--set nothing=1": ["--set", "nothing=1"],
    "--set topk": ["--set", "topk"],
    "--set knn__nothing=1": ["--set", "knn__nothing=1"],
    "--contamination 0.7": ["--contamination", "0.7"],
    "--scorer nobody": ["--scorer", "nobody"],
    "--model nobody": ["--model", "nobody"],
    "--nothing": ["--nothing"],
}


@TABLE.row(
    "option-{option}",
    "`skanomaly fit ... {option}`",
    "exit code 1 or 2 without a traceback; the message holds what was typed; no model is written",
    option=list(COMMANDS),
)
def _(here, option):
    (here / "good").mkdir()
    for number, image in enumerate(GOOD):
        saved(here / "good", image, f"{number}.png")
    command = ["fit", str(here / "good"), "-o", str(here / "model.skan")]
    command += ["--set", "image_size=32", *COMMANDS[option]]
    if "--model" not in command:
        command += ["--model", "filterbank"]
    if "--scorer" not in command and option != "--model nobody":
        command += ["--scorer", "knn"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code in (1, 2), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    typed = COMMANDS[option][-1].partition("=")[0].rpartition("__")[2]
    assert typed.strip("-") in done.output, done.output
    assert not (here / "model.skan").exists()


@pytest.mark.parametrize("row", TABLE.params())
def test_row(row, tmp_path):
    row.check(tmp_path)
