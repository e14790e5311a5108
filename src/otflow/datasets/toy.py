"""Toy laws in the plane, with the scales used by the FFJORD and OT-Flow papers.

Every sampler draws independent rows: component labels and angles are random. The published
generators spread angles and labels evenly instead, which has the same law for a single row;
independence is what the confidence intervals of the studies assume. Row order carries no
information.

The log-density is given where it has a closed form: eight Gaussians, circles, checkerboard.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Points = Float64[np.ndarray, "n 2"]

# 8gaussians: the published code divides by 1.414, not by the square root of two.
_EIGHT_SCALE = 1.414
_EIGHT_RADIUS = 4.0 / _EIGHT_SCALE
_EIGHT_STD = 0.5 / _EIGHT_SCALE
_EIGHT_ANGLES = np.pi / 4 * np.arange(8)
_EIGHT_CENTRES = _EIGHT_RADIUS * np.column_stack((np.cos(_EIGHT_ANGLES), np.sin(_EIGHT_ANGLES)))

_CIRCLES_RADII = np.array([3.0, 1.5])
_CIRCLES_STD = 3.0 * 0.08

_CHECKERBOARD_AREA = 32.0


def _positive_int(name: str, value: object) -> int:
    """Return `value`, a positive integer that is not a boolean, or raise naming the argument."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"Expected {name} to be an integer; got {value!r} of type {type(value).__name__}."
        )
    if value <= 0:
        raise ValueError(f"Expected {name} to be positive; got {value}.")
    return int(value)


def _generator(seed: object) -> np.random.Generator:
    """Return NumPy's default generator for a non-negative integer seed, or raise."""
    if isinstance(seed, bool | np.bool_) or not isinstance(seed, int | np.integer):
        raise TypeError(
            f"Expected seed to be an integer; got {seed!r} of type {type(seed).__name__}."
        )
    if seed < 0:
        raise ValueError(f"Expected seed to be zero or positive; got {seed}.")
    return np.random.default_rng(int(seed))


def _plane(x: object) -> np.ndarray:
    """Return `x` as a float64 array of shape (n, 2), or raise naming the argument."""
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"Expected x of shape (n, 2); got shape {points.shape}.")
    return points


def eight_gaussians(n: int, seed: int) -> Points:
    """Draw from eight equal Gaussians of deviation 0.5/1.414 on a circle of radius 4/1.414.

    Arguments: `n`, the number of rows; `seed`, a non-negative integer. Returns float64 points of
    shape (n, 2). Raises `TypeError` for a non-integer argument and `ValueError` for `n < 1` or
    `seed < 0`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    labels = rng.integers(8, size=n)
    return _EIGHT_CENTRES[labels] + _EIGHT_STD * rng.standard_normal((n, 2))


def eight_gaussians_log_prob(x: Points) -> Float64[np.ndarray, " n"]:
    """Log-density of `eight_gaussians` at points `x` of shape (n, 2), in nats; shape (n,)."""
    squared = np.sum((_plane(x)[:, None, :] - _EIGHT_CENTRES) ** 2, axis=-1)
    exponents = -squared / (2 * _EIGHT_STD**2)
    return np.logaddexp.reduce(exponents, axis=1) - np.log(8 * 2 * np.pi * _EIGHT_STD**2)


def swissroll(n: int, seed: int) -> Points:
    """Draw from the planar swiss roll: (t cos t, t sin t) with unit noise, divided by 5.

    The angle t is uniform on [1.5 pi, 4.5 pi]. Arguments, returns and errors as in
    `eight_gaussians`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    t = rng.uniform(1.5 * np.pi, 4.5 * np.pi, size=n)
    roll = t[:, None] * np.column_stack((np.cos(t), np.sin(t)))
    return (roll + rng.standard_normal((n, 2))) / 5.0


def moons(n: int, seed: int) -> Points:
    """Draw from two interleaved half circles of radius 2, centred as published, with noise 0.2.

    In law the usual moons with noise 0.1, doubled, plus (-1, -0.2). Arguments, returns and errors
    as in `eight_gaussians`.
    """
    return labelled_moons(n, seed).points


class LabelledPoints(NamedTuple):
    """Points in the plane and the class, 0 or 1, of each."""

    points: Points
    labels: Int64[np.ndarray, " n"]


def labelled_moons(n: int, seed: int) -> LabelledPoints:
    """`moons` with the half circle of each point: 0 the upper, 1 the lower."""
    n, rng = _positive_int("n", n), _generator(seed)
    angle = rng.uniform(0.0, np.pi, size=n)
    lower = rng.integers(2, size=n)
    sign = 1.0 - 2.0 * lower
    half_circle = np.column_stack(
        (lower + sign * np.cos(angle), 0.5 * lower + sign * np.sin(angle))
    )
    points = 2.0 * (half_circle + 0.1 * rng.standard_normal((n, 2))) + np.array([-1.0, -0.2])
    return LabelledPoints(points, lower)


def labelled_moons_log_prob(points: Points, labels: Int64[np.ndarray, " n"]) -> np.ndarray:
    """Log-density of `labelled_moons` at points given their labels, in nats; shape (n,).

    A half circle blurred by N(0, 0.2^2 I), by Gauss-Legendre quadrature over the angle with 128
    nodes; relative error below 1e-9 near the moons.
    """
    x, lower = _plane(points), np.asarray(labels)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(128)
    angle, sign = np.pi / 2 * (nodes + 1), 1.0 - 2.0 * lower
    first = 2.0 * (lower + sign * np.cos(angle)) - 1.0 - x[:, :1]
    second = 2.0 * (0.5 * lower + sign * np.sin(angle)) - 0.2 - x[:, 1:]
    exponents = -(first**2 + second**2) / (2 * 0.2**2)
    inner = np.logaddexp.reduce(exponents + np.log(weights / 2), axis=1)
    return inner - np.log(2 * np.pi * 0.2**2)


