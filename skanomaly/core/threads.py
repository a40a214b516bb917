"""Parts of the work side by side, each in one thread, instead of many threads in each product."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from skanomaly._warn import warn_user

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_blas_is_limited = threading.Lock()
_torch_worked_in: set[int] = set()  # numbers of processes: this one, and those it was forked from
_MOST_READING_THREADS = 8  # more than these do not decode faster than a network computes


def map_threads(
    function: Callable[[_Item], _Result], items: Sequence[_Item], n_threads: int, share: int = 1
) -> list[_Result]:
    """Apply a function to items side by side.

    Parameters
    ----------
    function : callable
        Called with one item, in several threads at once.
    items : sequence
    n_threads : int
        Threads of Python; with one, the function is called in the calling thread.
    share : int, default=1
        Threads that OpenMP, and with it torch, may use for each item.

    Returns
    -------
    list
        The results, in order.

    Notes
    -----
    Threads that work on an item of their own need not wait for each other, least of all where
    other processes keep some of them from running.
    """
    n_threads = min(n_threads, len(items))
    if n_threads <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(n_threads, "skanomaly", limit_openmp, (share,)) as pool:
        return list(pool.map(function, items))


def map_products(
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    n_threads: int,
    always_one: bool = False,
) -> list[_Result]:
    """As :func:`map_threads`, with one thread of BLAS for each item.

    Parameters
    ----------
    function, items
        As for :func:`map_threads`.
    n_threads : int
        As from :func:`blas_threads`.
    always_one : bool, default=False
        Also where nothing is shared out, which by default leaves BLAS its threads: some libraries
        round the sums of a product otherwise where it is split.

    Returns
    -------
    list
        The results, in order.

    Notes
    -----
    The limit of BLAS is one of the process, and not every thread may change it: where another call
    has it, or it cannot be set, the function is called in the calling thread.
    """
    shared_out = min(n_threads, len(items)) > 1
    if not (shared_out or always_one) or not _blas_is_limited.acquire(blocking=False):
        return [function(item) for item in items]
    try:
        with _controller("blas").limit(limits=1):
            return map_threads(function, items, n_threads if blas_threads() == 1 else 1)
    finally:
        _blas_is_limited.release()


def blas_threads() -> int:
    """Threads that products of NumPy may use now.

    Returns
    -------
    int
        At least 1.
    """
    return max((library["num_threads"] for library in _controller("blas").info()), default=1)


def reading_threads() -> int:
    """Threads that read and decode images ahead of the work on them.

    Returns
    -------
    int
        As many as the cores that this process may use, from 1 to 8. Where the system can tell,
        cores from which the process is kept (``taskset``, the CPU sets of a container) do not
        count.

    Examples
    --------
    >>> from skanomaly.core.threads import reading_threads
    >>> 1 <= reading_threads() <= 8
    True
    """
    # Not on macOS and Windows.
    cores_of = getattr(os, "sched_getaffinity", None)
    cores = (os.cpu_count() or 1) if cores_of is None else len(cores_of(0))
    return max(1, min(cores, _MOST_READING_THREADS))


def limit_openmp(n_threads: int = 1) -> None:
    """Let the calling thread, and no other, use so many threads of OpenMP, and with it of torch.

    Parameters
    ----------
    n_threads : int, default=1
        The limit.
    """
    _openmp().limit(limits=n_threads)


@contextmanager
def one_openmp_thread() -> Iterator[None]:
    """While it is open the calling thread uses one thread of OpenMP, then as many as before."""
    with _openmp().limit(limits=1):
        yield


def _openmp():
    # None where it is missing, or is just being imported by another thread.
    torch_threads = getattr(sys.modules.get("torch"), "get_num_threads", None)
    if torch_threads is not None:
        torch_threads()  # what torch sets up in each thread at first use would undo the limit
    return _controller("openmp", torch_threads is not None)


def prepare_torch() -> None:
    """To be called before torch works: in a process that was forked it gets one thread.

    In a process that is forked after torch has worked with several threads, these are missing, and
    torch waits for them for ever.

    Warns
    -----
    RuntimeWarning
        Once in such a process.
    """
    pid, torch = os.getpid(), sys.modules.get("torch")
    if torch is None or pid in _torch_worked_in:
        return
    is_forked = bool(_torch_worked_in)
    _torch_worked_in.add(pid)
    if is_forked and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warn_user(
            "this process was forked after torch had worked in its parent, whose threads are "
            "missing here: torch gets one thread, or it would wait for them for ever. Start "
            "processes by 'spawn' or 'forkserver', as joblib does, for more",
            RuntimeWarning,
        )


@cache
def _controller(user_api, with_torch=False):
    """The libraries loaded by now; `with_torch` lets torch be looked for once it is imported."""
    return ThreadpoolController().select(user_api=user_api)
