"""Why an image was flagged: its worst patch, and the normal patch that is nearest to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from skanomaly._pipelines import split_detector
from skanomaly.inspection._explain import explained, explains, regions_of
from skanomaly.report._thumbnails import crop, photograph
from skanomaly.report._why_words import plain_sentences

Why = dict[str, Any]


def explanations(estimator: Any, images: Sequence[Any], chosen: Sequence[int]) -> dict[int, Why]:
    """What the scorer says of the worst patch of some images.

    Parameters
    ----------
    estimator : Pipeline or detector
        Fitted.
    images : sequence of images
        All of them.
    chosen : sequence of int
        Numbers of those that are explained.

    Returns
    -------
    dict of int to dict
        For each, `query`, a picture of its worst patch, `box`, where that is, in shares of the
        image, `says`, the explanation in plain sentences, and `lines`, that with numbers, where
        files have no folders but their own: the page is sent around. Of a scorer of nearest
        patches also `normal`, a picture of the nearest patch of the training images, or, where its
        file cannot be shown, `missing`, the reason. Empty for a scorer that does not explain its
        scores.
    """
    if not explains(split_detector(estimator).scorer):
        return {}
    calibration = regions_of(estimator)
    return {i: _why(explained(estimator, images[i], 1, calibration)[0], images[i]) for i in chosen}


def _why(found, image):
    x, y, width, height = found.box
    rows, columns = found.size
    out: Why = {
        "query": crop(photograph(image), found.box),
        "box": [x / columns, y / rows, width / columns, height / rows],
        "says": plain_sentences(found),
        "lines": list(
            replace(found, neighbors=tuple(map(_without_folders, found.neighbors))).lines()
        ),
        "normal": None,
        "missing": None,
    }
    if found.neighbors:
        near = found.neighbors[0]
        if near.path is not None and near.box is not None and near.problem is None:
            out["normal"] = crop(photograph(near.path), near.box)
        else:
            out["missing"] = near.problem or "the training image was given as no file"
    return out


def _without_folders(near):
    if near.path is None:
        return near
    folder, name = os.path.split(near.path)
    return replace(near, path=os.path.join(os.path.basename(folder), name))
