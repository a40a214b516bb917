"""What runs a network, in which precision, and how a batch goes through it."""

from __future__ import annotations

import copy
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skanomaly._networks.fast_vit import FastVit
from skanomaly._networks.loading import resolve_device
from skanomaly._networks.network import LoadedModel, Network
from skanomaly._networks.onnx import onnx_session
from skanomaly._networks.openvino import compiled_openvino
from skanomaly._optional import import_optional
from skanomaly.core.threads import map_threads, prepare_torch

if TYPE_CHECKING:
    import torch

RUNTIMES = ("auto", "torch", "openvino", "onnx")
DTYPES = ("auto", "float32", "bfloat16", "float16", "int8")
_DTYPES_OF = {
    "torch": ("float32", "bfloat16", "float16"),
    "openvino": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
}
# Raised whenever the numbers change that reduced precision gives: cached tokens depend on it.
_VERSION = 1
_LARGEST_HALF = 65504.0
_threads_are_shared_out = threading.Lock()


@dataclass(frozen=True)
class Plan:
    """How a network is run.

    Attributes
    ----------
    runtime : str
        ``"torch"``, ``"openvino"`` or ``"onnx"``.
    dtype : str
        ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"int8"``.
    device : torch.device
        Where inputs go.
    """

    runtime: str
    dtype: str
    device: torch.device

    @property
    def reduced(self) -> bool:
        """Whether the precision is less than that of float32."""
        return self.dtype != "float32"

    def fingerprint(self) -> dict[str, object]:
        """What tokens depend on; on the version of a runtime by no more than rounding."""
        parts: dict[str, object] = {"runtime": self.runtime, "dtype": self.dtype}
        if self.runtime != "torch":
            module = {"openvino": "openvino", "onnx": "onnxruntime"}[self.runtime]
            parts["runtime_version"] = import_optional(
                module, self.runtime, "this runtime"
            ).__version__
        return {**parts, "numbers": _VERSION} if self.reduced else parts


def runtime_device(runtime: str, device: str) -> torch.device:
    """Device on which the module lies: that asked for, and the CPU for what runs there alone.

    Parameters
    ----------
    runtime, device : str
        As given to the embedder.

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        When the device is unknown, or not for this runtime.
    """
    if runtime not in ("openvino", "onnx"):
        return resolve_device(device)
    chosen = resolve_device("cpu" if device == "auto" else device)
    if chosen.type != "cpu":
        raise ValueError(
            f"runtime={runtime!r} runs on the CPU; use device='cpu' or runtime='torch'"
        )
    return chosen


def make_plan(runtime: str, dtype: str, device: torch.device, plain: bool) -> Plan:
    """Resolve ``"auto"``.

    Parameters
    ----------
    runtime, dtype : str
        As given to the embedder. ``runtime="auto"`` is torch: to convert a model takes longer than
        to embed a few dozen images. ``dtype="auto"`` is bfloat16 where `plain` and where the
        hardware multiplies matrices in it, else float32.
    device : torch.device
        From :func:`runtime_device`.
    plain : bool
        Whether it is a plain vision transformer, which has a fast form.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        When the runtime does not have the precision.
    """
    runtime = "torch" if runtime == "auto" else runtime
    known = _DTYPES_OF[runtime]
    if dtype == "auto":
        native = "bfloat16" in known and native_bfloat16(str(device))
        dtype = "bfloat16" if native and plain else "float32"
    if dtype not in known:
        raise ValueError(
            f"dtype={dtype!r} is not for runtime={runtime!r}, which has {', '.join(known)}"
        )
    return Plan(runtime, dtype, device)


@lru_cache(maxsize=16)
def native_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster on a device than in float32.

    Parameters
    ----------
    device : str
        Such as ``"cpu"`` or ``"cuda:0"``.

    Returns
    -------
    bool
        Of a CPU, whether it is of x86-64 and has AVX512-BF16 or AMX-BF16; of a GPU, whether its
        compute capability is 8 or more. It is read off the hardware, never measured, so that one
        machine always gives the same tokens.
    """
    torch = import_optional("torch", "torch", "this embedder")
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    names = ("avx512_bf16", "amx_bf16")
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in names)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return any(name in flags for name in names)


def embed(network: Network, plan: Plan, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Tokens of a batch of images.

    Parameters
    ----------
    network : Network
        What to run.
    plan : Plan
        How.
    images : ndarray of shape (B, height, width, 3), uint8 or float32 in [0, 1]
        Of a size that the network takes.
    batch_size : int
        The most images of any batch.

    Returns
    -------
    ndarray of shape (B, grid_h, grid_w, dim), float32
        C-contiguous; those of reduced precision are rounded to that of float16.
    """
    torch = import_optional("torch", "torch", "this embedder")
    prepare_torch()
    with torch.inference_mode():
        x = network.preprocessing.normalise(images, plan.device)
        fused = network.fuse(run(network, plan, x, batch_size))
        tokens = fused.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return round_to_half(tokens) if plan.reduced else tokens


