"""Potentials with random parameters, and SPEC 2 transcribed in plain NumPy."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import integrate

from otflow.potentials import ResNetPotential

OFFICIAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "official_swissroll.npz"


def load_official() -> dict[str, np.ndarray]:
    """The archive's arrays by name."""
    with np.load(OFFICIAL) as archive:
        return {name: archive[name] for name in archive.files}


def random_resnet(dim, width=6, depth=2, seed=0, scale=1.0):
    """A potential none of whose parameters is zero or constant, in JAX's default precision."""
    rng = np.random.default_rng(seed)

    def draw(*shape, fan=1):
        return jnp.asarray(rng.standard_normal(shape) * scale / np.sqrt(fan), float)

    fans = [dim + 1] + [width] * depth
    return ResNetPotential(
        A=0.5 * draw(min(10, dim + 1), dim + 1, fan=dim + 1),
        b=0.3 * draw(dim + 1),
        c=draw(),
        w=draw(width, fan=width),
        weights=tuple(draw(width, fan, fan=fan) for fan in fans),
        biases=tuple(0.5 * draw(width) for _ in fans),
    )


class Exact(NamedTuple):
    """Value, gradient (d+1,) and Hessian in x (d, d) at one point."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def resnet_by_the_book(p: ResNetPotential, x: np.ndarray, t: float) -> Exact:
    """SPEC 2 line by line at one point x (d,), with matrices and np.logaddexp, np.tanh, np.diag."""
    A, b, c, w = (np.asarray(v) for v in (p.A, p.b, p.c, p.w))
    K, bias = [np.asarray(v) for v in p.weights], [np.asarray(v) for v in p.biases]
    L, d, s = len(K) - 1, x.size, np.append(x, t)
    h = 1 / max(L, 1)
    u, a = [], [K[0] @ s + bias[0]]
    u.append(np.logaddexp(a[0], -a[0]))
    for i in range(1, L + 1):
        a.append(K[i] @ u[i - 1] + bias[i])
        u.append(u[i - 1] + h * np.logaddexp(a[i], -a[i]))
    value = w @ u[L] + 0.5 * s @ A.T @ A @ s + b @ s + c
    z = {L + 1: w}
    for i in range(L, 0, -1):
        z[i] = z[i + 1] + h * K[i].T @ (np.tanh(a[i]) * z[i + 1])
    gradient = K[0].T @ (np.tanh(a[0]) * z[1]) + A.T @ A @ s + b
    Kx, Ax = K[0][:, :d], A[:, :d]
    hessian = Kx.T @ np.diag(z[1] / np.cosh(a[0]) ** 2) @ Kx + Ax.T @ Ax
    J = np.diag(np.tanh(a[0])) @ Kx
    for i in range(1, L + 1):
        KJ = K[i] @ J
        hessian = hessian + h * KJ.T @ np.diag(z[i + 1] / np.cosh(a[i]) ** 2) @ KJ
        J = J + h * np.diag(np.tanh(a[i])) @ KJ
    return Exact(float(value), gradient, hessian)


class ExactPush(NamedTuple):
    """What Push holds, for n points."""

    points: np.ndarray
    log_det: np.ndarray
    transport: np.ndarray
    hjb: np.ndarray


def integrate_by_the_book(p: ResNetPotential, x: np.ndarray, t0: float, t1: float) -> ExactPush:
    """The augmented equation from t0 to t1 by SciPy's adaptive DOP853, point by point."""
    d = x.shape[1]

    def rates(t, state):
        phi = resnet_by_the_book(p, state[:d], t)
        v = -phi.gradient[:d]
        half_speed = 0.5 * v @ v
        hjb = abs(phi.gradient[d] - half_speed)
        forward = 1.0 if t1 > t0 else -1.0  # the costs are integrated over |dt|
        return np.concatenate([v, [-np.trace(phi.hessian), forward * half_speed, forward * hjb]])

    ends = []
    for point in x:
        start = np.concatenate([point, np.zeros(3)])
        # kinks of |.| in the hjb column would stall the step control: they get their own tolerance
        atol = np.array([1e-13] * (d + 2) + [1e-7])
        found = integrate.solve_ivp(rates, (t0, t1), start, method="DOP853", rtol=1e-13, atol=atol)
        ends.append(found.y[:, -1])
    ends = np.array(ends)
    return ExactPush(ends[:, :d], *ends[:, d:].T)


def rms(error) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def order(n_steps, errors) -> float:
    """The exponent p of errors ~ n_steps^-p, by least squares in logarithms."""
    return float(-np.polyfit(np.log(n_steps), np.log(errors), 1)[0])
