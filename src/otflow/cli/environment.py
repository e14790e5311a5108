"""What the command line asks of JAX before it is loaded: all cores, and a cache of programs."""

import hashlib
import os
import platform
from pathlib import Path

from otflow.parallel.cores import cores_in_reach, cores_were_chosen


def prepare_environment() -> None:
    """Set the environment variables of JAX that the user has not set.

    One CPU device a core; compiled programs kept in the user's cache folder, so that a command
    starts at once the second time; no messages of XLA below a fatal one, because it complains of
    every program that it takes from the cache.
    """
    if not cores_were_chosen():
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores_in_reach()))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ and (folder := _cache_folder()) is not None:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _cache_folder() -> Path | None:
    """A folder for this kind of processor, whose programs run on no other; None: not writable."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "otflow" / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _processor() -> str:
    """A name for the kind of processor, from its features where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    text = "\n".join([platform.machine(), platform.processor(), *features])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