def circles(n: int, seed: int) -> Points:
    """Draw from two equally likely concentric circles of radius 3 and 1.5 with noise 0.24.

    Arguments, returns and errors as in `eight_gaussians`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    angle = rng.uniform(0.0, 2 * np.pi, size=n)
    radius = rng.choice(_CIRCLES_RADII, size=n)
    ring = radius[:, None] * np.column_stack((np.cos(angle), np.sin(angle)))
    return ring + _CIRCLES_STD * rng.standard_normal((n, 2))


def circles_log_prob(x: Points) -> Float64[np.ndarray, " n"]:
    """Log-density of `circles` at points `x` of shape (n, 2), in nats; shape (n,).

    A uniform circle of radius R blurred by N(0, s^2 I) has density
    exp(-(r^2 + R^2) / (2 s^2)) I_0(r R / s^2) / (2 pi s^2), with r = |x|.
    """
    r = np.linalg.norm(_plane(x), axis=-1)[:, None]
    variance = _CIRCLES_STD**2
    z = r * _CIRCLES_RADII / variance
    # The largest exponent is taken out: -(r^2 + R^2)/(2 s^2) + z = -(r - R)^2/(2 s^2).
    rings = -((r - _CIRCLES_RADII) ** 2) / (2 * variance) + _log_scaled_bessel(z)
    return np.logaddexp.reduce(rings, axis=1) - np.log(2 * 2 * np.pi * variance)


def _log_scaled_bessel(z: np.ndarray) -> np.ndarray:
    """log(exp(-z) I_0(z)) for z >= 0, relative error of the argument of the log below 1e-13."""
    switch = 50.0
    small = np.minimum(z, switch)
    large = np.maximum(z, switch)
    # Hankel's expansion; its eighth term is below 1e-15 from z = 50 on.
    series, term = np.ones_like(large), np.ones_like(large)
    for k in range(1, 9):
        term = term * (2 * k - 1) ** 2 / (8 * k * large)
        series = series + term
    far = np.log(series) - 0.5 * np.log(2 * np.pi * large)
    return np.where(z <= switch, np.log(np.i0(small)) - small, far)


def pinwheel(n: int, seed: int) -> Points:
    """Draw from a pinwheel of five equally likely bent blades, doubled.

    Blade k: f ~ N((1, 0), diag(0.3, 0.1)^2), turned clockwise by 2 pi k/5 + 0.25 exp(f_1).
    Arguments, returns and errors as in `eight_gaussians`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    blade = rng.standard_normal((n, 2)) * np.array([0.3, 0.1]) + np.array([1.0, 0.0])
    angle = 2 * np.pi / 5 * rng.integers(5, size=n) + 0.25 * np.exp(blade[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    turned = (blade[:, 0] * cos + blade[:, 1] * sin, blade[:, 1] * cos - blade[:, 0] * sin)
    return 2.0 * np.column_stack(turned)


def two_spirals(n: int, seed: int) -> Points:
    """Draw from two point-symmetric spirals (-s cos s, s sin s)/3, s = 3 pi sqrt(U[0, 1)).

    Uniform noise on [0, 0.5)^2 is added before the division by 3 and the choice of the sign,
    Gaussian noise of standard deviation 0.1 after them. Arguments, returns and errors as in
    `eight_gaussians`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    s = 3 * np.pi * np.sqrt(rng.random(n))
    arm = s[:, None] * np.column_stack((-np.cos(s), np.sin(s))) + 0.5 * rng.random((n, 2))
    sign = rng.choice(np.array([-1.0, 1.0]), size=n)
    return sign[:, None] * arm / 3.0 + 0.1 * rng.standard_normal((n, 2))


def checkerboard(n: int, seed: int) -> Points:
    """Draw uniformly from the eight dark 2 x 2 squares of a 4 x 4 board on [-4, 4]^2.

    The lower left square is dark. Arguments, returns and errors as in `eight_gaussians`.
    """
    n, rng = _positive_int("n", n), _generator(seed)
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return 2.0 * (np.column_stack((column, row)) + rng.random((n, 2))) - 4.0


def checkerboard_log_prob(x: Points) -> Float64[np.ndarray, " n"]:
    """Log-density of `checkerboard` at points `x` of shape (n, 2), in nats; shape (n,).

    -log 32 on the dark squares and -inf elsewhere; the entropy is log 32.
    """
    square = np.floor((_plane(x) + 4.0) / 2.0)
    on_board = np.all((square >= 0) & (square < 4), axis=1)
    dark = on_board & (np.sum(square, axis=1) % 2 == 0)
    return np.where(dark, -np.log(_CHECKERBOARD_AREA), -np.inf)


_SAMPLERS: dict[str, Callable[[int, int], np.ndarray]] = {
    "8gaussians": eight_gaussians,
    "swissroll": swissroll,
    "moons": moons,
    "circles": circles,
    "pinwheel": pinwheel,
    "2spirals": two_spirals,
    "checkerboard": checkerboard,
}

TOY_NAMES: tuple[str, ...] = tuple(_SAMPLERS)


def toy(name: str, n: int, seed: int) -> Points:
    """Draw `n` points of the toy law called `name`, one of `TOY_NAMES`.

    Arguments: `name`; `n`, the number of rows; `seed`, a non-negative integer. Returns float64
    points of shape (n, 2). Raises `ValueError` for an unknown name, and otherwise as
    `eight_gaussians`.
    """
    if name not in _SAMPLERS:
        raise ValueError(f"Expected name to be one of {', '.join(TOY_NAMES)}; got {name!r}.")
    return _SAMPLERS[name](n, seed)
