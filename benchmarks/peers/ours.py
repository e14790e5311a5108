"""otflow itself. The only file of the benchmark that touches the library's internals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from otflow import OTFlow
from otflow.data.rows import Rows
from otflow.estimator.building import starting_potential
from otflow.estimator.defaults import decided
from otflow.flow.flow import Flow
from otflow.parallel.batching import map_rows
from otflow.parallel.devices import gathered, one_lapack_thread, use_all_cores
from otflow.schemes import RK4, AbstractScheme, Conforming
from otflow.support.precision import cast
from otflow.targets import StandardNormal
from otflow.training import TrainingConfig
from otflow.training.block import make_block
from otflow.training.loop import learning_rate_schedule, make_optimiser
from otflow.training.step import split_trainable
from peers.base import Contestant, Level, Setup, batches

_BATCH = 2**14  # rows a call, as the estimator's
_TIGHT = RK4(64)  # in float64: mean error of the nll near 1e-8 where 8 steps have 1e-4


class Ours(Contestant):
    """OTFlow's training step, with the estimator's Gaussian base, at a scheme's settings.

    Args:
        scheme: "conforming" or "rk4".
        n_steps: time steps; None takes those of the setup.
        trace: of rk4, "simpson" or "stages".
    """

    def __init__(self, scheme: str, n_steps: int | None = None, trace: str = "simpson"):
        self.scheme_name, self.n_steps, self.trace = scheme, n_steps, trace
        if scheme == "rk4":
            self.levels = tuple([n, trace] for n in (2, 4, 8, 16, 32))

    def build(self, x: np.ndarray, setup: Setup) -> None:
        """Prepare the compiled block of steps, as otflow.training.loop.train does."""
        use_all_cores()
        self.setup, self.data = setup, x.astype(np.float32)
        target = StandardNormal(x.shape[1])
        key = jax.random.key(setup.seed)
        args = (target, setup.alpha, setup.width, setup.depth, "gaussian", key)
        n_steps = setup.n_steps if self.n_steps is None else self.n_steps
        rk4 = self.scheme_name == "rk4"
        stages = None if rk4 else n_steps
        potential = starting_potential(x.astype(np.float64), *args, n_stages=stages)
        self.scheme: AbstractScheme = RK4(n_steps, self.trace) if rk4 else Conforming(n_steps)
        used = decided(
            "resnet" if rk4 else "convex", setup.alpha, *x.shape, normal=True, fresh=False
        )
        beta = setup.beta if rk4 else used["beta"]
        clip_norm = 10.0 * max(1.0, setup.alpha)
        config = TrainingConfig(
            max_iter=setup.total_steps, clip_norm=clip_norm, learning_rate=used["learning_rate"]
        )
        optimiser = make_optimiser(config, learning_rate_schedule(config))
        self.params, self.static = split_trainable(potential)
        self.state = optimiser.init(self.params)
        self.block = make_block(self.scheme.for_training(), target, optimiser, setup.alpha, beta)
        self.stream = batches(len(x), setup.batch, setup.seed)

    def step(self) -> None:
        """One call of the compiled block."""
        rows = np.stack([next(self.stream) for _ in range(self.setup.block)])
        with one_lapack_thread():
            self.params, self.state, _ = jax.block_until_ready(
                self.block(self.params, self.static, self.state, Rows(self.data).take(rows))
            )

    def log_prob(self, x: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Log-density of the rows."""
        flow = self._flow(level, tight)
        return map_rows(flow.log_prob, x.astype(np.float64 if tight else np.float32), _BATCH)

    def sample(self, z: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """The inverse map of draws from the target."""
        flow = self._flow(level, tight)
        return map_rows(flow.inverse, z.astype(np.float64 if tight else np.float32), _BATCH)

    def first_fit(self, x: np.ndarray, setup: Setup) -> None:
        """One step through the estimator, as a user would take it."""
        model = OTFlow(
            alpha=setup.alpha, width=setup.width, scheme=self.scheme_name, n_steps=self.n_steps,
            max_iter=1, batch_size=setup.batch, random_state=0, verbose=False,
        )  # fmt: skip
        model.fit(x)

    def matmul(self, size: int) -> None:
        """One float32 product by XLA."""
        a = jnp.ones((size, size), jnp.float32)
        jax.block_until_ready(_product(a, a))

    def _flow(self, level: Level, tight: bool) -> Flow:
        potential: Any = gathered(eqx.combine(self.params, self.static))
        scheme = self.scheme
        if isinstance(scheme, RK4):
            scheme = _TIGHT if tight else scheme if level is None else RK4(*level)
        flow = Flow(potential, StandardNormal(potential.dim), scheme)
        return cast(flow, "float64") if tight else flow


_product = jax.jit(jnp.matmul)
