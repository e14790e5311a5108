"""Model files of older versions, brought to the present one step by step."""

from collections.abc import Callable
from typing import Any

FORMAT_VERSION = 2

Parts = tuple[dict[str, Any], dict[str, Any]]  # metadata and tensors


def _network_by_default(metadata: dict[str, Any], tensors: dict[str, Any]) -> Parts:
    """Version 1: a file that names no potential has a residual network."""
    settings = {"potential": "resnet"} | metadata["settings"]
    return metadata | {"settings": settings}, tensors


MIGRATIONS: dict[int, Callable[[dict[str, Any], dict[str, Any]], Parts]] = {1: _network_by_default}
"""From a version to the next: MIGRATIONS[1] takes the parts of a version-1 file to version 2."""


def migrate(metadata: dict[str, Any], tensors: dict[str, Any]) -> Parts:
    """Metadata and tensors of a file of any version as the present version would hold them.

    Raises:
        ValueError: the version is none, or newer than this otflow.
        KeyError: the metadata has no version.
    """
    version = metadata["format_version"]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ValueError(f"format version {version!r} is none")
    if version > FORMAT_VERSION:
        raise ValueError(f"format version {version} is newer than this otflow reads")
    for step in range(version, FORMAT_VERSION):
        metadata, tensors = MIGRATIONS[step](metadata, tensors)
    return metadata | {"format_version": FORMAT_VERSION}, tensors
