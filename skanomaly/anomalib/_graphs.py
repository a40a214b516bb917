"""What anomalib's exported graphs share, whatever runs them: sizes, batches, unclipped scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._images import resize_image
from skanomaly._warn import warn_user
from skanomaly.anomalib._files import Backend, uncrop
from skanomaly.anomalib._old_files import foreign_graph
from skanomaly.anomalib._raw_scores import (
    Graph,
    Normalization,
    find_normalization,
    find_resize,
    threshold_of,
)

if TYPE_CHECKING:
    from skanomaly._typing import FloatArray

OUTPUTS = ("pred_score", "anomaly_map")


class GraphBackend(Backend):
    """What graphs share: resizing, batches, normalised and unclipped outputs.

    Parameters
    ----------
    path : pathlib.Path
        Of the graph, for messages.
    graph : Graph
        Its nodes.
    input_name : str
        Of its only input.
    input_shape : list of (int or None)
        Batch, channels, height, width; None where any will do.
    map_shape : list of (int or None) or None
        Of the anomaly map.
    interpolation : tuple
        The filter that is asked for, or None for the graph's own, and the filter where the graph
        has none.
    """

    def __init__(
        self,
        path: Path,
        graph: Graph,
        input_name: str,
        input_shape: list[int | None],
        map_shape: list[int | None] | None,
        interpolation: tuple[str | None, str],
    ) -> None:
        if len(input_shape) != 4 or input_shape[1] not in (3, None):
            raise ValueError(
                f"{path} takes an input of shape {input_shape}, not RGB images of shape "
                "(n, 3, height, width): it is not an export of anomalib"
            )
        self.path, self.batch = path, input_shape[0]
        step = find_resize(graph, input_name)
        candidates: list[Any] = [input_shape[2:], step.size if step else (), (map_shape or ())[-2:]]
        self.size: tuple[int, int] | None = next(
            (tuple(c) for c in candidates if len(c) == 2 and None not in c), None
        )
        asked, default = interpolation
        self.interpolation = asked or (step.interpolation if step else default)
        self.frame = step.size if step is not None and step.cropped else None
        self.one_by_one = False
        if self.frame is not None:
            warn_user(
                f"{path}: this model sees the centre of an image only, a crop from "
                f"{self.frame[0]} x {self.frame[1]} pixels; defects outside of it are not found, "
                "and its maps show their lowest value there"
            )

    def _infer(self, batch: FloatArray, normalized: bool) -> list[Any]:
        """Outputs of a float32 array of shape (n, 3, h, w): the score's, and the map's or None."""
        raise NotImplementedError

    def predict(
        self, images: list[FloatArray], normalized: bool = False
    ) -> tuple[list[FloatArray] | None, FloatArray]:
        """Maps and scores of one batch of images, as :meth:`Backend.predict` says."""
        inputs = [self._prepare(image) for image in images]
        maps: list[FloatArray] = []
        scores = []
        start = 0
        while start < len(inputs):
            stop = start + 1  # as many as the graph takes in one go
            while (
                stop < len(inputs)
                and stop - start != (1 if self.one_by_one else self.batch)
                and inputs[stop].shape == inputs[start].shape
            ):
                stop += 1
            batch = np.stack(inputs[start:stop])
            if self.batch:
                batch = np.concatenate([batch, np.repeat(batch[-1:], self.batch - len(batch), 0)])
            score, heat = self._infer(batch, normalized)
            n = stop - start
            if heat is not None:
                heat = np.asarray(heat, dtype=np.float32)
                heat = heat.reshape(len(batch), *heat.shape[-2:])[:n]
                maps += [uncrop(one, self.frame) if self.frame else one for one in heat]
            score = heat.max(axis=(1, 2)) if score is None else score.reshape(len(batch), -1)[:n, 0]
            scores.append(np.asarray(score, dtype=np.float64))
            start = stop
        return maps or None, np.concatenate(scores)

    def _prepare(self, image: FloatArray) -> FloatArray:
        """(3, h, w) float32 in [0, 1]; resized in floating point, as in training."""
        if image.dtype == np.uint8:
            image = image.astype(np.float32) / 255
        if self.size is not None:
            image = resize_image(image, self.size, self.interpolation, clip=False)
        return np.ascontiguousarray(np.moveaxis(image, 2, 0))

    def _choose_outputs(
        self, graph: Graph, names: list[str]
    ) -> tuple[list[str | None], list[str | None], list[Normalization | None]]:
        """Names of the tensors to ask for, normalised and unclipped, and what relates them."""
        if not set(names) & set(OUTPUTS):
            raise ValueError(foreign_graph(self.path, names))
        outputs = [name if name in names else None for name in OUTPUTS]
        found = [find_normalization(graph, name) if name else None for name in outputs]
        self.unclipped = all(f is not None for name, f in zip(outputs, found, strict=True) if name)
        if "pred_label" in names and not (found[0] and found[0].source == "pred_score"):
            self.normalized_threshold = threshold_of(graph, "pred_label")
        sources = [f.source if f else None for f in found]
        return outputs, sources if self.unclipped else outputs, found

    def _try_out(self, found: list[Normalization | None]) -> None:
        """Compare unclipped scores of a test image with the graph's own; read the threshold."""
        size = self.size or (224, 224)
        image = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
        image[: size[0] // 2] = 0.4 + 0.2 * image[: size[0] // 2].round(1)
        shown = self.predict([image], normalized=True)
        if self.unclipped:
            # Both in the order of OUTPUTS, which is the order of `found`.
            before = reversed(self.predict([image]))
            for values, own, f in zip(before, reversed(shown), found, strict=True):
                if f is not None and f.source not in OUTPUTS:
                    values, own = np.asarray(values, np.float64), np.asarray(own, np.float64)
                    scaled = f.scale * values + f.shift
                    self.unclipped &= bool(
                        np.allclose(np.clip(scaled, 0, 1), own, atol=1e-3)
                        or np.array_equal(np.sign(scaled - 0.5) / 2 + 0.5, own)  # a range of 0
                        or np.array_equal(values, own)  # no range known
                    )
        self.one_by_one = self.batch != 1 and not self._same_in_any_batch(image)
        score, limit = found[0], self.normalized_threshold
        if not self.unclipped:
            self.threshold = limit
            warn_user(
                f"{self.path} gives anomalib's normalised scores only, clipped to [0, 1]: images "
                "with the same score cannot be ranked, and a threshold at 1 flags nothing. For raw "
                "scores give the .ckpt, or export the model with "
                "PostProcessor(enable_normalization=False)"
            )
        elif limit is not None and score is not None and score.scale > 0:
            self.threshold = (limit - score.shift) / score.scale

    def _same_in_any_batch(self, image: FloatArray) -> bool:
        """Whether the score of an image does not depend on the others of its batch.

        It does in CFlow; and some graphs, though they declare batches of any size, fail on them.
        """
        images = [image, 1 - image[::-1] ** 2]
        try:
            together = self.predict(images)[1]
        except ValueError:
            return False
        alone = np.concatenate([self.predict([one])[1] for one in images])
        return bool(np.allclose(together, alone, rtol=1e-4, atol=1e-8))


def run_error(path: Path, batch: FloatArray, exc: Exception) -> ValueError:
    """What to raise when an input cannot be run."""
    reason = " ".join(str(exc).split())[:300]
    return ValueError(f"{path} cannot be run on an input of shape {batch.shape}: {reason}")
