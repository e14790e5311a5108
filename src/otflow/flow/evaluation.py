"""What a flow costs on a density known exactly: transport, KL and J_alpha with intervals."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy import special
from scipy.stats import qmc

from otflow.flow.flow import Flow
from otflow.flow.jacobian import jacobians
from otflow.flow.objective import kl_terms, nll
from otflow.flow.wide import OUTER, wide_points
from otflow.parallel.batching import map_rows
from otflow.parallel.devices import map_chunks, one_lapack_thread
from otflow.reference.base import AbstractReference
from otflow.schemes.base import AbstractScheme, Push
from otflow.support.checks import check_count, check_number
from otflow.support.precision import cast, precision
from otflow.support.statistics import Estimate
from otflow.targets import AbstractTarget, StandardNormal

_CHUNK, _BLOCK = 1000, 100  # samples at once; chunks a call
_STEP = 1e-4  # of central differences
_SCRAMBLES = 16


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The costs of a flow on fresh samples of a known density.

    Attributes:
        transport: E int 1/2 |v|^2 dt, squared data units.
        kl: KL(rho0 || the flow's density) = KL(T#rho0 || rho1), nats.
        objective: transport + alpha kl.
        n: samples.
        invalid: samples at which the map is not invertible; where there are any, kl and objective
            leave them out and are no upper bounds.
        nll_error: mean |nll(n_steps) - nll(2 n_steps)|, nats: the integration error; 0 for a
            scheme that has none.
    """

    transport: Estimate
    kl: Estimate
    objective: Estimate
    n: int
    invalid: int
    nll_error: float


