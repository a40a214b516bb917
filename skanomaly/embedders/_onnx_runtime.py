"""ONNX Runtime as a runtime of the embedders, on the CPU in float32."""

import contextlib
import io
import warnings

from skanomaly._optional import import_optional
from skanomaly.embedders._exports import check_export, exportable, identity, stored


def onnx_session(model, shape, layers, embedder):
    """A function that runs a model in ONNX Runtime.

    Parameters
    ----------
    model : LoadedModel
        In float32, on the CPU.
    shape : tuple of int
        ``(B, 3, height, width)`` of the inputs, of which B may change.
    layers : list of int
        Layers, in ascending order.
    embedder : TimmPatches
        Its ``_forward`` is the forward pass.

    Returns
    -------
    callable
        From a (B, 3, height, width) float32 tensor to a list of (B, dim, grid_h, grid_w) tensors.
    """
    ort = import_optional("onnxruntime", "onnx", "runtime='onnx'")
    torch = import_optional("torch", "torch", "runtime='onnx'")
    ort.disable_telemetry_events()
    n_threads = torch.get_num_threads()

    def build():
        parts = {
            "runtime": "onnx",
            "torch": torch.__version__,
            **identity(model, shape[1:], layers, embedder),
        }
        file = stored(
            parts,
            lambda: _export(model, shape, layers, embedder),
            lambda data, folder: (folder / "model.onnx").write_bytes(data),
            lambda folder: _checked_bytes(ort, folder / "model.onnx"),
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.log_severity_level = 3
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (name,) = (item.name for item in session.get_inputs())

        def run(x):
            # One image at a time: the exported shape is that of one, and batches gain nothing.
            outputs = [session.run(None, {name: image.numpy()}) for image in x.split(1)]
            outputs = zip(*outputs, strict=True)
            return [torch.cat([torch.from_numpy(m) for m in maps]) for maps in outputs]

        check_export(run, model, shape, layers, embedder, "onnx", "float32")
        return run

    key = ("onnx", type(embedder).__name__, tuple(shape[1:]), tuple(layers), n_threads)
    return model.derived(key, build)


def _checked_bytes(ort, path):
    data = path.read_bytes()
    ort.InferenceSession(data, providers=["CPUExecutionProvider"])  # raises where it is damaged
    return data


def _export(model, shape, layers, embedder):
    """The model as the bytes of an ONNX file."""
    torch = import_optional("torch", "torch", "runtime='onnx'")
    for module in ("onnx", "onnxscript"):
        import_optional(module, "onnx", "runtime='onnx'")
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            exportable(model, layers, embedder),
            (torch.zeros((1, *shape[1:])),),
            dynamo=True,
            verbose=False,
        )
        program.save(file)
    return file.getvalue()
