"""Held-out patch scores of training images by cross-fitting."""

import numpy as np

from skanomaly.core.calibration import calibration_folds


def cross_fit(tokens, n_folds, fit_model, score_model):
    """Score every training image with a model that has not seen it.

    Parameters
    ----------
    tokens : PatchTokens
        Training images, views included.
    n_folds : int
        At most this many models are fitted, each without one fold of the images (with all their
        views). Of a single image, one view or quarter after the other is held out instead.
    fit_model : callable
        ``fit_model(tokens) -> model``.
    score_model : callable
        ``score_model(model, tokens) -> patch scores``, one float64 a row of `tokens`.

    Returns
    -------
    ndarray of shape (n_rows,), float64
        Held-out scores of the rows of ``tokens.select_view(0)``.
    """
    base = tokens.select_view(0)
    scores = np.full(len(base.values), np.nan)
    if tokens.n_images == 1:
        for train, held_out in _parts_of_one_image(tokens):
            scores[held_out] = score_model(fit_model(train), base)[held_out]
        return scores
    folds = calibration_folds(tokens.n_images, n_folds)
    fold_of_row = folds[base.image_of_row()]
    for fold in range(folds.max() + 1):
        model = fit_model(tokens.select(np.flatnonzero(folds != fold)))
        held_out = base.select(np.flatnonzero(folds == fold))
        scores[fold_of_row == fold] = score_model(model, held_out)
    return scores


def _parts_of_one_image(tokens):
    """(tokens without a part, rows of that part) for the parts of a single image."""
    n_rows = len(tokens.values) // tokens.n_views
    if tokens.n_views > 1:
        rows = np.arange(len(tokens.values)) < n_rows
        parts = [(tokens.mask(rows), np.ones(n_rows, dtype=bool))]
    else:
        quarter = _quarters(tokens.grids[0])
        present = np.unique(quarter[tokens.valid])
        if len(present) < 2:
            raise ValueError(
                "cannot calibrate on n_samples = 1 image with patches in one quarter of it alone: "
                "nothing can be held out; give more normal images"
            )
        parts = [(tokens.mask(quarter == part), quarter == part) for part in present]
    return parts


def _quarters(grid):
    """Quarter of each patch, row by row: the quadrants of a grid, else four runs of patches."""
    if len(grid) != 2:
        n_patches = int(np.prod(grid))
        return np.arange(n_patches) * 4 // n_patches
    rows, columns = (np.arange(side) * 2 // side for side in grid)
    return (2 * rows[:, None] + columns).ravel()
