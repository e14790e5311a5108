"""flowjax: a neural spline flow, eight coupling layers of rational quadratic splines."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow
from paramax import non_trainable, unwrap

from peers.base import Contestant, Level, Setup, batches, in_chunks


class NeuralSpline(Contestant):
    """Exact in both directions; tight is the same model in float64."""

    def build(self, x: np.ndarray, setup: Setup) -> None:
        """A new flow with 8 knots on [-4, 4], trained by Adam."""
        flow = coupling_flow(
            jax.random.key(setup.seed),
            base_dist=non_trainable(Normal(jnp.zeros(x.shape[1]))),
            transformer=RationalQuadraticSpline(knots=8, interval=4),
            nn_width=max(64, setup.width),
        )
        self.params, self.static = eqx.partition(flow, eqx.is_inexact_array)
        self.data, self.setup = jnp.asarray(x, jnp.float32), setup
        optimiser = optax.adam(setup.rate)
        self.state = optimiser.init(self.params)
        self.block = _make_block(optimiser, self.static)
        self.stream = batches(len(x), setup.batch, setup.seed)

    def step(self) -> None:
        """One call of a compiled scan over the batches."""
        rows = np.stack([next(self.stream) for _ in range(self.setup.block)])
        self.params, self.state = jax.block_until_ready(
            self.block(self.params, self.state, self.data, rows)
        )

    @property
    def weights(self):
        """The trained leaves, which no step writes over."""
        return self.params

    @weights.setter
    def weights(self, kept) -> None:
        self.params = kept

    def log_prob(self, x: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """Log-density of the rows."""
        return self._rows(_log_prob, x, tight)

    def sample(self, z: np.ndarray, level: Level = None, tight: bool = False) -> np.ndarray:
        """The bijection of draws from the base."""
        return self._rows(_transform, z, tight)

    def _rows(self, function, x: np.ndarray, tight: bool) -> np.ndarray:
        with jax.enable_x64(tight):
            dtype = jnp.float64 if tight else jnp.float32
            params = jax.tree.map(lambda leaf: leaf.astype(dtype), self.params)
            flow = eqx.combine(params, self.static)
            return in_chunks(lambda part: np.asarray(function(flow, jnp.asarray(part, dtype))), x)


@eqx.filter_jit
def _log_prob(flow, x):
    return flow.log_prob(x)


@eqx.filter_jit
def _transform(flow, z):
    return jax.vmap(unwrap(flow).bijection.transform)(z)


def _make_block(optimiser, static):
    @jax.jit
    def block(params, state, data, rows):
        def loss(params, x):
            return -eqx.combine(params, static).log_prob(x).mean()

        def step(carry, row):
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params, data[row]), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), rows)[0]

    return block
