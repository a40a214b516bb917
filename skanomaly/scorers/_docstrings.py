"""What the docstrings of several scorers say alike, for :func:`skanomaly._docstrings.document`."""

from __future__ import annotations

SCORER_DOCS = {
    "topk": """
        topk : float or int, default=0.01
            For ``aggregation="topk_mean"``: the share, in (0, 1], or the number of highest patch
            scores.
        """,
    "aggregation": """
        aggregation : {"topk_mean", "max", "mean"} or float, default="topk_mean"
            From patch scores to the image score; a float in [0, 1] is a quantile.
        """,
    "contamination": """
        contamination : float, default=0.1
            Share of normal images the threshold may flag, in (0, 0.5].
        """,
    "tokens": """
        X : array-like
            Patch tokens, in any form of :meth:`fit` but views.
        """,
    "y": """
        y : array-like of shape (n_images,), optional
            +1 for normal, -1 for anomalous images. Anomalous images never enter the model. Other
            numbers, such as 0 and 1, are ignored with a warning that names them; -1 beside them,
            bools, text and missing labels are errors.
        """,
    "groups": """
        groups : array-like of shape (n_images,), optional
            A label for each image, such as the number of the part it shows; any hashable. Images
            of one group, as a burst of photographs of one part is, are held out together. Through
            a Pipeline: ``pipe.fit(X, scorer__groups=groups)`` with the step's name, or metadata
            routing. None: each image is one of its own.
        """,
    "train_scores_": """
        train_scores_ : ndarray of shape (n_images,)
            Held-out scores of the training images, as from `score_samples`.
        """,
    "train_scores_bounded": """
        train_scores_ : ndarray of shape (n_calibration_images,)
            Held-out scores of the training images, as from `score_samples`: of all images up to
            2**17 patches, beyond that of images at even steps.
        """,
    "offset_": """
        offset_ : float
            The `contamination` quantile of `train_scores_`.
        """,
    "calibration_": """
        calibration_ : dict of str to object
            Where the threshold is from, in plain values. `kind`: "contamination", the share of the
            training images' held-out scores; "images", that of other good images; "threshold" or
            "cost", a number that was given or tuned; "auto", one that needs no image.
            `contamination`: the share, or None. `n_images`, `n_groups`: how many are calibrated
            on. `n_resting_on`: if not 0, so many images score far below all others, and the
            threshold depends on them alone. See :func:`skanomaly.recalibrate`.
        """,
    "patch_limits_": """
        patch_limits_ : tuple of float
            ``(low, high)`` of held-out patch scores: `low` is their 95% quantile, `high` the 90%
            quantile of the images' highest ones, plus ``(that - low) / n_images``. Heat maps are
            clear up to `low` and in full colour from `high` on; see
            :func:`skanomaly.inspection.color_limits`.
        held_out_patches_ : list of ndarray of shape (grid_h, grid_w), float32
            Held-out patch scores of the training images that `train_scores_` has; NaN for masked
            patches.
        """,
    "features_in": """
        n_features_in_ : int
            Dimension of a token.
        feature_names_in_ : ndarray of shape (`n_features_in_`,)
            Only where `X` is a DataFrame with string column names.
        """,
}
