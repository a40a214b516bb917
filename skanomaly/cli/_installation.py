"""What is installed on a machine: libraries, extras, processors, caches."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from threadpoolctl import threadpool_info

from skanomaly.core.machine import processor_features

REQUIRED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "threadpoolctl",
    "pillow",
    "safetensors",
    "platformdirs",
    "tqdm",
    "typer",
    "rich",
    "skops",
    "jinja2",
)
# Of each extra: its distributions, and the module of each.
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "torch": {"torch": "torch", "torchvision": "torchvision", "timm": "timm"},
    "clip": {"open_clip_torch": "open_clip", "transformers": "transformers"},
    "anomalib": {"anomalib": "anomalib"},
    "onnx": {"onnxruntime": "onnxruntime", "onnx": "onnx", "onnxscript": "onnxscript"},
    "openvino": {"openvino": "openvino"},
    "faiss": {"faiss-cpu": "faiss"},
    "plot": {"matplotlib": "matplotlib"},
    "parquet": {"pyarrow": "pyarrow"},
}
_LONGEST_IMPORT = 120.0  # seconds
_SETTINGS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_HOME", "TORCH_HOME")

# In a process of its own: a library that is broken may end the process, or never return.
_IMPORT = """
import contextlib, importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
errors, devices = {}, []
with contextlib.redirect_stdout(sys.stderr):
    for name in json.loads(sys.argv[2]):
        try:
            module = importlib.import_module(name)
            if name == "torch":
                for i in range(module.cuda.device_count()):
                    devices.append(f"cuda:{i} ({module.cuda.get_device_name(i)})")
                if module.backends.mps.is_available():
                    devices.append("mps")
        except BaseException as exc:
            text = " ".join(str(exc).split()) or "no message"
            errors[name] = f"{type(exc).__name__}: {text}"
print(json.dumps([errors, devices]))
"""

# What is timed, in a process of its own for the same reason.
_TIMED = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from skanomaly.cli._trials import {function}
print(json.dumps({function}()))
"""


def installed_version(distribution: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def look_at_extra(extra: str) -> tuple[dict[str, Any], list[str]]:
    """What is there of an extra, and whether it can be imported.

    Parameters
    ----------
    extra : str
        A name of `EXTRAS`.

    Returns
    -------
    found : dict
        `extra`, `state` ("ready", "not installed", "incomplete" or "broken"), `versions` of the
        distributions (None of what is missing), `error` and `install`, the command.
    devices : list of str
        Accelerators that torch knows.
    """
    versions, modules = {}, []
    for distribution, module in EXTRAS[extra].items():
        there = _is_there(module)
        versions[distribution] = installed_version(distribution) if there else None
        if there:
            modules.append(module)
    found = {
        "extra": extra,
        "state": "not installed",
        "versions": versions,
        "error": None,
        "install": f'pip install "skanomaly[{extra}]"',
    }
    if not modules:
        return found, []
    print(f"importing {', '.join(modules)} ...", file=sys.stderr, flush=True)
    errors, devices = _imported(modules)
    if errors:
        found.update(state="broken", error="; ".join(f"{k}: {v}" for k, v in errors.items()))
    else:
        found["state"] = "ready" if len(modules) == len(EXTRAS[extra]) else "incomplete"
    return found, devices


def fastest_networks() -> list[dict[str, Any]] | None:
    """Which ways of a vision transformer in bfloat16 are fastest here, timed now.

    Returns
    -------
    list of dict or None
        `question`, `winner` and `milliseconds` of each way; nothing where the processor does not
        multiply in bfloat16. None where it could not be measured.
    """
    return _timed("transformers", "networks")


def fastest_searches() -> list[dict[str, Any]] | None:
    """Which exact search is fastest here, timed now.

    Returns
    -------
    list of dict or None
        As of :func:`fastest_networks`.
    """
    return _timed("searches", "searches")


def _timed(what, function):
    print(f"timing {what} ...", file=sys.stderr, flush=True)
    code = _TIMED.format(function=function)
    command = [sys.executable, "-c", code, json.dumps(sys.path)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LONGEST_IMPORT, stdin=subprocess.DEVNULL
        )
        return json.loads(done.stdout.decode().splitlines()[-1])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _imported(modules):
    """What went wrong, by module, and the devices."""
    command = [sys.executable, "-c", _IMPORT, json.dumps(sys.path), json.dumps(modules)]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LONGEST_IMPORT, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return {modules[0]: f"the import was not done after {_LONGEST_IMPORT:.0f} s"}, []
    except OSError as exc:
        return {modules[0]: f"no process of Python could be started ({exc})"}, []
    try:
        return json.loads(done.stdout.decode().splitlines()[-1])
    except (ValueError, IndexError):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return {modules[0]: f"the import ended Python (code {done.returncode}) {said[-1:]}"}, []


def processor() -> dict[str, Any]:
    """Cores, what the processor can do, and the threads that libraries take."""
    usable = getattr(os, "sched_getaffinity", None)
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable(0)) if usable else os.cpu_count(),
        "features": processor_features(),
        "threads": {info["internal_api"]: info["num_threads"] for info in threadpool_info()},
    }


def caches() -> list[dict[str, Any]]:
    """The folders into which weights are downloaded."""
    from skanomaly._networks import hub

    return [
        {"of": who, "folder": str(folder), "bytes": _size(folder), "writable": _writable(folder)}
        for who, folder in (
            ("timm and open_clip", hub.hub_folder()),
            ("torch.hub", hub.torch_folder()),
            ("open_clip, by address", hub.clip_folder()),
        )
    ]


def environment() -> dict[str, str | None]:
    """Variables of the environment that change what happens."""
    return {name: os.environ.get(name) for name in _SETTINGS}


def _size(folder):
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(where, name)
            try:
                total += 0 if os.path.islink(path) else os.path.getsize(path)
            except OSError:  # gone since
                continue
    return total


def _writable(folder):
    """Whether files can be made in a folder, or the folder itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)
