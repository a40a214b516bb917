"""Embedding: torch in float32, torch's own ways to bfloat16, and the embedders' runtimes.

    python -m benchmarks.embedding [--side 448] [--threads 1 2] [--openvino] [--int8] [--json FILE]
    python -m benchmarks.embedding --clip ViT-B-16 --side 224 [...]
    python -m benchmarks.embedding --weights VIT_TINY.safetensors --data ROOT [ROOT ...]

The first form times a DINOv2 ViT-S/14 of random weights, its layer scales set to 1, because at
their initial 1e-5 the blocks would hardly count. Ours are timed from uint8 images to NumPy tokens,
the others for the forward pass alone. The second does that with a model of open_clip. The third
shows what the precision does to the metrics of an evaluation.
"""

import argparse
import copy
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks._timing import interleave, machine, print_table, write_json
from skanomaly.datasets import make_surfaces

_GOAL = 2e-5  # median of 1 - cosine to float32 in bfloat16


def save_weights(folder):
    """A file of ViT-S/14 weights that make every block count."""
    import timm
    import torch

    torch.manual_seed(0)
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    for name, tensor in state.items():
        if name.endswith("gamma"):
            tensor.fill_(1.0)
    path = Path(folder) / "vits14.pth"
    torch.save(state, path)
    return path


def plain_model(path, side):
    import timm
    import torch

    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, dynamic_img_size=True)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval().requires_grad_(False)


def gemm_ceiling(dtype, n=2048):
    """GFLOP/s of a matrix product in a precision, with torch's threads."""
    import torch

    a = torch.randn(n, n).to(dtype)
    clock = time.perf_counter if torch.get_num_threads() > 1 else time.process_time
    best = interleave({"gemm": lambda: a @ a}, repeats=5, clock=clock)["gemm"]["min"]
    return 2 * n**3 / best / 1e9


