"""The cores of the machine, and whether somebody has said how many devices JAX makes of them."""

import os


def cores_in_reach() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cores_were_chosen() -> bool:
    """XLA_FLAGS says how many CPU devices there are."""
    return "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
