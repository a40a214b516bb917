"""Image metrics against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skanomaly.metrics import image_auroc, image_average_precision, image_f1_max

METRICS = [image_auroc, image_average_precision, image_f1_max]
cases = st.lists(
    st.tuples(st.sampled_from([-1, 1]), st.integers(-4, 4)), min_size=2, max_size=15
).filter(lambda pairs: len({y for y, _ in pairs}) == 2)


def _curve(y, scores):
    """(threshold, precision, recall) for every distinct score as a threshold, by counting."""
    for t in sorted(set(scores)):
        called = [label for label, s in zip(y, scores, strict=True) if s <= t]
        hits = sum(label == -1 for label in called)
        yield t, hits / len(called), hits / sum(label == -1 for label in y)


@settings(deadline=None)
@given(cases)
def test_against_loops(pairs):
    y, scores = zip(*pairs, strict=True)
    normal = [s for label, s in pairs if label == 1]
    anomalous = [s for label, s in pairs if label == -1]
    wins = sum((a < b) + 0.5 * (a == b) for a in anomalous for b in normal)
    assert image_auroc(y, scores) == pytest.approx(wins / len(normal) / len(anomalous), abs=1e-12)
    expected, before = 0.0, 0.0
    for _, precision, recall in _curve(y, scores):
        expected, before = expected + (recall - before) * precision, recall
    assert image_average_precision(y, scores) == pytest.approx(expected, abs=1e-12)
    f1, threshold = image_f1_max(y, scores)
    by_threshold = {t: 2 * p * r / (p + r) if p + r else 0 for t, p, r in _curve(y, scores)}
    assert f1 == pytest.approx(max(by_threshold.values()), abs=1e-12)
    assert by_threshold[threshold] == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_undefined_is_an_error(metric):
    for y in ([1, 1], [-1, -1]):
        with pytest.raises(ValueError, match="undefined: y_true needs normal"):
            metric(y, [0.1, 0.2])
    with pytest.raises(ValueError, match="NaN or infinity"):
        metric([1, -1], [0.1, np.nan])
    with pytest.raises(ValueError, match=r"\+1 \(normal\) and -1"):
        metric([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="inconsistent"):
        metric([1, -1], [0.1, 0.2, 0.3])
