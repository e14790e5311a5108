"""Many of anything: cores, devices, rows in chunks, processes.

Names are imported on first use, so that cores can be counted without JAX.
"""

from typing import Any

__all__ = ["join_processes"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'otflow.parallel' has no attribute {name!r}")
    from otflow.parallel.processes import join_processes

    return join_processes
