"""The page on exact metrics: its plain loops give what the package and scikit-learn give."""

import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from skanomaly.metrics import pixel_metrics

PAGE = Path(__file__).parents[2] / "docs/development/metrics.md"


@pytest.fixture(scope="module")
def plain_metrics():
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["plain_metrics"]


def drawn(kind, seed):
    """Masks and maps of three images, of which one is good."""
    rng = np.random.default_rng(seed)
    maps = [rng.random(size) for size in ((9, 7), (6, 8), (5, 5))]
    masks = [rng.random(heat_map.shape) < 0.2 for heat_map in maps[:2]] + [np.zeros((5, 5), bool)]
    raised = 0.3
    if kind == "ties":  # of defect pixels with normal ones too
        maps, raised = [np.floor(6 * heat_map) for heat_map in maps], 1
    return masks, [heat_map + raised * mask for heat_map, mask in zip(maps, masks, strict=True)]


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["floats", "ties"])
def test_plain_loops(plain_metrics, kind, limit):
    for seed in range(5):
        masks, maps = drawn(kind, seed)
        expected = plain_metrics([m.tolist() for m in masks], [m.tolist() for m in maps], limit)
        found = pixel_metrics(masks, maps, max_fpr=limit)
        assert found["pixel_f1_threshold"] > 0
        # Sums of some hundred numbers of at most 1.
        assert found[f"aupro_{limit:g}"] == pytest.approx(expected.pop("aupro"), abs=1e-12)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-12), name
        labels = np.concatenate([mask.ravel() for mask in masks])
        scores = np.concatenate([heat_map.ravel() for heat_map in maps])
        auroc, precision = roc_auc_score(labels, scores), average_precision_score(labels, scores)
        assert expected["pixel_auroc"] == pytest.approx(auroc, abs=1e-12)
        assert expected["pixel_average_precision"] == pytest.approx(precision, abs=1e-12)
