"""OpenVINO as a runtime of the embedders, on the CPU."""

import contextlib
import io
import logging
import os
import threading
import warnings
from unittest import mock

from skanomaly._cache import cache_key
from skanomaly._networks.conversion import (
    check_export,
    converting,
    identity,
    sample_inputs,
    stored,
)
from skanomaly._optional import import_optional

_USER = "runtime='openvino'"
_N_CALIBRATION = 32  # images by which the ranges of int8 are set


def compiled_openvino(model, shape, layers, dtype, native, embedder):
    """A function that runs a model in OpenVINO.

    Parameters
    ----------
    model : LoadedModel
        In float32, on the CPU.
    shape : tuple of int
        ``(B, 3, height, width)`` of the inputs, of which B may change.
    layers : list of int
        Layers, in ascending order.
    dtype : {"float32", "bfloat16", "int8"}
        Precision. In int8 the products of matrices are so, the rest is as in "auto".
    native : bool
        Whether the processor has bfloat16.
    embedder : TorchPatches
        Its ``_forward`` is the forward pass.

    Returns
    -------
    callable
        From a (B, 3, height, width) float32 tensor to a list of (B, dim, grid_h, grid_w) tensors.
    """
    torch = import_optional("torch", "torch", _USER)
    n_threads = torch.get_num_threads()
    # Each stream takes one image at a time; one image alone gets all threads by batch_size=1.
    n_streams = min(n_threads, embedder.batch_size)
    parts = identity(model, shape[1:], layers, embedder)

    def build():
        ov = import_optional("openvino", "openvino", _USER)
        graph = _graph(ov, model, shape, layers, dtype, embedder, parts)
        low = dtype == "bfloat16" or (dtype == "int8" and native)
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if low else "f32",  # unset, it is the processor's
            "INFERENCE_NUM_THREADS": n_threads,
            "NUM_STREAMS": n_streams,
            "ENABLE_CPU_PINNING": False,  # parallel processes would all take the first cores
        }
        compiled = _core().compile_model(graph, "CPU", options)
        run = _Streams(ov, compiled, n_streams)
        # The first inference also has to be made by one thread alone: by two it may never end.
        check_export(run, model, shape, layers, embedder, "openvino", dtype)
        return run

    return model.derived((cache_key(**parts), "openvino", dtype, n_threads, n_streams), build)


class _Streams:
    """Runs the images of a batch in parallel streams."""

    def __init__(self, ov, compiled, n_streams):
        self.queue = ov.AsyncInferQueue(compiled, n_streams)
        self.queue.set_callback(self._keep)
        self.n_outputs = len(compiled.outputs)
        self.lock = threading.Lock()

    def __call__(self, x):
        torch = import_optional("torch", "torch", _USER)
        with self.lock:
            self.results = [None] * len(x)
            for number, image in enumerate(x.split(1)):
                self.queue.start_async({0: image.numpy()}, number)
            self.queue.wait_all()
            results, self.results = self.results, None
        results = zip(*results, strict=True)
        return [torch.cat([torch.from_numpy(m) for m in maps]) for maps in results]

    def _keep(self, request, number):
        # The request's own memory is written to again by its next image.
        outputs = range(self.n_outputs)
        self.results[number] = [request.get_output_tensor(k).data.copy() for k in outputs]


def _core():
    global _shared_core
    if _shared_core is None:
        _shared_core = import_optional("openvino", "openvino", _USER).Core()
    return _shared_core


_shared_core = None


def _graph(ov, model, shape, layers, dtype, embedder, parts):
    """The model in OpenVINO's own form, for one image, in float32 or int8."""

    def load(folder):
        return _core().read_model(folder / "model.xml")

    def save(graph, folder):
        ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)

    parts = {**parts, "runtime": "openvino", "version": ov.__version__}

    def plain():
        form = {**parts, "form": "float"}
        return stored(form, lambda: _convert(ov, model, shape, layers, embedder), save, load)

    if dtype != "int8":
        return plain()
    nncf = import_optional("nncf", "openvino", "dtype='int8'")
    # Its ranges are set by images, which go through the model's preprocessing.
    inputs = [list(model.mean), list(model.std), model.interpolation]
    form = {**parts, "form": "int8", "nncf": nncf.__version__, "inputs": inputs}
    return stored(form, lambda: _quantize(nncf, plain(), model, shape), save, load)


def _convert(ov, model, shape, layers, embedder):
    with (
        converting(model, shape, layers, embedder, "openvino") as (module, example),
        _quiet(),
    ):
        return ov.convert_model(module, example_input=example, input=[tuple(example.shape)])


def _quantize(nncf, graph, model, shape):
    """int8, its ranges set by pictures of machined parts."""
    inputs = sample_inputs(model, shape, _N_CALIBRATION, seed=0).split(1)
    kind = nncf.ModelType.TRANSFORMER if not model.hierarchical else None
    with _quiet():
        data = nncf.Dataset([x.numpy() for x in inputs])
        return nncf.quantize(graph, data, subset_size=_N_CALIBRATION, model_type=kind)


@contextlib.contextmanager
def _quiet():
    """Without the converters' reports: neither to the terminal nor to their makers."""
    logger = logging.getLogger("nncf")
    level = logger.level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.dict(os.environ, {"CI": "true", "NNCF_CI": "1"}),
    ):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