def evaluate(
    flow: Flow,
    density: AbstractTarget,
    alpha: float,
    n: int = 1_000_000,
    seed: int = 0,
    exact: AbstractReference | None = None,
) -> Evaluation:
    """Transport, KL and J_alpha of a flow, by Monte Carlo in float64 on fresh samples.

    With u = log rho0(x) + nll(x), the KL is the mean of u, and also of u - 1 + exp(-u), because
    the mean of exp(-u) is 1 for a normalised density. The second has no noise where the flow is
    exact and heavy tails where it is far off: the one with the smaller variance is taken. The same
    seed gives the same samples: compare flows with it.

    Args:
        flow: the flow.
        density: rho0, an object of `otflow.targets`, in the space the flow was trained in.
        alpha: weight of the KL, > 0.
        n: samples, rounded up to a multiple of 1,000.
        seed: of the samples.
        exact: the reference of the same problem; the transport of its map on the same samples is
            then a control variate for the flow's.

    Raises:
        ValueError, TypeError: alpha or n out of range, or dimensions that disagree.
    """
    check_number("alpha", alpha, positive=True)
    check_count("n", n)
    if flow.condition_dim:
        raise ValueError("flow: expected an unconditional flow; take flow.given(condition).")
    if density.dim != flow.dim:
        raise ValueError(f"density: expected dimension {flow.dim}; got {density.dim}.")
    chunks = -(-n // _CHUNK)
    moments, error, invalid = np.zeros((5, 2)), 0.0, 0
    with precision("float64"):
        flow, density = cast(flow, "float64"), cast(density, "float64")
        for keys in _blocks(jax.random.split(jax.random.key(seed), chunks)):
            shared = (flow, density, flow.scheme.refined())
            with one_lapack_thread():
                found = map_chunks(_terms, shared, (keys,), _BLOCK, least=1)
            found = jax.tree.map(lambda a: np.asarray(a).reshape(-1, *a.shape[2:]), found)
            transport = found.transport
            if exact is not None:
                moved = exact.map(found.x)
                transport = transport - 0.5 * ((moved - found.x) ** 2).sum(axis=1) + exact.transport
            plain = found.log_ratio[found.valid]
            reduced = kl_terms(plain)
            totals = [transport[found.valid] + alpha * kl for kl in (plain, reduced)]
            values = (transport, plain, reduced, *totals)
            moments += [[v.sum(), (v**2).sum()] for v in values]
            error, invalid = error + found.error.sum(), invalid + int((~found.valid).sum())
    count = chunks * _CHUNK
    valid = max(count - invalid, 1)
    transport, plain, reduced, plain_total, reduced_total = (
        _estimate(total, squares, n)
        for (total, squares), n in zip(moments, (count, *[valid] * 4), strict=True)
    )
    use_plain = plain.standard_error < reduced.standard_error
    return Evaluation(
        transport=transport,
        kl=plain if use_plain else reduced,
        objective=plain_total if use_plain else reduced_total,
        n=count,
        invalid=invalid,
        nll_error=float(error / count),
    )


def objective_gap(flow: Flow, exact: AbstractReference, n: int = 20_000, seed: int = 0) -> Estimate:
    """J_alpha of a flow to N(0, I) less J*_alpha, as the distance to the exact map S that it is.

    In the map T the objective is convex and stationary at S, so that

        J - J* = E[transport - 1/2 |T - x|^2] + (1 + alpha)/2 E|T - S|^2
                 + alpha E[tr(A^-1 M) - d - log det(A^-1 M)],    M = grad T, A = grad S:

    for one step of the conforming scheme no sample's term is negative, and all vanish with T - S:
    near the optimum this has far less noise than a difference of two means. A is taken by central
    differences. The points are 16 scrambled Sobol nets of normal scores, some moved outwards, with
    weights (`otflow.flow.wide`): plain draws miss where half of the gap is. The standard
    error is that of the nets' means, widened so that a normal interval is Student's.

    Args:
        flow: unconditional, to N(0, I), invertible at the points; its own log-determinant counts.
        exact: of the flow's problem, in the flow's space, of finite alpha.
        n: points, rounded up to 16 times a power of two.
        seed: of the nets.

    Returns:
        In squared data units; NaN where the flow is not invertible at a point.

    Raises:
        ValueError, TypeError: another target or dimension, alpha = inf, or n out of range.
    """
    check_count("n", n)
    check_number("exact.alpha", exact.alpha, positive=True)
    if flow.dim != exact.dim or not isinstance(flow.target, StandardNormal):
        raise ValueError(f"flow: expected one to N(0, I) in dimension {exact.dim}; got {flow}.")
    power = math.ceil(math.log2(max(n / _SCRAMBLES, OUTER)))
    nets = [qmc.Sobol(exact.dim, rng=rng) for rng in np.random.default_rng(seed).spawn(_SCRAMBLES)]
    found = [wide_points(exact, special.ndtri(net.random_base2(power))) for net in nets]
    x, weight = (np.concatenate(part) for part in zip(*found, strict=True))
    terms = weight * _gap_terms(flow, exact, x)
    if not np.isfinite(terms).all():
        return Estimate(math.nan, math.nan)
    return Estimate.of_few(terms.reshape(_SCRAMBLES, -1).mean(axis=1))


def _gap_terms(
    flow: Flow, exact: AbstractReference, x: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """What `objective_gap` averages."""
    alpha, A = exact.alpha, exact.jacobian(x, _STEP)
    exact_flow = cast(flow, "float64")

    def push(rows: Any) -> tuple[np.ndarray, ...]:
        pushed = exact_flow.push(rows)
        return tuple(np.asarray(a) for a in (pushed.points, pushed.transport, pushed.log_det))

    T, transport, log_det = map_rows(push, x)
    trace = np.einsum("nij,nji->n", np.linalg.inv(A), jacobians(flow, x))
    volume = trace - exact.dim - log_det + np.linalg.slogdet(A).logabsdet
    bend = transport - 0.5 * ((T - x) ** 2).sum(axis=1)
    return bend + 0.5 * (1 + alpha) * ((T - exact.map(x)) ** 2).sum(axis=1) + alpha * volume


class _Terms(eqx.Module):
    """Samples; per sample transport, log(rho0 / model density), validity, integration error."""

    x: Float[Array, "n d"]
    transport: Float[Array, " n"]
    log_ratio: Float[Array, " n"]
    valid: Bool[Array, " n"]
    error: Float[Array, " n"]


def _blocks(keys: Array) -> list[Array]:
    return [keys[i : i + _BLOCK] for i in range(0, len(keys), _BLOCK)]


def _terms(shared: tuple[Flow, AbstractTarget, AbstractScheme | None], keys: Array) -> _Terms:
    """The samples of each key, shape (keys, chunk, ...)."""
    flow, density, refined = shared

    def cost(scheme: AbstractScheme, x: Array) -> tuple[Array, Push]:
        pushed = scheme.push(flow.potential, x)
        return nll(flow.target, pushed), pushed

    def chunk(key: Array) -> _Terms:
        x = density.sample(key, _CHUNK)
        value, pushed = cost(flow.scheme, x)
        u = jnp.where(pushed.valid, value + density.log_prob(x), 0.0)
        error = jnp.zeros_like(u) if refined is None else jnp.abs(value - cost(refined, x)[0])
        return _Terms(x, pushed.transport, u, pushed.valid, error)

    return jax.lax.map(chunk, keys)


def _estimate(total: float, squares: float, n: int) -> Estimate:
    mean = total / n
    return Estimate(float(mean), math.sqrt(max(squares / n - mean**2, 0.0) / n))
