"""From settings and rows to a chain of flows, block by block (SPEC 7)."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from otflow.data.rows import Rows
from otflow.estimator.blocks import Block, ChainPlan, strength
from otflow.estimator.fitting import Fitted, fit_flow
from otflow.estimator.material import Material, of_rows
from otflow.estimator.settings import Settings
from otflow.flow.flow import Flow
from otflow.flow.objective import nll
from otflow.potentials import StageChain
from otflow.targets import AbstractTarget
from otflow.training import Watch

History = dict[str, list[float]]
_STOPPED = ("interrupted", "non_finite")
_JOINT_RATE = 0.2  # of the blocks' learning rate: together they start where each has ended


@dataclasses.dataclass(frozen=True)
class FittedChain(Fitted):
    """The flow of all blocks, and what each of them came to."""

    blocks: tuple[Block, ...] = ()


def fit_chain(
    settings: Settings,
    plan: ChainPlan,
    material: Material,
    target: AbstractTarget,
    seed: int,
    watch: Watch,
) -> FittedChain:
    """Train blocks one after the other, each on the rows that those before it have moved.

    With "auto" a block is kept where the whole 95 % interval of its held-out gain is above 0.05
    nats; the first that is not ends the chain.

    Args:
        settings: of every block, but for alpha, which is tau there.
        plan: of the chain.
        material: rows in memory, in the space to train in.
        target: N(0, I).
        seed: of everything random.
        watch: of the whole. Every block has a checkpoint of its own (`block_path`), and rows of the
            history say of which `block` they are.

    Raises:
        ValueError: no rows are held out to say how many blocks there are to be, or a job of several
            processes; and as `fit_flow`.
        FileExistsError: blocks of another run lie beside a checkpoint that is not resumed.
    """
    assert isinstance(material.x, Rows)
    if plan.automatic and material.x_val is None:
        raise ValueError("blocks: expected a number where no rows are held out; got 'auto'.")
    if jax.process_count() > 1:
        raise ValueError(f"blocks: expected one process; got a job of {jax.process_count()}.")
    _check_no_blocks(watch)
    chain = _Chain(material.x, material.x_val)
    status = "max_iter"
    for number in range(1, plan.most + 1):
        tau = plan.next_tau(chain.blocks)
        own, own_seed = dataclasses.replace(settings, alpha=tau), _seed(seed, number)
        moved = of_rows(chain.rows, chain.held, own, own_seed)
        fitted = fit_flow(own, moved, target, own_seed, chain.watch(watch, number))
        if fitted.status in _STOPPED:
            chain.add(fitted, tau)
            status = fitted.status
            break
        if not chain.add(fitted, tau, certain=plan.automatic and number > 1):
            status = "early_stopping"
            break
    found = chain.fitted(target, status)
    if not plan.joint_iter or status in _STOPPED:
        return found
    return _together(found, chain, plan, material, target, seed, watch)


def together(settings: Settings, blocks: Sequence[Block], n: int, dim: int) -> Settings:
    """Settings of a block on n rows of dim columns as those of all blocks together."""
    settings = dataclasses.replace(settings, alpha=strength(blocks)).resolved(n, dim)
    assert settings.learning_rate is not None
    return dataclasses.replace(settings, learning_rate=_JOINT_RATE * settings.learning_rate)


def _together(
    found: FittedChain,
    chain: "_Chain",
    plan: ChainPlan,
    material: Material,
    target: AbstractTarget,
    seed: int,
    watch: Watch,
) -> FittedChain:
    """All blocks trained together, from where they are."""
    settings = dataclasses.replace(found.settings, max_iter=plan.joint_iter)
    settings = together(settings, found.blocks, len(chain.rows.x), target.dim)
    own = _watch_of(watch, "together", lambda row: chain.placed(row, 0))
    whole = dataclasses.replace(material, density=None)
    fitted = fit_flow(settings, whole, target, _seed(seed, 0), own, start=found.flow)
    chain.remember(fitted, 0)
    return dataclasses.replace(
        found,
        flow=fitted.flow,
        history=chain.history,
        n_iter=chain.n_iter,
        status=fitted.status if fitted.status in _STOPPED else found.status,
    )


class _Moved(NamedTuple):
    """Rows after a block, what it gained on each (nats, weighted), and its mean log-determinant."""

    rows: Rows
    gain: Float[np.ndarray, " n"]
    way: float
    log_det: float


def _move(flow: Flow, rows: Rows) -> _Moved:
    pushed = flow.push(rows.x, rows.condition)
    after = Rows(pushed.points, rows.weight, rows.condition)
    gain = -flow.target.log_prob(rows.x) - nll(flow.target, pushed)
    squares = ((pushed.points - rows.x) ** 2).sum(axis=1)
    found = [
        np.asarray(rows.weighted(values), np.float64) for values in (gain, squares, pushed.log_det)
    ]
    return _Moved(after, found[0], math.sqrt(found[1].mean()), float(found[2].mean()))


class _Chain:
    """The blocks so far, the rows as they moved them, and the history of all."""

    def __init__(self, rows: Rows, held: Rows | None):
        self.rows, self.held = rows, held
        self.blocks: list[Block] = []
        self.history: History = {}
        self.n_iter = 0
        self._parts: list[Fitted] = []
        self._steps, self._seconds = 0.0, 0.0  # of the blocks so far
        self._log_det = {"train_nll": 0.0, "val_nll": 0.0}  # of the blocks so far, means

    def add(self, fitted: Fitted, tau: float, certain: bool = False) -> bool:
        """Take a block in; with `certain` only if its gain is. Whether it was."""
        train = _move(fitted.flow, self.rows)
        held = train if self.held is None else _move(fitted.flow, self.held)
        error = float(held.gain.std() / math.sqrt(held.gain.size))
        ended = (fitted.n_iter, fitted.status)
        block = Block(tau, train.way, float(held.gain.mean()), error, *ended)
        if certain and not block.worth_it:
            return False
        self.blocks.append(block)
        self._parts.append(fitted)
        self.remember(fitted, len(self.blocks))
        self.rows, self.held = train.rows, None if self.held is None else held.rows
        self._log_det["train_nll"] += train.log_det
        self._log_det["val_nll"] += held.log_det
        return True

    def remember(self, fitted: Fitted, number: int) -> None:
        """Add a history to the chain's: a block's first row takes the place of the last so far."""
        if not fitted.history:  # interrupted before it began
            return
        for column in self.history.values():
            del column[-1]
        for values in zip(*fitted.history.values(), strict=True):
            row = dict(zip(fitted.history, values, strict=True))
            for name, value in self.placed(row, number).items():
                self.history.setdefault(name, []).append(value)
        self.n_iter = int(self._steps) + fitted.n_iter
        self._steps, self._seconds = (self.history[name][-1] for name in ("iteration", "seconds"))

    def placed(self, row: dict[str, Any], number: int) -> dict[str, Any]:
        """A row of a block's history in that of the chain: steps, seconds and nll of the whole."""
        moved = {"iteration": self._steps, "seconds": self._seconds}
        if number:
            moved |= {name: -log_det for name, log_det in self._log_det.items()}
        return {"block": number} | {k: v + moved[k] if k in moved else v for k, v in row.items()}

    def watch(self, watch: Watch, number: int) -> Watch:
        """The watch of the next block."""
        return _watch_of(watch, number, lambda row: self.placed(row, number))

    def fitted(self, target: AbstractTarget, status: str) -> FittedChain:
        """The chain as one flow."""
        flow = Flow(StageChain(tuple(part.flow.potential for part in self._parts)), target)
        settings = self._parts[-1].settings
        ended = (self.history, self.n_iter, status, settings, None, self._parts[0].n_train)
        return FittedChain(flow, *ended, blocks=tuple(self.blocks))


