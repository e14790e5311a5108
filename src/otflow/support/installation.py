"""What is known to be wrong with the packages that otflow runs on."""

import functools
import re
import warnings
from importlib import metadata

# of jaxlib; see tests/test_jaxlib_hazard.py
_FIRST_GOOD, _FIRST_BAD, _GOOD_AGAIN = (0, 8, 1), (0, 10, 0), (0, 11, 1)


def jaxlib_fault(version: str) -> str | None:
    """What is known to be wrong with a version of jaxlib."""
    parts = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if _FIRST_BAD <= parts < _GOOD_AGAIN:
        return "deadlocks in batched LAPACK calls; install jaxlib 0.9.2 or at least 0.11.1"
    if parts < _FIRST_GOOD:
        return "older than otflow is tested with; install jaxlib>=0.8.1"
    return None


@functools.cache
def warn_of_faults() -> None:
    """Warn, once a process, where the installed jaxlib is known to be bad.

    otflow's own requirements exclude those versions; a package installed later may bring one.
    """
    version = metadata.version("jaxlib")
    if fault := jaxlib_fault(version):
        text = f"jaxlib {version} {fault} (see `otflow doctor`)."
        warnings.warn(text, UserWarning, stacklevel=2)
