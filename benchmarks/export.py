"""Exported models against the pipeline, and against anomalib's exported PatchCore.

Run ``python -m benchmarks.export`` (some minutes). PatchCore is fitted on generated surfaces, and
anomalib's is given the same random weights of the backbone and the same coreset; speed depends on
neither. Both are exported to ONNX, anomalib's by its own engine and without its scaling of scores,
and run by ONNX Runtime on one thread, maps included, one image a call, from its uint8 pixels:
anomalib's graph takes float32 in [0, 1]. Before anything is timed, the scores of both are compared
with those of the pipeline. Time is that of the processor.
``--others`` times graphs of other pipelines against the pipelines, and shows what each file takes:
megabytes, the seconds of its export, and those of opening it in a session.
"""

import argparse
import contextlib
import io
import logging
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from threadpoolctl import threadpool_limits

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly import (
    FilterBankPatches,
    LocalKNNScorer,
    PatchGaussianScorer,
    PatchKNNScorer,
    TimmPatches,
    TinyPatches,
    anomaly_maps,
    create_model,
    export_model,
)
from skanomaly.datasets import make_surfaces

NEIGHBOURS = 9  # of PatchCore's weight of the highest score, in both


def patchcore(args):
    """PatchCore as a pipeline of ours, with the options of anomalib's."""
    return make_pipeline(
        TimmPatches(
            args.backbone,
            weights="random",
            layers=(2, 3),
            image_size=args.side,
            dtype="float32",
            device="cpu",
        ),
        PatchKNNScorer(
            metric="euclidean",
            aggregation="max",
            coreset=args.coreset,
            reweighting=NEIGHBOURS,
            random_state=0,
        ),
    )


def others(args):
    """Pipelines that need no network of torch."""
    return {
        "filter bank, Gaussians": make_pipeline(
            FilterBankPatches(image_size=args.side), PatchGaussianScorer()
        ),
        "tiny network, nearest patches": make_pipeline(
            TinyPatches(image_size=args.side), PatchKNNScorer(coreset=args.coreset)
        ),
        "tiny network, local": make_pipeline(TinyPatches(image_size=args.side), LocalKNNScorer()),
        "filterbank+tiny": create_model("filterbank+tiny", image_size=args.side),
    }


def share_or_number(text):
    """Of the patches that a coreset keeps: 0.1 is a share, 2000 a number."""
    return int(text) if text.isdigit() else float(text)


def session_of(path):
    """A session of ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def graph_of(pipe, path, images):
    """A function from an image to the outputs of the exported pipeline, by their names."""
    export_model(pipe, path, images=images)
    session = session_of(path)
    names = [output.name for output in session.get_outputs()]

    def run(image):
        return dict(zip(names, session.run(None, {"image": image[None]}), strict=True))

    return run


def anomalib_graph(args, folder, weights, bank):
    """A function from an image to the outputs of anomalib's exported PatchCore."""
    import torch
    from anomalib.engine import Engine
    from anomalib.models import Patchcore

    model = Patchcore(
        backbone=args.backbone,
        pre_trained=False,
        num_neighbors=NEIGHBOURS,
        pre_processor=Patchcore.configure_pre_processor((args.side, args.side)),
        post_processor=False,  # it would bring scores to [0, 1]
        evaluator=False,
    )
    network = model.model.feature_extractor.feature_extractor
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    model.model.memory_bank = torch.tensor(bank)
    engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=str(folder))
    # For one image of one size: for batches of any length the graph would take two images alone.
    file = engine.export(
        model, "onnx", export_root=folder, input_size=(args.side, args.side),
        onnx_kwargs={"dynamic_axes": None, "dynamic_shapes": None},
    )  # fmt: skip
    session = session_of(file)
    (name,) = (value.name for value in session.get_inputs())
    outputs = [value.name for value in session.get_outputs()]

    def run(image):
        x = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32) / 255
        return dict(zip(outputs, session.run(None, {name: x}), strict=True))

    return run


def deviation(run, pipe, images):
    """The largest relative difference of scores of a graph from those of its pipeline."""
    found = np.concatenate([run(image)["score"] for image in images])
    expected = pipe.score_samples(list(images))
    return float(np.abs(found / expected - 1).max())


