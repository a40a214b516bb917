"""What scorers and embedders of others build on.

The classes here are public: their methods, the hooks that their docstrings list (the one place
where names with an underscore are for others to implement), and what is said of each hook's
arguments, stay as they are within a major version. Everything else with an underscore may change.

:class:`CrossFittedScorer`
    For a scorer that fits a model to the patches of normal images. Implement ``_fit_model`` and
    ``_score_model``; held-out scores, the threshold, masks and every form of tokens come with it.
:class:`BasePatchScorer`
    For a scorer that has no such model, or makes its held-out scores in its own way. Implement
    ``_fit_tokens`` and ``_score_tokens``.
:class:`BasePatchEmbedder`
    For an embedder. Implement ``_embed_batch(images)``, which turns one uint8 or float32 batch of
    images (n_images, height, width, 3) into tokens (n_images, grid_h, grid_w, dim);
    ``_fingerprint()``, a dict of everything that the tokens depend on but the image, by which they
    are cached, and by which a fitted embedder, and the scorer after it, notice a change;
    ``_cell()``, the side of a patch in pixels; and ``_default_image_size()``. Where the components
    of its tokens have names, ``_component_names()`` lists them, for explanations.
:class:`PatchTokens`
    What a scorer is given: the tokens of several images, one a row, whatever their form was.
:class:`PatchExplanation`
    What a scorer says of one patch, where it implements ``_explain_row``: its nearest patches, each
    a :class:`NeighborPatch`, or what the components of its token add, each a :class:`Component`.

An estimator that is made of nothing of these works as well, as long as it does what
:mod:`skanomaly.estimator_checks` checks.

See Also
--------
skanomaly.estimator_checks : Checks of scorers and embedders.
skanomaly.registry.register_scorer : A scorer by its name.
"""

from __future__ import annotations

from skanomaly._patch_tokens import PatchTokens
from skanomaly.core.explanations import Component, NeighborPatch, PatchExplanation
from skanomaly.embedders._base import BasePatchEmbedder
from skanomaly.scorers._base import BasePatchScorer
from skanomaly.scorers._cross_fitted import CrossFittedScorer

__all__ = [
    "BasePatchEmbedder",
    "BasePatchScorer",
    "Component",
    "CrossFittedScorer",
    "NeighborPatch",
    "PatchExplanation",
    "PatchTokens",
]