def run(network: Network, plan: Plan, x: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """Feature maps of a batch.

    Parameters
    ----------
    network : Network
        What to run.
    plan : Plan
        How to run it.
    x : torch.Tensor of shape (B, 3, height, width), float32
        Normalised images, on the device.
    batch_size : int
        The most images of any batch.

    Returns
    -------
    list of torch.Tensor of shape (B, dim, grid_h, grid_w), float32
        The maps of the network's forward pass.

    Notes
    -----
    The shape of a matrix product decides how its sums are rounded. So that an image has the same
    tokens in any batch, a CPU, which gains nothing from batches, embeds each image by itself,
    several of them side by side, and a GPU is always given batches of the same size in reduced
    precision.
    """
    torch = import_optional("torch", "torch", "this embedder")
    if plan.runtime == "openvino":
        return compiled_openvino(network, x.shape, plan.dtype, batch_size)(x)
    if plan.runtime == "onnx":
        return onnx_session(network, x.shape, plan.dtype)(x)
    forward = _torch_forward(network, plan)
    if plan.device.type == "cpu":
        each = _side_by_side(forward, x.split(1))
        # Of one image nothing is put together, which would copy it.
        return [torch.cat(one) for one in zip(*each, strict=True)] if len(each) > 1 else each[0]
    if not plan.reduced:
        return forward(x)
    padding = x[-1:].expand(max(0, batch_size - len(x)), -1, -1, -1)
    return [one[: len(x)] for one in forward(torch.cat([x, padding]))]


def _side_by_side(function: Callable[[Any], Any], images: Sequence[Any]) -> list[Any]:
    """Results of images, among which torch's threads are shared out.

    The limit of MKL, which multiplies in float32, is one of the process once it was set: where
    another call has it, the images come one after the other.
    """
    torch = import_optional("torch", "torch", "this embedder")

    def call(image: Any) -> Any:
        with torch.inference_mode():  # is of each thread
            return function(image)

    n_threads = torch.get_num_threads()
    n_streams = min(n_threads, len(images))
    if n_streams <= 1 or not _threads_are_shared_out.acquire(blocking=False):
        return [call(image) for image in images]
    share = n_threads // n_streams
    try:
        torch.set_num_threads(share)
        return map_threads(call, images, n_streams, share)
    finally:
        torch.set_num_threads(n_threads)
        _threads_are_shared_out.release()


def _torch_forward(network: Network, plan: Plan) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """Function from a batch to float32 maps."""
    torch = import_optional("torch", "torch", "this embedder")
    model, fast_forward = network.model, network.fast_forward
    if not plan.reduced:
        return lambda x: [m.float() for m in network.forward(model, x)]
    dtype = getattr(torch, plan.dtype)
    vit = model.plain_vit
    if fast_forward is not None and vit is not None and plan.device.type in ("cpu", "cuda"):
        fast = model.derived(_key_of_fast(plan), lambda: FastVit(vit, dtype))
        return lambda x: fast_forward(model, fast, x)

    def cast() -> LoadedModel:
        return replace(model, module=copy.deepcopy(model.module).to(dtype))

    low = model.derived(("cast", plan.dtype), cast)
    return lambda x: [m.float() for m in network.forward(low, x.to(dtype))]


def _key_of_fast(plan):
    return "fast", plan.dtype


def manner(network: Network, plan: Plan) -> str:
    """How a network computed its last tokens, for a person: what was measured to be fastest.

    Parameters
    ----------
    network : Network
    plan : Plan

    Returns
    -------
    str
        Empty where there was nothing to choose, or no token was computed yet.
    """
    fast = network.model.made(_key_of_fast(plan)) if plan.runtime == "torch" else None
    return "" if fast is None else fast.manner


def round_to_half(tokens: np.ndarray) -> np.ndarray:
    """Round tokens of reduced precision to that of float16, which their cache keeps them in.

    Parameters
    ----------
    tokens : ndarray, float32
        Of any shape; bfloat16 has 8 significant bits, float16 has 11.

    Returns
    -------
    ndarray of the same shape, float32
        Unchanged where a value is beyond the range of float16.
    """
    if not max(tokens.max(), -tokens.min()) <= _LARGEST_HALF:
        return tokens
    torch = import_optional("torch", "torch", "this embedder")
    return torch.from_numpy(tokens).half().float().numpy()  # NumPy takes ten times as long
