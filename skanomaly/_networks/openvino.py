"""OpenVINO as a runtime of the embedders, on the CPU; the door to its converter."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skanomaly._cache import cache_key
from skanomaly._networks.conversion import (
    check_conversion,
    conversion_parts,
    converting,
    load_or_convert,
)
from skanomaly._networks.network import Network
from skanomaly._optional import import_optional

if TYPE_CHECKING:
    import torch

_USER = "runtime='openvino'"


def compiled_openvino(
    network: Network, shape: Sequence[int], dtype: str, batch_size: int
) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """A function that runs a network in OpenVINO.

    Parameters
    ----------
    network : Network
        In float32, on the CPU.
    shape : sequence of int
        ``(B, 3, height, width)`` of the inputs, of which B may change.
    dtype : {"float32", "bfloat16"}
        Precision.
    batch_size : int
        The most images of any batch.

    Returns
    -------
    callable
        From a (B, 3, height, width) float32 tensor to a list of (B, dim, grid_h, grid_w) tensors.

    Raises
    ------
    RuntimeError
        When the processor has no bfloat16, or the converter fails.
    """
    torch = import_optional("torch", "torch", _USER)
    n_threads = torch.get_num_threads()
    # Each stream takes one image at a time; one image alone gets all threads by batch_size=1.
    n_streams = min(n_threads, batch_size)
    parts = conversion_parts(network, shape[1:])

    def build() -> _Streams:
        ov = import_optional("openvino", "openvino", _USER)
        has = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if dtype == "bfloat16" and "BF16" not in has:  # OpenVINO would take float32 silently
            raise RuntimeError(
                f"OpenVINO has no bfloat16 on this processor, in which {network.name} is to run: "
                "use runtime='torch', which computes it anywhere, or dtype='float32', and fit again"
            )
        options = {
            # Left out, it would be what the processor likes best.
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == "bfloat16" else "f32",
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": n_streams,
            "ENABLE_CPU_PINNING": False,  # parallel processes would all take the first cores
        }
        compiled = _core().compile_model(_graph(ov, network, shape, parts), "CPU", options)
        run = _Streams(ov, compiled, n_streams)
        # The first inference also has to be made by one thread alone: by two it may never end.
        check_conversion(run, network, shape, "openvino", dtype)
        return run

    key = cache_key(**parts), "openvino", dtype, n_threads, n_streams
    return network.model.derived(key, build)


class _Streams:
    """Runs the images of a batch in parallel streams."""

    def __init__(self, ov: Any, compiled: Any, n_streams: int) -> None:
        self.queue = ov.AsyncInferQueue(compiled, n_streams)
        self.queue.set_callback(self._keep)
        self.n_outputs = len(compiled.outputs)
        self.lock = threading.Lock()
        self.results: list[Any] = []

    def __call__(self, x: torch.Tensor) -> list[torch.Tensor]:
        torch = import_optional("torch", "torch", _USER)
        with self.lock:
            self.results = [None] * len(x)
            for number, image in enumerate(x.split(1)):
                self.queue.start_async({0: image.numpy()}, number)
            self.queue.wait_all()
            results, self.results = self.results, []
        by_map = zip(*results, strict=True)
        return [torch.cat([torch.from_numpy(m) for m in maps]) for maps in by_map]

    def _keep(self, request: Any, number: int) -> None:
        # The request's own memory is written to again by its next image.
        outputs = range(self.n_outputs)
        self.results[number] = [request.get_output_tensor(k).data.copy() for k in outputs]


def _core() -> Any:
    global _shared_core
    if _shared_core is None:
        _shared_core = import_optional("openvino", "openvino", _USER).Core()
    return _shared_core


_shared_core: Any = None


def _graph(ov: Any, network: Network, shape: Sequence[int], parts: dict[str, object]) -> Any:
    """The network in OpenVINO's own form, for one image, in float32."""

    def load(folder: Path) -> Any:
        return _core().read_model(folder / "model.xml")

    def save(graph: Any, folder: Path) -> None:
        ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)

    form = {**parts, "runtime": "openvino", "version": ov.__version__}
    return load_or_convert(form, lambda: _convert(ov, network, shape), save, load)


def _convert(ov: Any, network: Network, shape: Sequence[int]) -> Any:
    """Convert by OpenVINO's frontend for torch, as its ``convert_model`` does.

    That function itself would report each conversion to OpenVINO's makers, unless an environment
    variable of the process says otherwise. Seen in openvino 2024.6 to 2026.4;
    `tests/_networks/test_doors.py` says which name is gone.
    """
    frontends = import_optional("openvino.frontend", "openvino", _USER)
    decoders = import_optional("openvino.frontend.pytorch.ts_decoder", "openvino", _USER)
    with converting(network, shape, "openvino") as (module, example), _quiet():
        frontend = frontends.FrontEndManager().load_by_framework("pytorch")
        decoder = decoders.TorchScriptPythonDecoder(module, example_input=example)
        model = frontend.load(decoder)
        (place,) = model.get_inputs()
        model.set_partial_shape(place, ov.PartialShape(list(example.shape)))
        model.set_element_type(place, ov.Type.f32)
        return frontend.convert(model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converter prints and warns of."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
