"""Optional dependencies, imported where they are used."""

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """The module, or an error that says how to get it.

    Raises:
        ImportError: it is not installed; names the extra of otflow that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is needed here and not installed: pip install 'otflow[{extra}]'."
        ) from error
