"""The contenders of `benchmarks.peers`, each to be run in a process of its own.

Run as ``python -m benchmarks._peers`` with a JSON object on the standard input: `name`, `weights`,
`train` and `test` (paths), `y` (of the test images) and `folder` (for what is saved). It prints a
JSON object, and leaves the maps in `folder` as ``maps.npz``. Nothing but the standard library is
imported before the clock that measures imports starts.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import resource
import sys
import time
import warnings
from pathlib import Path

SIDE, BLOCK, BACKBONE = 224, 3, "vit_tiny_patch16_224"
NOMINAL = (0.05, 0.1)
_BATCH = 8


class Ours:
    """A pipeline of this package."""

    threshold = "nominal 10%"
    needs = ("skanomaly", "torch", "timm")
    refits = True

    def __init__(self, scorer, **params):
        self.scorer, self.params = scorer, params

    def fit(self, job, contamination):
        from sklearn.pipeline import make_pipeline

        import skanomaly

        share = {} if contamination is None else {"contamination": contamination}
        if self.scorer is None:  # one of the named models, which has its own scorers
            self.model = skanomaly.create_model(**self.params, **share)
        else:
            scorer = getattr(skanomaly, self.scorer)(**self.params, **share)
            self.model = make_pipeline(embedder_of(job), scorer)
        self.model.fit(job["train"])

    def score(self, job):
        from skanomaly import anomaly_maps

        maps, scores = anomaly_maps(self.model, job["test"], return_scores=True)
        return -scores, maps

    def flags(self, job, scores):
        from skanomaly._pipelines import offset_of, split_detector

        return scores > -offset_of(split_detector(self.model).scorer)

    def save(self, path):
        from skanomaly import save_model

        save_model(self.model, path)
        return 0


class Default(Ours):
    """The default of the command line: no torch."""

    needs = ("skanomaly",)


class Pooled:
    """A detector of one vector an image: the mean of its tokens, which our embedder makes."""

    refits = True

    def __init__(self, module, name, threshold, **params):
        self.module, self.name, self.threshold, self.params = module, name, threshold, params
        self.kept = {}
        self.needs = ("skanomaly", "torch", "timm", module)

    def fit(self, job, contamination):
        self.detector = self.detector_of(contamination)
        self.detector.fit(self.vectors(job, "train"))

    def vectors(self, job, part):
        if part not in self.kept:  # for the fits of the nominal shares, which are not timed
            tokens = embedder_of(job).fit_transform(job[part])
            self.kept[part] = tokens.mean(axis=(1, 2))
        return self.kept[part]

    def detector_of(self, contamination):
        """Behind standardized components, as is usual for these."""
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        nominal = {} if contamination is None else {self.share: contamination}
        detector = getattr(importlib.import_module(self.module), self.name)
        return make_pipeline(StandardScaler(), detector(**self.params, **nominal))

    def score(self, job):
        return self.scores_of(self.vectors(job, "test")), None

    def save(self, path):
        import joblib

        joblib.dump(self.detector, path)
        return 0


class Sklearn(Pooled):
    share = "contamination"

    def scores_of(self, vectors):
        return -self.detector.score_samples(vectors)

    def flags(self, job, scores):
        return scores > -self.detector[-1].offset_


class SklearnSVM(Sklearn):
    share = "nu"  # at most this share of the training images lies outside


class Pyod(Pooled):
    share = "contamination"

    def scores_of(self, vectors):
        return self.detector.decision_function(vectors)

    def flags(self, job, scores):
        return scores > self.detector[-1].threshold_


class Imgad(Pooled):
    def detector_of(self, contamination):
        """As in its own first example: behind vectors of unit length."""
        from imgad.detectors import build_detector
        from sklearn.preprocessing import Normalizer

        nominal = {} if contamination is None else {"threshold_quantile": 1 - contamination}
        self.unit = Normalizer()
        return build_detector(self.name, **self.params, **nominal)

    def vectors(self, job, part):
        return self.unit.fit_transform(super().vectors(job, part))

    def scores_of(self, vectors):
        return self.detector.score(vectors)

    def flags(self, job, scores):
        return scores > self.detector.threshold_


class Anomalib:
    """A model of anomalib, fitted and used by its own engine; the network is ours."""

    threshold = "best F1, with test labels"
    needs = ("torch", "timm", "anomalib.data", "anomalib.engine", "anomalib.models")
    refits = False  # it knows no nominal share

    def __init__(self, family, **params):
        self.family, self.params = family, params

    def fit(self, job, contamination):
        from anomalib.engine import Engine

        self.model = self.model_of(job)
        self.engine = Engine(
            accelerator="cpu", devices=1, logger=False, default_root_dir=job["folder"],
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        self.engine.fit(model=self.model, train_dataloaders=self.loader(job["train"]))

    def loader(self, paths):
        """Its own reading of files, one after the other: its data modules want defects too."""
        from anomalib.data import ImageBatch, PredictDataset
        from torch.utils.data import ConcatDataset, DataLoader

        files = ConcatDataset([PredictDataset(path) for path in paths])
        return DataLoader(files, batch_size=_BATCH, collate_fn=ImageBatch.collate)

    def model_of(self, job):
        import torch
        from anomalib import models
        from anomalib.pre_processing import PreProcessor
        from safetensors.torch import load_file
        from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize

        size = Resize((SIDE, SIDE), InterpolationMode.BICUBIC, antialias=True)
        prepare = PreProcessor(Compose([size, Normalize([0.5] * 3, [0.5] * 3)]))
        parts = {"pre_processor": prepare, "post_processor": False, "evaluator": False}
        torch.manual_seed(0)
        if self.family == "AnomalyDINO":
            model = self.dino(models, parts)
            network = model.model.feature_encoder.feature_extractor
        else:
            model = getattr(models, self.family)(
                backbone=BACKBONE, layers=[f"blocks.{BLOCK}"], pre_trained=False,
                visualizer=False, **parts, **self.params,
            )  # fmt: skip
            network = model.model.feature_extractor.feature_extractor
        network.load_state_dict(load_file(job["weights"]))
        self.backbone = sum(t.numel() * t.element_size() for t in network.state_dict().values())
        return model

    def dino(self, models, parts):
        """With another network than a DINOv2, which its constructor would download."""
        from anomalib.models.components.feature_extractors import TimmFeatureExtractor
        from anomalib.models.image.anomaly_dino import torch_model

        layer = f"blocks.{BLOCK}"
        extractor = TimmFeatureExtractor(
            BACKBONE, [layer], pre_trained=False, output_fmt="NLC", norm=True
        )
        torch_model.TimmFeatureExtractor = lambda **_: extractor
        model = models.AnomalyDINO(visualizer=False, **parts, **self.params)
        model.model.last_layer = layer
        return model

    def score(self, job):
        import numpy as np

        batches = self.engine.predict(model=self.model, dataloaders=self.loader(job["test"]))
        paths = [path for batch in batches for path in batch.image_path]
        assert paths == job["test"]
        scores = np.concatenate([batch.pred_score.numpy().ravel() for batch in batches])
        maps = np.concatenate([b.anomaly_map.numpy().reshape(-1, SIDE, SIDE) for b in batches])
        return scores, maps

    def flags(self, job, scores):
        """By its own threshold of the best F1, which is chosen on labelled images."""
        import numpy as np
        import torch
        from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold

        labels = torch.tensor(np.array(job["y"]) == -1).int()
        return scores > float(_F1AdaptiveThreshold()(torch.tensor(scores), labels))

    def save(self, path):
        self.engine.trainer.save_checkpoint(path)
        return self.backbone


_LOF = "sklearn.neighbors", "LocalOutlierFactor", "1.5 times the density"
CONTENDERS = {
    "ours, filterbank+tiny (default)": Default(None, name="filterbank+tiny"),
    "ours, PatchKNNScorer (AnomalyDINO)": Ours("PatchKNNScorer"),
    "ours, PatchKNNScorer (PatchCore)": Ours(
        "PatchKNNScorer", metric="euclidean", aggregation="max", coreset=0.1, reweighting=9,
        random_state=0,
    ),
    "ours, PatchGaussianScorer (PaDiM)": Ours(
        "PatchGaussianScorer", n_components=100, aggregation="max", random_state=0
    ),
    "ours, LocalKNNScorer": Ours("LocalKNNScorer"),
    "anomalib, AnomalyDINO": Anomalib("AnomalyDINO"),
    "anomalib, PatchCore": Anomalib("Patchcore", coreset_sampling_ratio=0.1),
    "anomalib, PaDiM": Anomalib("Padim", n_features=100),
    "scikit-learn, LocalOutlierFactor": Sklearn(*_LOF, novelty=True),
    "scikit-learn, IsolationForest": Sklearn(
        "sklearn.ensemble", "IsolationForest", "score 0.5", random_state=0
    ),
    "scikit-learn, OneClassSVM": SklearnSVM("sklearn.svm", "OneClassSVM", "nu 50%"),
    "PyOD, KNN": Pyod("pyod.models.knn", "KNN", "nominal 10%"),
    "PyOD, ECOD": Pyod("pyod.models.ecod", "ECOD", "nominal 10%"),
    "imgad, knn": Imgad("imgad", "knn", "nominal 5%"),
    "imgad, mahalanobis": Imgad("imgad", "mahalanobis", "nominal 5%"),
}  # fmt: skip


def embedder_of(job):
    """The tokens that all contenders but the default share."""
    from skanomaly import TimmPatches

    return TimmPatches(
        BACKBONE, weights=job["weights"], layers=BLOCK, image_size=SIDE, dtype="float32",
        device="cpu", batch_size=_BATCH,
    )  # fmt: skip


def measured(job):
    """All that is measured of one contender on one category."""
    contender = CONTENDERS[job["name"]]
    start = time.process_time()
    for module in contender.needs:
        importlib.import_module(module)
    imported = time.process_time() - start
    import numpy as np

    if "torch" in contender.needs:
        import torch

        torch.set_num_threads(1)
    start = time.process_time()
    contender.fit(job, None)
    fitted = time.process_time() - start
    start = time.process_time()
    scores, maps = contender.score(job)
    scored = time.process_time() - start
    peak = peak_mebibytes()
    saved = Path(job["folder"]) / "model"
    backbone = contender.save(saved)
    flags = {"own": contender.flags(job, scores).tolist()}
    for share in NOMINAL if contender.refits else ():
        contender.fit(job, share)
        flags[str(share)] = contender.flags(job, scores).tolist()
    if maps is not None:
        np.savez(Path(job["folder"]) / "maps.npz", *maps)
    return {
        "threshold": contender.threshold,
        "scores": np.asarray(scores, dtype=float).tolist(),
        "flags": flags,
        "import": imported,
        "fit": fitted,
        "score": scored,
        "peak": peak,
        "bytes": saved.stat().st_size,
        "backbone": backbone,
    }


def peak_mebibytes():
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the process was before it became this program
        lines = status.read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    job = json.load(sys.stdin)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.chdir(job["folder"])
    with contextlib.redirect_stdout(io.StringIO()):
        found = measured(job)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
