"""An explanation in plain sentences, for people who look at parts and not at numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from skanomaly.core.explanations import Component
from skanomaly.inspection import Explanation

_MOST = 2  # of the differences that are told: the further ones mostly repeat them
_ROWS = ("upper", "", "lower")
_COLUMNS = ("left", "", "right")

# How the names of filter_bank_names() begin, and what a patch is where the component is higher, and
# lower, than in good parts.
_TOLD = (
    (r"mean luma", "brighter", "darker"),
    (r"mean red-green", "redder", "greener"),
    (r"mean yellow-blue", "yellower", "bluer"),
    (r"contrast of luma", "more uneven brightness", "more even brightness"),
    (r"contrast of ", "more uneven colour", "more even colour"),
    (r"luma edge", "stronger edges", "weaker edges"),
    (r"\S+ edge", "stronger edges between colours", "weaker edges between colours"),
    (r"dark line", "more dark lines", "fewer dark lines"),
    (r"bright line", "more bright lines", "fewer bright lines"),
    (r"greener spot", "more greenish specks", "fewer greenish specks"),
    (r"bluer spot", "more bluish specks", "fewer bluish specks"),
    (r"redder spot", "more reddish specks", "fewer reddish specks"),
    (r"yellower spot", "more yellowish specks", "fewer yellowish specks"),
)


def plain_sentences(found: Explanation) -> list[str]:
    """What an explanation says, without numbers.

    Parameters
    ----------
    found : Explanation
        From :func:`skanomaly.explain`.

    Returns
    -------
    list of str
        First where the patch is; then what it differs from or looks like, as the scorer has it.
    """
    sentences = [f"Most unusual spot: {place_in_words(found)}."]
    if found.members:
        sentences.append(
            f"Of the scorers joined in this detector, {found.members[0].name} counts most."
        )
    if found.neighbors:
        sentences.append("Even the most similar spot of the good training images looks different.")
    if found.components:
        sentences.append(_differences(found.components))
    if found.prompts:
        nearest = found.prompts[0]
        of = "a defect" if nearest.kind == "anomaly" else "a good part"
        sentences.append(f"Of all descriptions, that of {of} fits best: “{nearest.text}”.")
    return sentences


def place_in_words(found: Explanation) -> str:
    """Where in the image the explained patch is.

    Parameters
    ----------
    found : Explanation
        From :func:`skanomaly.explain`.

    Returns
    -------
    str
        Such as ``"upper right"`` or ``"centre"``: by thirds of the image.
    """
    x, y, width, height = found.box
    rows, columns = found.size
    row = _ROWS[min(2, int(3 * (y + height / 2) / rows))]
    column = _COLUMNS[min(2, int(3 * (x + width / 2) / columns))]
    if not (row or column):
        return "centre"
    return " ".join(filter(None, [row, column])) if row and column else f"{row or column} centre"


def _differences(components: Sequence[Component]) -> str:
    """The first few that have words, of those that add to the distance."""
    told: list[str] = []
    for entry in components:
        for start, more, less in _TOLD:
            if entry.contribution > 0 and re.match(start, entry.name):
                words = more if entry.deviation > 0 else less
                if words not in told:
                    told.append(words)
                break
    if not told:
        return "It differs from good parts in features of the network that have no names."
    text = " and ".join(told[:_MOST])
    return f"{text[0].upper()}{text[1:]} than in good parts here."