def row(name, seconds, n_images, reference, compared):
    return {
        "model": name,
        "ms an image": 1000 * seconds["median"] / n_images,
        "images/s": n_images / seconds["median"],
        f"times {reference[0]}": reference[1]["median"] / seconds["median"],
        "difference of scores": compared,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet18", help="a residual network of timm")
    parser.add_argument("--side", type=int, default=256, help="of images and input, in pixels")
    parser.add_argument("--good", type=int, default=24, help="training images")
    parser.add_argument("--coreset", type=share_or_number, default=0.1)
    parser.add_argument("--images", type=int, default=4, help="images that are timed")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--others", action="store_true", help="without anomalib, other pipelines")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    made = make_surfaces(args.good + args.images, surface="fabric", image_size=args.side,
                         random_state=0)  # fmt: skip
    good, new = list(made.images[: args.good]), np.stack(made.images[args.good :])
    with threadpool_limits(1), tempfile.TemporaryDirectory() as name:
        measure = measure_others if args.others else measure_patchcore
        title, rows, seconds = measure(args, Path(name), good, new)
    print_table(title, rows)
    packages = ("anomalib", "torch", "onnxruntime", "timm")
    write_json(args.json, {"machine": machine(packages), "rows": rows, "seconds": seconds})


def measure_patchcore(args, folder, good, new):
    import torch

    torch.set_num_threads(1)
    pipe = patchcore(args).fit(good)
    ours = graph_of(pipe, folder / "ours.onnx", good)
    weights = pipe[0]._model().module.state_dict()
    bank = np.asarray(pipe[-1]._model.banks[0].index.bank, dtype=np.float32)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        theirs = anomalib_graph(args, folder, weights, bank)
    expected = pipe.score_samples(list(new))
    found = {
        "ours, graph": [float(ours(image)["score"][0]) for image in new],
        "anomalib, graph": [-float(np.ravel(theirs(image)["pred_score"])[0]) for image in new],
    }
    compared = {name: float(np.abs(found[name] / expected - 1).max()) for name in found}
    assert compared["ours, graph"] < 1e-4 and compared["anomalib, graph"] < 1e-3, compared
    maps = np.concatenate([ours(image)["anomaly_map"] for image in new])
    assert np.abs(maps - anomaly_maps(pipe, new)).max() < 1e-3 * np.ptp(maps)
    timed = interleave(
        {
            "ours, graph": lambda: [ours(image) for image in new],
            "anomalib, graph": lambda: [theirs(image) for image in new],
            "ours, pipeline": lambda: anomaly_maps(pipe, new, return_scores=True),
        },
        args.repeats,
        clock=time.process_time,
    )
    reference = "anomalib's graph", timed["anomalib, graph"]
    rows = [row(n, t, len(new), reference, compared.get(n, 0.0)) for n, t in timed.items()]
    title = f"PatchCore, {args.backbone}, {args.side} px, a bank of {len(bank)} patches"
    return title, rows, timed


def measure_others(args, folder, good, new):
    rows, seconds = [], {}
    for number, (name, pipe) in enumerate(others(args).items()):
        pipe.fit(good)
        path = folder / f"{number}.onnx"
        start = time.process_time()
        run = graph_of(pipe, path, good)
        written = time.process_time() - start
        opening = interleave({"": lambda path=path: session_of(path)}, clock=time.process_time)[""]
        written -= opening["median"]  # `graph_of` opens it too
        compared = deviation(run, pipe, new)
        assert compared < 1e-4, compared
        timed = interleave(
            {
                "graph": lambda run=run: [run(image) for image in new],
                "pipeline": lambda pipe=pipe: anomaly_maps(pipe, new, return_scores=True),
            },
            args.repeats,
            clock=time.process_time,
        )
        reference = "the pipeline", timed["pipeline"]
        rows.append(
            row(name, timed["graph"], len(new), reference, compared)
            | {"MB": path.stat().st_size / 1e6, "export, s": written}
            | {"session, s": opening["median"]}
        )
        seconds[name] = timed
    return f"Graphs and pipelines, images of {args.side} px", rows, seconds


if __name__ == "__main__":
    main()
