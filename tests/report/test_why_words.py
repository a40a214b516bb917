"""Explanations in plain sentences, of made explanations of every kind."""

import numpy as np
import pytest

from skanomaly.core.explanations import Component, Member, Prompt
from skanomaly.core.filter_bank import filter_bank_names
from skanomaly.inspection import Explanation, NearestPatch
from skanomaly.report._why_words import place_in_words, plain_sentences


def explanation(kind, box=(250, 10, 20, 20), **parts):
    image = np.zeros((200, 300, 3), dtype=np.uint8)
    place = {"size": (200, 300), "region": None, "row": 0, "column": 0, "grid": (4, 4)}
    return Explanation(kind=kind, image=image, box=box, score=3.0, **place, **parts)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((250, 10, 20, 20), "upper right"),
        ((0, 180, 20, 20), "lower left"),
        ((140, 90, 20, 20), "centre"),
        ((140, 0, 20, 20), "upper centre"),
        ((280, 100, 20, 20), "right centre"),
        ((0, 0, 300, 200), "centre"),
    ],
)
def test_place(box, words):
    assert place_in_words(explanation("neighbors", box)) == words


def test_components():
    names = ["mean red-green in 4 px", "mean luma in 4 px", "mean red-green in 8 px", "x"]
    parts = [
        Component(i, name, deviation, contribution)
        for i, (name, deviation, contribution) in enumerate(
            zip(names, (31.3, -4.0, 9.0, 2.0), (512.0, 16.0, 9.0, 4.0), strict=True)
        )
    ]
    assert plain_sentences(explanation("components", components=tuple(parts))) == [
        "Most unusual spot: upper right.",
        "Redder and darker than in good parts here.",
    ]
    (_, unknown) = plain_sentences(explanation("components", components=(parts[-1],)))
    assert "no names" in unknown


@pytest.mark.parametrize("name", filter_bank_names())
def test_each_channel_has_words_both_ways(name):
    said = {
        plain_sentences(explanation("components", components=(Component(0, name, d, 1.0),)))[1]
        for d in (-2.0, 2.0)
    }
    assert len(said) == 2 and all(text.endswith("than in good parts here.") for text in said)
    assert not any(letter.isdigit() for text in said for letter in text)


def test_other_kinds():
    near = NearestPatch(3, "/parts/good/3.png", 1, 0, (4, 4), 0.25)
    said = plain_sentences(explanation("neighbors", neighbors=(near,)))
    assert len(said) == 2 and "most similar" in said[1]
    prompts = (Prompt("a broken disc", "anomaly", 0.3), Prompt("a disc", "normal", 0.2))
    assert (
        "a defect fits best: “a broken disc”"
        in plain_sentences(explanation("prompts", prompts=prompts))[1]
    )
    assert "a good part fits" in plain_sentences(explanation("prompts", prompts=prompts[1:]))[1]
    member = Member("knn", 3.0, 2.0, 1.5)
    said = plain_sentences(explanation("members", members=(member,), neighbors=(near,)))
    assert len(said) == 3 and "knn" in said[1]
