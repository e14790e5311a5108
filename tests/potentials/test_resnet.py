"""Closed forms of SPEC 2 against plain NumPy, automatic differentiation and finite differences.

Quick are every dimension and every depth once, by NumPy and by differences, and automatic
differentiation of two of those; all combinations are slow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from otflow.potentials import ResNetPotential
from otflow.support.precision import precision
from tests.helpers import random_resnet, resnet_by_the_book

# Float64 rounding through a few small matrix products is some 1e-14 of the largest entry.
RTOL = 1e-10
DIMS, DEPTHS, WIDTH, POINTS = (1, 2, 7), (0, 1, 2, 3), 6, 4
TIMES = {"scalar": 0.3, "per-point": np.array([0.0, 0.25, 0.6, 1.0])}
QUICK = {
    (2, 0, "per-point"),
    (2, 1, "per-point"),
    (7, 2, "per-point"),
    (7, 2, "scalar"),
    (1, 3, "per-point"),
}
AUTODIFF = {(2, 0, "per-point"), (7, 2, "scalar")}


def cases(quick):
    return pytest.mark.parametrize(
        ("dim", "depth", "t"),
        [
            pytest.param(
                dim,
                depth,
                t,
                id=f"{dim}-{depth}-{name}",
                marks=() if (dim, depth, name) in quick else pytest.mark.slow,
            )
            for dim in DIMS
            for depth in DEPTHS
            for name, t in TIMES.items()
        ],
    )


def close(got, expected, tolerance=RTOL):
    """Agreement relative to the largest entry: entries tiny by chance carry its rounding."""
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    assert scale > 0
    assert np.shape(got) == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)


def points(dim):
    return np.random.default_rng(7).standard_normal((POINTS, dim))


@jax.jit
def closed_forms(p, x, t):
    with_laplacian, with_hessian = p.gradient_and_laplacian(x, t), p.gradient_and_hessian(x, t)
    return {
        "value": p.value(x, t),
        "gradient": p.gradient(x, t),
        "gradient beside the Laplacian": with_laplacian.gradient,
        "gradient beside the Hessian": with_hessian.gradient,
        "laplacian": with_laplacian.laplacian,
        "hessian": with_hessian.hessian,
    }


@jax.jit
def by_autodiff(p, x, t):
    """Everything from Phi alone; t (n,)."""
    s = jnp.concatenate([x, t[:, None]], axis=1)

    def phi(s):
        return p.value(s[None, :-1], s[-1])[0]

    gradient = jax.vmap(jax.grad(phi))(s)
    hessian = jax.vmap(jax.hessian(phi))(s)[:, :-1, :-1]
    return expand(jax.vmap(phi)(s), gradient, hessian)


def expand(value, gradient, hessian):
    return {
        "value": value,
        "gradient": gradient,
        "gradient beside the Laplacian": gradient,
        "gradient beside the Hessian": gradient,
        "laplacian": hessian.trace(axis1=1, axis2=2),
        "hessian": hessian,
    }


def by_numpy(p, x, t):
    rows = [resnet_by_the_book(p, xi, ti) for xi, ti in zip(x, t, strict=True)]
    return expand(*(np.array([getattr(r, f) for r in rows]) for f in rows[0]._fields))


@pytest.mark.usefixtures("float64")
class TestClosedForms:
    @cases(QUICK)
    def test_matches_numpy(self, dim, depth, t):
        self.compare(dim, depth, t, by_numpy)

    @cases(AUTODIFF)
    def test_matches_autodiff(self, dim, depth, t):
        self.compare(dim, depth, t, by_autodiff)

    @staticmethod
    def compare(dim, depth, t, route):
        p, x = random_resnet(dim, WIDTH, depth, seed=dim + 10 * depth), points(dim)
        got, expected = closed_forms(p, x, t), route(p, x, np.broadcast_to(t, POINTS))
        for name in expected:
            close(got[name], expected[name])

    @cases(QUICK)
    def test_matches_central_differences(self, dim, depth, t):
        """Steps of 1e-5: truncation about 1e-10, rounding eps/1e-5: 1e-8 leaves room for both."""
        p, x = random_resnet(dim, WIDTH, depth, seed=dim + 10 * depth), points(dim)
        t = np.broadcast_to(t, POINTS)
        got, step = closed_forms(p, x, t), 1e-5
        differences = []
        for e in step * np.eye(dim + 1):
            up, down = (closed_forms(p, x + z * e[:-1], t + z * e[-1]) for z in (1, -1))
            differences.append(
                {k: (np.asarray(up[k]) - down[k]) / (2 * step) for k in ("value", "gradient")}
            )
        close(got["gradient"], np.stack([d["value"] for d in differences], axis=1), 1e-8)
        hessian = np.stack([d["gradient"][:, :-1] for d in differences[:-1]], axis=2)
        close(got["hessian"], hessian, 1e-8)
        close(got["laplacian"], hessian.trace(axis1=1, axis2=2), 1e-8)


@pytest.mark.usefixtures("float64")
def test_laplacian_and_hessian_alone():
    p, x = random_resnet(7, WIDTH, 2), points(7)
    got = closed_forms(p, x, 0.3)
    laplacian, hessian = jax.jit(lambda p, x: (p.laplacian(x, 0.3), p.hessian(x, 0.3)))(p, x)
    close(laplacian, got["laplacian"])
    close(hessian, got["hessian"])


def loss(forms):
    """A scalar that every closed form enters, nonlinearly."""
    return sum(jnp.sum(jnp.sin(v * k)) for k, v in enumerate(forms.values(), start=1))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "depth", [0, 2, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (1, 3))]
)
def test_derivatives_with_respect_to_parameters(depth):
    """What training does: through the closed forms, against through autodiff and differences."""
    p, x = random_resnet(2, WIDTH, depth, seed=3), points(2)
    t = TIMES["per-point"]
    at = jax.jit(jax.value_and_grad(lambda p: loss(closed_forms(p, x, t))))
    _, got = at(p)
    expected = jax.jit(jax.grad(lambda p: loss(by_autodiff(p, x, t))))(p)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        close(a, b)
    leaves, tree = jax.tree.flatten(jax.tree.map(np.asarray, p))
    rng, step = np.random.default_rng(0), 1e-5
    for i, leaf in enumerate(leaves):
        direction = rng.standard_normal(leaf.shape)

        def shifted(z, i=i, direction=direction):
            return tree.unflatten([*leaves[:i], leaves[i] + z * direction, *leaves[i + 1 :]])

        difference = (float(at(shifted(step))[0]) - float(at(shifted(-step))[0])) / (2 * step)
        slope = float(np.vdot(jax.tree.leaves(got)[i], direction))
        # truncation: step^2 times a third derivative of some 1e3
        np.testing.assert_allclose(slope, difference, rtol=1e-6, atol=1e-6)


def test_float32_agrees_to_its_own_precision():
    p = random_resnet(7, WIDTH, 2)
    x = points(7).astype(np.float32)
    got = closed_forms(p, x, 0.3)
    with precision("float64"):
        double = jax.tree.map(lambda v: np.asarray(v, np.float64), p)
        exact = closed_forms(double, x.astype(np.float64), 0.3)
    for name, value in got.items():
        assert value.dtype == np.float32
        close(value, exact[name], 1e-5)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def create(dim, width, depth, seed):
    return ResNetPotential.create(dim, width, depth, jax.random.key(seed), output_scale=0.7)


class TestCreate:
    def test_shapes_and_ranges(self):
        """K, b uniform within 1/sqrt(fan-in), A a hundredth of that, w constant, b, c zero."""
        p = create(3, 400, 2, 0)
        assert (p.dim, p.width, p.depth) == (3, 400, 2)
        assert [K.shape for K in p.weights] == [(400, 4), (400, 400), (400, 400)]
        assert p.A.shape == (4, 4)
        np.testing.assert_array_equal(p.w, np.float32(0.7))
        np.testing.assert_array_equal(p.b, 0)
        assert p.c == 0
        for fan, arrays in zip([4, 400, 400], zip(p.weights, p.biases, strict=True), strict=True):
            for array in arrays:
                bound = 1 / np.sqrt(fan)
                assert np.abs(array).max() <= bound
                # 400 or more uniform draws: standard deviation within 10 % of bound/sqrt(3)
                np.testing.assert_allclose(np.std(array), bound / np.sqrt(3), rtol=0.1)
                assert abs(np.mean(array)) < 0.2 * bound
        assert 0 < np.abs(p.A).max() <= 0.01 / 2

    def test_rank_of_A_is_at_most_ten(self):
        p = jax.eval_shape(lambda key: ResNetPotential.create(12, 3, 1, key), jax.random.key(0))
        assert p.A.shape == (10, 13)

    def test_every_array_is_drawn_independently(self):
        p, other = create(3, 400, 2, 0), create(3, 400, 2, 1)
        arrays = [*p.weights[1:], *(np.outer(b, b) for b in p.biases)]
        for i, a in enumerate(arrays):
            assert not any(np.allclose(a, b) for b in arrays[:i])
        assert not np.allclose(p.weights[0], other.weights[0])

    def test_zero_output_scale_leaves_the_quadratic_alone(self):
        p = ResNetPotential.create(2, 4, 2, jax.random.key(0), output_scale=0.0)
        hessian = jax.jit(lambda x: p.hessian(x, 0.5))(points(2).astype(np.float32))
        Ax = np.asarray(p.A)[:, :2]
        expected = np.broadcast_to(Ax.T @ Ax, hessian.shape)
        np.testing.assert_allclose(hessian, expected, rtol=1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_dtype_follows_the_context(self, dtype):
        with precision(dtype):
            p = jax.eval_shape(lambda: ResNetPotential.create(2, 4, 2, jax.random.key(0)))
            assert {leaf.dtype.name for leaf in jax.tree.leaves(p)} == {dtype}

    def test_depth_zero_starts_with_ridges_of_one_slope_spread_over_the_data(self):
        """Directions on the sphere, slope 1.5 in x; offsets put ridges within |x| <= 3."""
        p = create(3, 2000, 0, 0)
        assert (p.dim, p.width, p.depth) == (3, 2000, 0)
        (K,), (b,) = jax.tree.map(np.asarray, (p.weights, p.biases))
        assert K.shape == (2000, 4)
        np.testing.assert_allclose(np.linalg.norm(K[:, :3], axis=1), 1.5, rtol=1e-5)
        # uniform on the sphere of radius 1.5: mean 0, E K K' = 1.5^2 / 3 I; about 4 deviations
        np.testing.assert_allclose(np.mean(K[:, :3], axis=0), 0, atol=0.08)
        np.testing.assert_allclose(K[:, :3].T @ K[:, :3] / 2000, 0.75 * np.eye(3), atol=0.08)
        assert 4.4 < np.abs(b).max() <= 4.5
        np.testing.assert_allclose(np.std(b), 4.5 / np.sqrt(3), rtol=0.1)
        np.testing.assert_array_equal(p.w, np.float32(0.7))
        assert 0 < np.abs(p.A).max() <= 0.01 / 2

    @pytest.mark.parametrize(("name", "least"), [("dim", 1), ("width", 1), ("depth", 0)])
    def test_sizes_too_small_are_rejected(self, name, least):
        sizes = {"dim": 2, "width": 3, "depth": 1} | {name: least - 1}
        message = rf"^{name}: expected an integer >= {least}; got {least - 1}"
        with pytest.raises(ValueError, match=message):
            ResNetPotential.create(**sizes, key=jax.random.key(0))


BAD_PARAMETERS = {
    "A": ("A", np.zeros((3, 4))),
    "b": ("b", np.zeros(2)),
    "c": ("c", np.zeros(1)),
    "w": ("w", np.zeros(5)),
    "inner weight": ("weights", (np.zeros((4, 3)), np.zeros((4, 5)))),
    "bias": ("biases", (np.zeros(4), np.zeros(5))),
    "one bias short": ("biases", (np.zeros(4),)),
}


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS.values(), ids=BAD_PARAMETERS)
def test_parameters_of_the_wrong_shape_are_rejected(name, value):
    arrays = {
        "A": np.zeros((3, 3)),
        "b": np.zeros(3),
        "c": np.zeros(()),
        "w": np.zeros(4),
        "weights": (np.zeros((4, 3)), np.zeros((4, 4))),
        "biases": (np.zeros(4), np.zeros(4)),
    }
    ResNetPotential(**arrays)
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        ResNetPotential(**arrays | {name: value})


METHODS = ["value", "gradient", "gradient_and_laplacian", "gradient_and_hessian"]
BAD_INPUT = {
    "x of another dimension": ("x", np.zeros((4, 3)), 0.0),
    "one point without its axis": ("x", np.zeros(2), 0.0),
    "t of another length": ("t", np.zeros((4, 2)), np.zeros(3)),
    "t as a column": ("t", np.zeros((4, 2)), np.zeros((4, 1))),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "x", "t"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_input_of_the_wrong_shape_is_rejected(method, name, x, t):
    with pytest.raises(ValueError, match=f"^{name}: expected .*got"):
        getattr(random_resnet(2), method)(x.astype(np.float32), np.asarray(t, np.float32))
