"""Densities known up to a constant: the flow beside NUTS and two variational families of NumPyro.

    python benchmarks/posterior.py                              # all problems
    python benchmarks/posterior.py --problems banana funnel     # some of them
    python benchmarks/posterior.py --coverage 50                # log Z's interval over 50 seeds
    python benchmarks/posterior.py --quick                      # a few steps, to see that it runs

Contestants, each for as many seconds as `ours` took, compilation counted, or for --seconds:
  ours         otflow.fit_unnormalised, defaults; moments of the weighted draws
  NUTS         one chain, 500 steps of warm-up at least once
  full-rank    AutoMultivariateNormal, Adam at 0.01; moments of its own draws
  mean-field   AutoNormal, likewise
A line has the largest error of a mean, in deviations of the truth; the largest relative error of a
deviation; effective draws a second (the least over the parameters for NUTS; of 16,384 weighted
draws for the others); the error of log Z, and Pareto k. Truth is in closed form, or 20,000 draws of
NUTS (logistic, eight schools). Coverage: one fit, fresh draws for every seed.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO, autoguide
from sklearn.datasets import load_breast_cancer

from otflow import fit_unnormalised
from otflow.certificates.evidence import weigh

_DRAWS = 2**14


class Problem(NamedTuple):
    """A log-density, its dimension, and means, deviations and log Z where they are known."""

    log_density: Callable[[jax.Array], jax.Array]
    dim: int
    mean: np.ndarray | None = None
    sd: np.ndarray | None = None
    log_z: float | None = None


def banana() -> Problem:
    """x ~ N(0, 4), y | x ~ N(x^2 / 2, 1/4)."""

    def log_density(t: jax.Array) -> jax.Array:
        return -(t[0] ** 2) / 8 - 2 * (t[1] - 0.5 * t[0] ** 2) ** 2

    mean, sd = np.array([0.0, 2.0]), np.array([2.0, np.sqrt(0.25 + 8)])
    return Problem(log_density, 2, mean, sd, float(np.log(2 * np.pi)))


def funnel() -> Problem:
    """Neal's: v ~ N(0, 9), nine x_i | v ~ N(0, exp v)."""

    def log_density(t: jax.Array) -> jax.Array:
        return -(t[0] ** 2) / 18 - 0.5 * jnp.sum(t[1:] ** 2) * jnp.exp(-t[0]) - 4.5 * t[0]

    sd = np.r_[3.0, np.full(9, np.exp(2.25))]
    return Problem(log_density, 10, np.zeros(10), sd, float(5 * np.log(2 * np.pi) + np.log(3)))


def gaussian() -> Problem:
    """Ten dimensions, deviations from 0.01 to 100, rotated."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    precision, mean = (rotation * np.logspace(-4, 4, 10)) @ rotation.T, rng.standard_normal(10)
    P, m = jnp.asarray(precision, float), jnp.asarray(mean, float)

    def log_density(t: jax.Array) -> jax.Array:
        return -0.5 * (t - m) @ P @ (t - m)

    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    return Problem(log_density, 10, mean, sd, float(5 * np.log(2 * np.pi)))


def mixture() -> Problem:
    """Eight N(., I/4) on a circle of radius 4."""
    angle = np.arange(8) * np.pi / 4
    centres = jnp.asarray(4 * np.stack([np.cos(angle), np.sin(angle)], axis=1), float)

    def log_density(t: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(-2 * jnp.sum((t - centres) ** 2, axis=1))

    return Problem(log_density, 2, np.zeros(2), np.full(2, np.sqrt(8.25)), float(np.log(4 * np.pi)))


def logistic() -> Problem:
    """Breast cancer, 30 z-scored columns and an intercept, N(0, 4) priors."""
    X, y = load_breast_cancer(return_X_y=True)
    X = np.c_[np.ones(len(X)), (X - X.mean(axis=0)) / X.std(axis=0)]
    rows = jnp.asarray(X * (2 * y - 1)[:, None], float)

    def log_density(t: jax.Array) -> jax.Array:
        return -jnp.sum(t**2) / 8 + jnp.sum(jax.nn.log_sigmoid(rows @ t))

    return Problem(log_density, 31)


def schools() -> Problem:
    """Eight schools, not centred: mu ~ N(0, 25), log of tau ~ HalfCauchy(5), z_j ~ N(0, 1)."""
    y = jnp.asarray([28.0, 8, -3, 7, -1, 1, 18, 12])
    s = jnp.asarray([15.0, 10, 16, 11, 9, 11, 10, 18])

    def log_density(t: jax.Array) -> jax.Array:
        mu, log_tau, z = t[0], t[1], t[2:]
        prior = -(mu**2) / 50 - jnp.log1p(jnp.exp(2 * log_tau) / 25) + log_tau
        effect = mu + jnp.exp(log_tau) * z
        return prior - 0.5 * jnp.sum(z**2) - 0.5 * jnp.sum(((y - effect) / s) ** 2)

    return Problem(log_density, 10)


PROBLEMS = {f.__name__: f for f in (banana, funnel, gaussian, mixture, logistic, schools)}


def nuts(problem: Problem, seconds: float, least: int = 500) -> np.ndarray:
    """Draws of one chain, `least` of them and then as many as the seconds allow."""
    start = jnp.zeros(problem.dim)
    kernel = NUTS(potential_fn=lambda t: -problem.log_density(t), target_accept_prob=0.9)
    mcmc = MCMC(kernel, num_warmup=least, num_samples=least, progress_bar=False)
    began, parts = time.perf_counter(), []
    mcmc.run(jax.random.key(0), init_params=start)
    parts.append(np.asarray(mcmc.get_samples()))
    while time.perf_counter() - began < seconds:
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(mcmc.post_warmup_state.rng_key)
        parts.append(np.asarray(mcmc.get_samples()))
    return np.concatenate(parts)


def variational(problem: Problem, guide: Any, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Draws of NumPyro's guide, fitted for so long, and their log weights."""

    def model() -> None:
        free = dist.ImproperUniform(dist.constraints.real_vector, (), (problem.dim,))
        numpyro.factor("p", problem.log_density(numpyro.sample("x", free)))

    fitted = guide(
        model, init_loc_fn=numpyro.infer.init_to_value(values={"x": jnp.zeros(problem.dim)})
    )
    svi = SVI(model, fitted, numpyro.optim.Adam(0.01), Trace_ELBO(num_particles=16))
    began, state = time.perf_counter(), svi.init(jax.random.key(0))
    steps = jax.jit(lambda s: jax.lax.fori_loop(0, 500, lambda _, s: svi.update(s)[0], s))
    while time.perf_counter() - began < seconds:
        state = jax.block_until_ready(steps(state))
    law = fitted.get_posterior(svi.get_params(state))
    x = law.sample(jax.random.key(1), (_DRAWS,))
    log_q = law.log_prob(x)
    log_q = log_q if log_q.ndim == 1 else log_q.sum(axis=-1)
    return np.asarray(x), np.asarray(jax.vmap(problem.log_density)(x) - log_q, np.float64)


