"""What this machine has left."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def available_memory() -> int | None:
    """Bytes of memory that a process may still take, or None where that is not known.

    Returns
    -------
    int or None
        What Linux says is available, or what a control group leaves, whichever is less.

    Examples
    --------
    >>> from skanomaly.core.machine import available_memory
    >>> found = available_memory()
    >>> found is None or found > 0
    True
    """
    found = []
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError):
        limit, used = (
            int(Path("/sys/fs/cgroup", f"memory.{name}").read_text()) for name in ("max", "current")
        )
        found.append(limit - used)
    return min(found, default=None)
