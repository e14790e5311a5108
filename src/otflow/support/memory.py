"""How much memory there is, asked before it is taken: XLA ends the process where it runs out."""

import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory_there_is() -> int | None:
    """Bytes of the machine, or of the container where that has fewer; None where nothing tells."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        return None
    for path in _LIMITS:
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found)


def check_fits(name: str, n: int, numbers: int, hint: str = "") -> None:
    """Refuse n rows of float64 numbers that the memory cannot hold.

    Args:
        name: of the argument n, for the message.
        n: rows.
        numbers: in a row.
        hint: what to do instead, a sentence.

    Raises:
        MemoryError: they cannot be held.
    """
    there = memory_there_is()
    most = None if there is None else there // (8 * numbers)
    if most is not None and n > most:
        told = f"{name}: expected at most {most} rows of {numbers} numbers, which fill the memory"
        raise MemoryError(f"{told}; got {n}. {hint}".rstrip())
