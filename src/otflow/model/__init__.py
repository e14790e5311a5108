"""A flow in the data's own units, and the files it is kept in."""

from otflow.model.model import Model, package_versions

__all__ = ["Model", "package_versions"]