def line(
    name: str,
    problem: Problem,
    x: np.ndarray,
    seconds: float,
    log_w: np.ndarray | None,
    weighted: bool = False,
) -> str:
    """A contestant's figures."""
    w = np.full(len(x), 1 / len(x))
    if weighted and log_w is not None:
        w = np.exp(log_w - log_w.max())
        w /= w.sum()
    mean = w @ x
    sd = np.sqrt(w @ (x - mean) ** 2)
    cells = [name, f"{np.max(np.abs(mean - problem.mean) / problem.sd):.3f}"]
    cells.append(f"{np.max(np.abs(sd / problem.sd - 1)):.3f}")
    if log_w is None:
        ess = min(effective_sample_size(x[None, :, j]) for j in range(x.shape[1]))
        cells += [f"{ess / seconds:.3g}", "", ""]
    else:
        found = weigh(log_w)
        known = problem.log_z is not None
        gap = f"{found.log_evidence - problem.log_z:+.3f}" if known else ""
        cells += [f"{found.ess / seconds:.3g}", gap, f"{found.pareto_k:.2f}"]
    return f"| {' | '.join([*cells, f'{seconds:.0f}'])} |"


def compare(name: str, settings: dict[str, Any], least: int, given: float | None) -> None:
    """The lines of a problem."""
    problem = PROBLEMS[name]()
    if problem.mean is None:
        truth = nuts(problem, 0.0, 40 * least)
        problem = problem._replace(mean=truth.mean(axis=0), sd=truth.std(axis=0))
    began = time.perf_counter()
    ours = fit_unnormalised(problem.log_density, problem.dim, verbose=False, **settings)
    drawn = ours.weighted(_DRAWS, 1)
    seconds = time.perf_counter() - began
    shown = (problem, drawn.points, seconds, drawn.log_weight)
    print(line(f"{name}, ours", *shown, weighted=True), flush=True)
    seconds = seconds if given is None else given
    began = time.perf_counter()
    x = nuts(problem, seconds, least)
    print(line("NUTS", problem, x, time.perf_counter() - began, None), flush=True)
    for told, guide in (
        ("full-rank", autoguide.AutoMultivariateNormal),
        ("mean-field", autoguide.AutoDiagonalNormal),
    ):
        began = time.perf_counter()
        x, log_w = variational(problem, guide, seconds)
        print(line(told, problem, x, time.perf_counter() - began, log_w), flush=True)


def coverage(name: str, seeds: int, settings: dict[str, Any]) -> None:
    """How often log Z lies in its interval, and above its bound."""
    problem = PROBLEMS[name]()
    ours = fit_unnormalised(problem.log_density, problem.dim, verbose=False, **settings)
    for n in (400, 4000):
        inside = above = 0
        for seed in range(seeds):
            found = ours.evidence(n, seed + 10)
            low, high = found.line("log Z").interval
            inside += low is not None and low <= problem.log_z <= high
            above += found.lower_bound <= problem.log_z
        told = f"{inside} of {seeds} inside, {above} of {seeds} above the bound"
        print(f"{name}, {n} draws: log Z {told}", flush=True)


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--coverage", type=int, metavar="SEEDS", help="instead of the table")
    parser.add_argument("--max-iter", type=int, default=1000)
    parser.add_argument("--seconds", type=float, help="of the others; by default those of ours")
    parser.add_argument("--quick", action="store_true", help="few steps")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    jax.config.update("jax_enable_x64", True)
    settings = {"max_iter": given.max_iter}
    if given.quick:
        settings = {"max_iter": 25, "width": 8}
    cores, versions = os.cpu_count(), f"jax {jax.__version__}, numpyro {numpyro.__version__}"
    print(f"{platform.machine()}, {cores} cores, {versions}, load {os.getloadavg()[0]:.0f}\n")
    if given.coverage:
        for name in given.problems:
            coverage(name, given.coverage, settings)
        return
    heads = ("", "mean", "deviation", "ESS/s", "log Z", "Pareto k", "seconds")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name in given.problems:
        compare(name, settings, 20 if given.quick else 500, given.seconds)


if __name__ == "__main__":
    main()
