"""Which of several ways to the same numbers is fastest on this processor: measured, remembered.

A choice lives as long as the process, and in the folders that embedders keep their tokens in.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from skanomaly._typing import PathLike
from skanomaly.core.machine import processor_features, processor_name
from skanomaly.core.threads import one_openmp_thread

# Another way takes the place of one before it when it needs less than this share of its time: where
# two are about equal, the noise of a measurement must not decide, because they round differently.
CLEARLY_FASTER = 0.9
FILE = "fastest.json"
_VERSION = 1
_LARGEST_FILE = 2**20  # bytes; it holds a line for each kind of processor and shape
# Of the environment: what keeps libraries from instructions that the processor has.
_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OPENBLAS_CORETYPE")

# Each way is called twice, the first time to warm up, and then in so many rounds as fit into this
# time (in seconds), but for those that take so many times as long as the fastest. The shortest time
# counts, because other processes can only add to it.
_ROUNDS, _LONGEST, _HOPELESS = 10, 0.1, 3.0

_lock = threading.RLock()


@dataclass(frozen=True)
class Choice:
    """What was found to be fastest.

    Attributes
    ----------
    winner : str
        Name of the way.
    milliseconds : dict of str to float
        Of each way that was measured; empty where the choice was read from a folder.
    """

    winner: str
    milliseconds: dict[str, float] = field(default_factory=dict)


# Of this process, by what was asked for: a choice once made stands, so that results do not change
# while it runs.
_made: dict[str, Choice] = {}
# Winners that folders hold, and the choices that each file is known to hold.
_read: dict[str, str] = {}
_files: dict[Path, set[str]] = {}


def choose(question: str, ways: Mapping[str, Callable[[], object]]) -> str:
    """The name of the fastest way, measured at the first call and remembered.

    Parameters
    ----------
    question : str
        What is done, in which size and precision. Processor and libraries need not be in it.
    ways : mapping of str to callable
        In order of preference: a later one is only taken if it is clearly faster than the best
        before it. They do the same work, and are called without arguments. Those that raise
        RuntimeError or AttributeError are left out.

    Returns
    -------
    str
        One of the names.

    Raises
    ------
    RuntimeError, AttributeError
        When no way works.

    Notes
    -----
    Time is that of one thread, even where the caller may use more: so the answer, and with it the
    rounding of results, is the same however many threads there are.
    """
    with _lock:
        winner = recall(question, ways)
        return settle(question, _measured(ways)) if winner is None else winner


def recall(question: str, names: Collection[str]) -> str | None:
    """What was chosen before, by this process or by another one that shares a folder.

    Parameters
    ----------
    question : str
    names : collection of str
        Of the ways that there are.

    Returns
    -------
    str or None
        One of the names; None where nothing is known, or another one.
    """
    with _lock:
        known = _made.get(question)
        if known is None or known.winner not in names:
            kept = _read.get(question, "")
            if kept not in names:
                return None
            known = _made[question] = Choice(kept)
        return known.winner


def settle(question: str, choice: Choice) -> str:
    """Take a choice that was measured, and keep it in the folders that are known.

    Parameters
    ----------
    question : str
    choice : Choice

    Returns
    -------
    str
        Its winner.
    """
    with _lock:
        _made[question] = choice
        for file in _files:
            _write(file)
        return choice.winner


def choices() -> dict[str, Choice]:
    """What was chosen in this process, by question.

    Returns
    -------
    dict of str to Choice
    """
    with _lock:
        return dict(_made)


def remember_in(folder: PathLike | None) -> None:
    """Take over the choices that a folder keeps, and keep there what was and what will be chosen.

    Parameters
    ----------
    folder : str, path-like or None
        That of the token cache; None for none.

    Notes
    -----
    A file that is damaged, of another version, processor or libraries counts as missing. The first
    choice that a folder has stays, so that all processes that share it round alike. A folder that
    cannot be written to is no error: the choice is then made once a process.
    """
    if folder is None:
        return
    file = Path(os.path.abspath(os.path.expanduser(folder))) / FILE
    with _lock:
        if file not in _files:
            winners = _winners(_contents(file))
            _files[file] = set(winners)
            for question, winner in winners.items():
                _read.setdefault(question, winner)
        _write(file)


def _measured(ways: Mapping[str, Callable[[], object]]) -> Choice:
    with one_openmp_thread():
        times = _shortest_times(ways)
    winner = next(iter(times))
    for name, seconds in times.items():
        if seconds < CLEARLY_FASTER * times[winner]:
            winner = name
    return Choice(winner, {name: 1e3 * seconds for name, seconds in times.items()})


def _shortest_times(ways: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Of each way that works, in turns, so that what else the machine does falls on all alike."""
    begin = time.perf_counter()
    times: dict[str, float] = {}
    fault: Exception | None = None
    for name, way in ways.items():
        try:
            times[name] = min(_seconds(way), _seconds(way))
        except (RuntimeError, AttributeError) as exc:
            fault = exc
    if fault is not None and not times:
        raise fault
    for _ in range(_ROUNDS):
        if len(times) == 1 or time.perf_counter() - begin > _LONGEST:
            break
        hopeless = _HOPELESS * min(times.values())
        for name in times:
            if times[name] < hopeless:
                times[name] = min(times[name], _seconds(ways[name]))
    return times


def _seconds(way: Callable[[], object]) -> float:
    start = time.thread_time()
    way()
    return time.thread_time() - start


@cache
def machine() -> str:
    """What decides which way is fastest: the processor, what may be used of it, the libraries.

    Returns
    -------
    str
        Such as ``"GenuineIntel 6 143 8 Intel(R) Xeon(R), avx2 avx512f, numpy 2.3.5, torch 2.9.0"``.
    """
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    features = " ".join(processor_features() or [])
    libraries = [f"{name} {_version(name)}" for name in ("numpy", "torch")]
    return ", ".join([processor_name(), *filter(None, [features, *limits]), *libraries])


def _version(library):
    try:
        return version(library)
    except PackageNotFoundError:
        return "missing"


def _contents(file):
    """What a file holds of all machines."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            return {}
        contents = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(contents, dict) or contents.get("version") != _VERSION:
        return {}
    machines = contents.get("machines")
    return machines if isinstance(machines, dict) else {}


def _winners(machines):
    """Of this machine."""
    winners = machines.get(machine())
    if not isinstance(winners, dict):
        return {}
    return {question: name for question, name in winners.items() if isinstance(name, str)}


def _write(file):
    """Add what this process chose to a file that does not hold it yet, where that can be done."""
    if not _made.keys() <= _files[file]:
        _files[file] |= _made.keys()
        with contextlib.suppress(OSError):
            _keep(file)


def _keep(file):
    """The same, behind what others wrote meanwhile."""
    machines = _contents(file)
    machines[machine()] = {
        **{question: choice.winner for question, choice in _made.items()},
        **_winners(machines),
    }
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    try:
        text = json.dumps({"version": _VERSION, "machines": machines}, indent=1, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, file)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
