"""What this machine is, and what it has left."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

# Of a processor, what our arithmetic makes use of where it is there.
_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "bf16", "sve"),
)


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


def processor_name() -> str:
    """Maker, model and name of the processor, as far as the system tells.

    Returns
    -------
    str
        Such as ``"GenuineIntel 6 143 8 Intel(R) Xeon(R)"``.
    """
    wanted = ("vendor_id", "cpu family", "model", "stepping", "model name")
    found = _cpuinfo()
    known = [found[name] for name in wanted if name in found]
    return " ".join(known) or platform.processor() or platform.machine()


def processor_features() -> list[str] | None:
    """Instructions that the processor has, of those that our arithmetic makes use of.

    Returns
    -------
    list of str or None
        None where the system does not tell.
    """
    found = _cpuinfo()
    flags = found.get("flags", found.get("Features"))
    return None if flags is None else [name for name in _FEATURES if name in flags.split()]


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, by name."""
    found: dict[str, str] = {}
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            found[name.strip()] = value.strip()
    return found
