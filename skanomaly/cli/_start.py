"""How the program starts and ends: Ctrl-C at any time, and streams that are closed."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

INTERRUPTED = 130  # exit code, as of shells


def leave() -> NoReturn:
    """End the process as one that was interrupted.

    Python itself would end by the signal where the interruption went through `exec`, as in the
    making of data classes, although it was caught.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None, or closed meanwhile
            stream.flush()
    atexit._run_exitfuncs()  # temporary folders
    os._exit(INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[None]:
    """End the program by one line where it is interrupted, not by a traceback.

    For the time of imports, and of what is not the work of a command.
    """
    was_interrupted = False

    def interrupt(*_: Any) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        raise KeyboardInterrupt

    # Only where Ctrl-C is Python's own affair: not under nohup, in a thread, or with a debugger.
    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_ours:
        with suppress(ValueError):  # a thread
            signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException as exc:
        # Compiled modules turn the interruption of their import into other errors.
        if isinstance(exc, SystemExit) or not (
            was_interrupted or isinstance(exc, KeyboardInterrupt)
        ):
            raise
        if sys.stderr is not None:
            print("interrupted", file=sys.stderr)
        leave()
    finally:
        if is_ours:
            with suppress(ValueError):
                signal.signal(signal.SIGINT, signal.default_int_handler)


def check_streams() -> None:
    """Raise where standard output is closed, and give messages a place where there is none.

    Files that are opened later would take the place of a stream that is closed.

    Raises
    ------
    SystemExit
        With code 1.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    if sys.stderr is None:  # nothing can be said, and results go on
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the program
    if sys.stdout is None:
        print("error: standard output is closed, and nothing can be shown", file=sys.stderr)
        raise SystemExit(1)


def ignore_interrupts() -> None:
    """Let Ctrl-C do nothing more, once the work is done: what ends now ends by itself."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