def block_path(checkpoint: str | Path, block: int | str) -> Path:
    """Where a block keeps its state: the first under the checkpoint's own name."""
    path = Path(checkpoint)
    if block == 1:
        return path
    return path.with_name(f"{path.name}.{block if isinstance(block, str) else f'block{block}'}")


def _watch_of(watch: Watch, block: int | str, placed: Any) -> Watch:
    path = None if watch.checkpoint is None else block_path(watch.checkpoint, block)
    told = watch.on_validation

    def report(row: dict[str, Any]) -> None:
        assert told is not None
        told(placed(row))

    return dataclasses.replace(
        watch, checkpoint=path, on_validation=None if told is None else report
    )


def _check_no_blocks(watch: Watch) -> None:
    """Before any compute: the second block would find them after the first was trained."""
    if watch.checkpoint is None or watch.resume:
        return
    path = Path(watch.checkpoint)
    for pattern in ("block*", "together"):
        for found in sorted(path.parent.glob(f"{path.name}.{pattern}")):
            raise FileExistsError(f"{found} holds a run: resume it, or remove the file.")


def _seed(seed: int, number: int) -> int:
    """Of a block; the first has the chain's own."""
    if number == 1:
        return seed
    return int(np.random.default_rng([seed, number]).integers(2**31 - 1))
