"""Checks of scorers and embedders, beside those of :mod:`sklearn.utils.estimator_checks`.

They check what scikit-learn does not know of: forms of tokens, masked patches, held-out scores,
signs, maps; views, batches and containers of images. Scorers get tokens of 6 components, embedders
photographs of 64 x 64 pixels and more, so that an estimator has to take these.

Each check is a function of one estimator, which it clones, and raises an AssertionError where the
estimator does not do what this package's Pipelines, maps and evaluations rely on.
"""

from __future__ import annotations

from skanomaly.estimator_checks._embedders import (  # noqa: F401
    EMBEDDER_CHECKS,
    check_embedder_augmentation,
    check_embedder_batches,
    check_embedder_bools,
    check_embedder_broken_images,
    check_embedder_changes,
    check_embedder_containers,
    check_embedder_grids,
    check_embedder_input,
    check_embedder_output,
    check_embedder_output_config,
    check_embedder_persistence,
    check_embedder_refusals,
)
from skanomaly.estimator_checks._mutual_scorers import (  # noqa: F401
    MUTUAL_SCORER_CHECKS,
    check_mutual_scorer_bools,
    check_mutual_scorer_forms,
    check_mutual_scorer_groups,
    check_mutual_scorer_keeps,
    check_mutual_scorer_maps,
    check_mutual_scorer_masks,
    check_mutual_scorer_mixed_grids,
    check_mutual_scorer_new_images,
    check_mutual_scorer_order,
    check_mutual_scorer_output,
    check_mutual_scorer_persistence,
    check_mutual_scorer_signs,
)
from skanomaly.estimator_checks._running import (
    check_estimator,
    checks_of,
    parametrize_with_checks,
)
from skanomaly.estimator_checks._scorers import (  # noqa: F401
    SCORER_CHECKS,
    check_patch_scorer_batches,
    check_patch_scorer_bools,
    check_patch_scorer_contamination,
    check_patch_scorer_forms,
    check_patch_scorer_groups,
    check_patch_scorer_input,
    check_patch_scorer_labels,
    check_patch_scorer_maps,
    check_patch_scorer_masks,
    check_patch_scorer_mixed_grids,
    check_patch_scorer_new_images,
    check_patch_scorer_not_finite,
    check_patch_scorer_output,
    check_patch_scorer_persistence,
    check_patch_scorer_return_scores,
    check_patch_scorer_signs,
    check_patch_scorer_training_images,
    check_patch_scorer_views,
    check_patch_scorer_writes,
)

# Each check can be imported by its name too.
__all__ = [
    "EMBEDDER_CHECKS",
    "MUTUAL_SCORER_CHECKS",
    "SCORER_CHECKS",
    "check_estimator",
    "checks_of",
    "parametrize_with_checks",
]
