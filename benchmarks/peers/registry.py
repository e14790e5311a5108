"""Who takes part: name, where the class is, its options, and what has to be installed."""

import dataclasses
import importlib
import importlib.util
import os
from typing import Any

from peers.base import Contestant


@dataclasses.dataclass(frozen=True)
class Entry:
    """A contestant: `peers.<module>.<cls>(**options)`; `requires` are packages to import."""

    name: str
    module: str
    cls: str
    requires: tuple[str, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def create(self) -> Contestant:
        """Import the module and make the contestant."""
        return getattr(importlib.import_module(f"peers.{self.module}"), self.cls)(**self.options)

    def missing(self) -> str | None:
        """Why it cannot take part here, or None."""
        absent = [name for name in self.requires if importlib.util.find_spec(name) is None]
        if absent:
            return f"not installed: {', '.join(absent)}"
        if self.name == "published" and not os.environ.get("OTFLOW_BENCH_REFERENCE"):
            return "not installed: give --reference PATH"
        return None


def _ours(name: str, **options: Any) -> Entry:
    return Entry(name, "ours", "Ours", ("otflow",), options)


OURS = (
    _ours("conforming", scheme="conforming", n_steps=4),
    _ours("conforming-1", scheme="conforming", n_steps=1),
    _ours("rk4", scheme="rk4"),
    _ours("rk4-stages", scheme="rk4", trace="stages"),
)
PEERS = (
    Entry("plain-torch", "plain_torch", "PlainTorch", ("torch",)),
    Entry("published", "published", "Published", ("torch",)),
    Entry("zuko-cnf", "zuko_cnf", "ZukoCNF", ("torch", "zuko")),
    Entry("ffjord", "ffjord", "FFJORD", ("torch", "torchdiffeq")),
    Entry("flowjax-nsf", "flowjax_spline", "NeuralSpline", ("flowjax",)),
    Entry("torchcfm", "flow_matching", "FlowMatching", ("torch", "torchdiffeq", "torchcfm", "ot")),
)


def entries(*names: str) -> tuple[Entry, ...]:
    """The entries of those names, in their order."""
    known = {entry.name: entry for entry in OURS + PEERS}
    return tuple(known[name] for name in names)


def conforming(n_steps: int) -> Entry:
    """The conforming scheme at another number of steps."""
    return _ours(f"conforming-{n_steps}", scheme="conforming", n_steps=n_steps)


def rk4(name: str, n_steps: int) -> Entry:
    """rk4 with Simpson's trace at another number of steps."""
    return _ours(name, scheme="rk4", n_steps=n_steps)
