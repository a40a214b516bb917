"""Draw the picture of the README again: ``python docs/_front.py``.

Photographs that are made, a detector that has seen good ones alone, and its heat maps.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from skanomaly import create_model
from skanomaly.datasets import make_surfaces
from skanomaly.inspection import AnomalyMapDisplay

PICTURE = Path(__file__).with_name("images") / "verdicts.png"


def draw(path: Path = PICTURE) -> None:
    """Write the picture: two good parts and three damaged ones, as they are and as they are seen.

    Parameters
    ----------
    path : Path
        A PNG file.
    """
    made = make_surfaces(32, 3, surface="disc", image_size=256, random_state=1)
    detector = create_model("filterbank+tiny", contamination=0.05).fit(made.images[:30])
    display = AnomalyMapDisplay.from_estimator(detector, made.images[30:], n_columns=5)
    display.figure_.savefig(path, dpi=72, bbox_inches="tight")


if __name__ == "__main__":
    draw()