def flops(side, dim=384, depth=12, patch=14):
    n = (side // patch) ** 2 + 1
    return depth * (24 * n * dim * dim + 4 * n * n * dim) + 2 * (n - 1) * 3 * patch**2 * dim


def contenders(path, images, options):
    """Functions from nothing to (n, patches, dim) float32 tokens, by name."""
    import torch

    from skanomaly import DinoV2Patches

    side, n = images.shape[1], len(images)
    model = plain_model(path, side)
    low = copy.deepcopy(model).bfloat16()
    embedders = {
        f"ours, {name}": DinoV2Patches(
            image_size=side, weights=path, device="cpu", runtime=runtime, dtype=dtype, batch_size=n
        )
        for name, (runtime, dtype) in our_forms(options).items()
    }
    # DINOv2's own rule for the position embedding, in all of them: baked in for this size.
    from skanomaly._networks.dinov2 import interpolate_position_embedding

    grid = (side // 14, side // 14)
    for module in (model, low):
        module.pos_embed.data = interpolate_position_embedding(module.pos_embed.data, grid)
        module.patch_embed.grid_size = grid
    loaded = next(iter(embedders.values()))._model()
    x = loaded.preprocessing.normalise(images, torch.device("cpu"))

    def run(module, x):
        with torch.inference_mode():
            return module.forward_features(x)[:, 1:].float().numpy()

    def autocast():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return model.forward_features(x)[:, 1:].float().numpy()

    functions = {
        "torch float32": lambda: run(model, x),
        "torch autocast bfloat16": autocast,
        "torch model.bfloat16()": lambda: run(low, x.bfloat16()),
    }
    for name, embedder in embedders.items():
        functions[name] = lambda e=embedder: e._embed_batch(images).reshape(n, -1, 384)
    return functions


def our_forms(options):
    """Runtime and precision of each of ours, by name: bfloat16 where the processor has it."""
    from skanomaly._networks.runtimes import native_bfloat16

    forms = {"torch float32": ("torch", "float32")}
    if native_bfloat16("cpu"):
        forms["torch bfloat16"] = ("torch", "bfloat16")
    if options.openvino:
        forms["OpenVINO float32"] = ("openvino", "float32")
    if options.openvino and native_bfloat16("cpu"):
        forms["OpenVINO bfloat16"] = ("openvino", "bfloat16")
    if options.int8:
        forms["ONNX Runtime int8"] = ("onnx", "int8")
    return forms


def clip_contenders(images, options):
    """As `contenders`, of a vision transformer of open_clip with random weights."""
    import torch

    from skanomaly import OpenClipPatches

    embedders = {
        name: OpenClipPatches(
            options.clip,
            weights="random",
            image_size=images.shape[1],
            device="cpu",
            runtime=runtime,
            dtype=dtype,
            batch_size=len(images),
        )
        for name, (runtime, dtype) in our_forms(options).items()
    }
    model = next(iter(embedders.values()))._model()
    x = model.preprocessing.normalise(images, torch.device("cpu"))
    visual = model.sized(*x.shape[-2:])

    def forward():
        with torch.inference_mode():
            return visual.forward_intermediates(
                x, 1, intermediates_only=True, output_fmt="NLC", normalize_intermediates=True
            )["image_intermediates"][0].numpy()

    shape = forward().shape
    functions = {"torch float32": forward}
    for name, embedder in embedders.items():
        functions[f"ours, {name}"] = lambda e=embedder: e._embed_batch(images).reshape(shape)
    return functions


def median_deviation(tokens, reference):
    tokens, reference = tokens.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(reference, axis=-1)
    return float(np.median(1 - (tokens * reference).sum(-1) / norms))


def measure_speed(options, n_threads, path):
    import torch

    torch.set_num_threads(n_threads)
    n = 1 if n_threads == 1 else 2 * n_threads
    clock = time.process_time if n_threads == 1 else time.perf_counter
    images = np.stack(make_surfaces(n, image_size=options.side, random_state=5).images)
    clip = options.clip is not None
    functions = clip_contenders(images, options) if clip else contenders(path, images, options)
    first, deviations, reference = {}, {}, None
    for name, function in functions.items():
        start = time.perf_counter()
        tokens = function()
        first[name] = time.perf_counter() - start
        reference = tokens if reference is None else reference
        deviations[name] = median_deviation(tokens, reference)
        if "ours" in name and "bfloat16" in name and not deviations[name] <= _GOAL:
            raise SystemExit(f"{name} deviates from float32 by {deviations[name]:.1e}")
    times = interleave(functions, options.repeats, clock=clock)
    base = times["torch float32"]["median"]
    ceiling = gemm_ceiling(torch.bfloat16)
    rows = [
        {
            "runtime": name,
            "ms an image": 1e3 * result["median"] / n,
            "times torch float32": base / result["median"],
            **({} if clip else {"GFLOP/s": flops(options.side) * n / result["median"] / 1e9}),
            "median 1 - cos": deviations[name],
            "first call, s": first[name],
        }
        for name, result in times.items()
    ]
    print_table(f"{options.side} px, {n_threads} thread(s), batches of {n}", rows)
    print(f"\nbfloat16 GEMM {ceiling:.0f} GFLOP/s, float32 {gemm_ceiling(torch.float32):.0f}")
    return {"threads": n_threads, "bfloat16_gemm_gflops": ceiling, "rows": rows}


def measure_metrics(options):
    """Metrics of ViT-Tiny, block 5, nearest patches, by precision."""
    from sklearn.pipeline import Pipeline

    from skanomaly import PatchKNNScorer, TimmPatches, evaluate_split
    from skanomaly.datasets import read_dataset

    forms = {"torch float32": ("torch", "float32"), **our_forms(options)}
    rows = []
    for root in options.data:
        split = read_dataset(root)
        for name, (runtime, dtype) in forms.items():
            embedder = TimmPatches(
                "vit_tiny_patch16_224",
                layers=5,
                weights=options.weights,
                device="cpu",
                runtime=runtime,
                dtype=dtype,
            )
            pipe = Pipeline([("emb", embedder), ("knn", PatchKNNScorer())])
            metrics = evaluate_split(pipe, split).metrics
            wanted = ("image_auroc", "pixel_auroc", "aupro_0.3", "aupro_0.05")
            known = {key: f"{metrics[key]:.4f}" for key in wanted if key in metrics}
            rows.append({"data": Path(root).name, "precision": name, **known})
    print_table("ViT-Tiny/16, block 5, nearest patches", rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=448)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clip", help="a vision transformer of open_clip instead of DINOv2")
    parser.add_argument("--openvino", action="store_true", help="also through OpenVINO")
    parser.add_argument("--int8", action="store_true", help="also in int8, by ONNX Runtime")
    parser.add_argument("--weights", help="vit_tiny_patch16_224.safetensors, for --data")
    parser.add_argument("--data", nargs="+", help="folders to evaluate on, instead of the timing")
    parser.add_argument("--json", help="file for the result")
    options = parser.parse_args()
    if options.data:
        write_json(options.json, {"metrics": measure_metrics(options)})
        return
    warnings.filterwarnings("ignore", module="torch")
    result = {
        "machine": machine(("torch", "timm", "openvino", "onnxruntime")),
        "side": options.side,
    }
    print(result["machine"])
    with tempfile.TemporaryDirectory() as folder:
        path = save_weights(folder)
        result["runs"] = [measure_speed(options, n, path) for n in options.threads]
    print(f"\nload {os.getloadavg()[0]:.1f}")
    write_json(options.json, result)


if __name__ == "__main__":
    main()
