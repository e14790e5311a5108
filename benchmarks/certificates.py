"""Certificates on problems with known answers, on bad flows and on real data: docs/certificates.md.

    python benchmarks/certificates.py            # everything: about 25 minutes on 2 busy cores
    python benchmarks/certificates.py --quick    # small sizes

Data sets are looked for in the folder `shared/data` beside the repository and skipped if absent.
"""

import argparse
import pathlib
import platform
import sys
import time
import warnings

import jax
import jaxlib
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.certificates import bad_flows  # noqa: E402

from otflow import OTFlow  # noqa: E402
from otflow.certificates import DualConfig, bracket_pairs, certify, certify_model  # noqa: E402
from otflow.datasets import digits  # noqa: E402
from otflow.flow.flow import Flow  # noqa: E402
from otflow.potentials import GaussianBase  # noqa: E402
from otflow.reference import gaussian, product_mixture  # noqa: E402
from otflow.schemes import Conforming  # noqa: E402
from otflow.support.precision import cast, precision  # noqa: E402
from otflow.targets import GaussianMixture, RotatedProduct  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
ALPHA = 10.0
TRAINING = {
    2: {"width": 128, "max_iter": 500, "natural_iter": 60, "batch_size": 4096},
    8: {"width": 128, "max_iter": 800, "natural_iter": 60, "batch_size": 2048},
    32: {"width": 128, "max_iter": 800, "natural_iter": 5, "batch_size": 1024},
}


def print_bracket(name: str, dim: int, truth: float, error: float, found) -> None:
    """One row: the truth, its own standard error, and whether the bracket holds it."""
    excess = getattr(found, "excess", None)
    if excess is None:
        excess = found.line("excess transport").interval[1]
    inside = found.lower - 2 * error <= truth <= found.upper + 2 * error
    print(
        f"{name:<24}{dim:>3} {truth:>9.5f} {error:>8.1e} {found.lower:>9.5f} {found.upper:>9.5f} "
        f"{'yes' if inside else 'NO':>6} {100 * found.relative_width:>7.2f} "
        f"{100 * excess / found.upper:>8.3f}",
        flush=True,
    )


def known_truth(quick: bool) -> None:
    """Show 1: brackets of 1/2 W2^2 whose truth is known."""
    print(
        "\nproblem                   d     truth   +-        L         U     inside width% excess%"
    )
    rng = np.random.default_rng(0)
    for dim in (2, 8) if quick else (2, 8, 32):
        root = rng.standard_normal((dim, dim)) / np.sqrt(dim)
        mean, cov = 0.5 * rng.standard_normal(dim), root @ root.T + 0.3 * np.eye(dim)
        with precision("float64"):
            flow = Flow(GaussianBase.solve(mean, cov, ALPHA), None, Conforming(1))
            rho0 = GaussianMixture([1.0], mean[None], cov[None])
        truth = gaussian(mean, cov, ALPHA).transport
        report("Gaussian, exact flow", dim, truth, 0.0, flow, rho0)
    for dim in (2,) if quick else (2, 8, 32):
        trained_product(dim, quick)
    for dim in (2, 8, 32):
        for_pairs(dim, quick)


def report(name: str, dim: int, truth: float, error: float, flow: Flow, rho0) -> None:
    """Certify and print the bracket, and the duality gap of J_alpha beside it."""
    found = certify(flow, density=rho0, alpha=ALPHA)
    print_bracket(name, dim, truth, error, found)
    lines = {line.name: line.value for line in found.lines}
    if "duality gap of J_alpha" in lines:
        print(
            f"    J_alpha {lines['J_alpha of the flow']:.5f}, J* >= "
            f"{lines['J*_alpha, lower bound']:.5f}, gap <= {lines['duality gap of J_alpha']:.5f}; "
            f"W2 to target {lines['W2(T#rho0, target)']:.4f}; largest error "
            f"{found.largest_error.name}; findings {list(found.findings)}; {found.seconds:.0f} s",
            flush=True,
        )
    else:
        print(f"    findings {list(found.findings)}; {found.seconds:.0f} s", flush=True)


def trained_product(dim: int, quick: bool) -> None:
    """A trained one-step flow: where it is the gradient of a convex function, its cost is W2's."""
    exact = product_mixture(dim, ALPHA)
    rows = [np.tile(v, (dim, 1)) for v in ([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7])]
    with precision("float64"):
        rho0 = RotatedProduct(*rows, exact.rotation)
    settings = TRAINING[dim] | ({"max_iter": 200, "natural_iter": 20} if quick else {})
    options = {"potential": "resnet", "depth": 0, "n_steps": 1, "random_state": 0, "verbose": False}
    model = OTFlow(alpha=ALPHA, **options, **settings)
    flow = cast(model.fit_density(rho0).flow_, "float64")
    x = exact.sample(5, 200_000)
    y = np.concatenate([np.asarray(flow.forward(part)) for part in np.split(x, 20)])
    cost = 0.5 * np.sum((y - x) ** 2, axis=1)
    known = 0.5 * np.sum((exact.map(x) - x) ** 2, axis=1)  # control variate
    truth = cost.mean() - known.mean() + exact.transport
    error = (cost - known).std() / np.sqrt(len(x))
    report("product, trained flow", dim, truth, error, flow, rho0)


def for_pairs(dim: int, quick: bool) -> None:
    """The optimal pairs of the continuous Wasserstein-2 benchmark."""
    path = DATA / f"w2pair_{dim}d.npz"
    if not path.exists():
        print(f"{path.name}: not found in shared/data, skipped")
        return
    with np.load(path) as data:
        x, y, truth = data["x_test"], data["y_test"], float(data["half_w2_squared"])
    config = DualConfig(regression_steps=300, ascent_steps=100) if quick else None
    print_bracket("w2pair, true pairs", dim, truth, 0.0, bracket_pairs(x, y, config=config))


def coverage(quick: bool) -> None:
    """Show 2: how often the bracket holds the truth, 400 rows each."""
    print("\ncoverage of the 95 % bracket, 400 rows:")
    config = DualConfig(width=32, regression_steps=1000, ascent_steps=100, batch_size=200)
    for name, exact in (
        ("Gaussian", gaussian(bad_flows.MEAN, bad_flows.COV, ALPHA)),
        ("product", product_mixture(2, ALPHA)),
    ):
        below = above = 0
        runs, widths = 20 if quick else 200, []
        for seed in range(runs):
            x = exact.sample(seed, 400)
            found = bracket_pairs(x, exact.map(x), config=config, seed=seed)
            below += found.upper < exact.transport
            above += found.lower > exact.transport
            widths.append(found.relative_width)
        print(
            f"{name:<10} d = 2: {runs - below - above} of {runs} hold the truth ({below} below, "
            f"{above} above it), median width {100 * np.median(widths):.1f} %",
            flush=True,
        )


def bad(quick: bool) -> None:
    """Show 3: what the certificate says about flows with one known fault each."""
    print("\nflows with a known fault:")
    flows = {
        "none": bad_flows.gaussian_flow(),
        "rotated by 30 degrees": bad_flows.gaussian_flow(
            bad_flows.Rotated(Conforming(1), np.pi / 6)
        ),
        "rotated by 120 degrees": bad_flows.gaussian_flow(
            bad_flows.Rotated(Conforming(1), 2 * np.pi / 3)
        ),
        "curved": bad_flows.curved_flow(),
        "untrained": bad_flows.untrained_flow(),
        "log-det times 0.9": bad_flows.gaussian_flow(bad_flows.WrongLogDet(Conforming(1), 0.9)),
    }
    rho0 = bad_flows.density()
    for name, flow in flows.items():
        found = certify(flow, density=rho0, alpha=ALPHA, n=2**13 if quick else 2**15)
        print(f"{name}: [{found.lower:.4f}, {found.upper:.4f}], {list(found.findings)}", flush=True)


def real(quick: bool) -> None:
    """Show 4: real data."""
    print("\nreal data, in the standardised columns:")
    steps = 20 if quick else 600
    split = digits(0)
    model = OTFlow(
        alpha=100.0, beta=0.1, scheme="rk4", batch_size=256, learning_rate=0.005,
        max_iter=steps, random_state=0, verbose=False,
    ).fit(split.train, X_val=split.validation)  # fmt: skip
    show_real("digits", certify_model(model, np.concatenate([split.validation, split.test])))
    path = DATA / "gas_turbine.npz"
    if path.exists():
        with np.load(path) as data:
            X = data["X"].astype(float)
        rng = np.random.default_rng(0)
        X = X[rng.permutation(len(X))]
        X = X + 1e-3 * X.std(axis=0) * rng.uniform(size=X.shape)
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        cut = int(0.8 * len(X))
        model = OTFlow(max_iter=steps, random_state=0, verbose=False).fit(X[:cut])
        show_real("gas turbine", certify_model(model, X[cut:]))
    path = DATA / "embryoid_body.npz"
    if path.exists():
        show_real("embryoid body, day 0 to 1", embryoid(path, steps))


def embryoid(path: pathlib.Path, steps: int):
    """From the cells of day 0 to a Gaussian mixture fitted to those of day 1, 5 components."""
    from sklearn.mixture import GaussianMixture as Fitted

    with np.load(path) as data:
        X, t = data["X"][:, :5].astype(float), data["t"]
    first, second = (X[t == day] for day in np.unique(t)[:2])
    scale = np.concatenate([first, second]).std(axis=0)
    first, second = first / scale, second / scale
    mixture = Fitted(3, random_state=0, reg_covar=1e-3).fit(second)
    target = GaussianMixture(mixture.weights_, mixture.means_, mixture.covariances_)
    rows = np.random.default_rng(0).permutation(len(first))
    cut = len(rows) // 2
    model = OTFlow(
        max_iter=steps, target=target, standardize=False, random_state=0, verbose=False
    ).fit(first[rows[:cut]])
    return certify_model(model, first[rows[cut:]])


def show_real(name: str, found) -> None:
    """The certificate in short."""
    print(
        f"{name}, d = {found.dim}, {found.n} rows: [{found.lower:.4f}, {found.upper:.4f}], width "
        f"{found.relative_width:.1%}, {found.seconds:.0f} s; largest error "
        f"{found.largest_error.name}"
    )
    for line in found.lines[1:]:
        print(f"    {line.name}: {line.value:.4g} [{line.unit}] {line.label}")
    for item in found.budget:
        print(f"    budget, {item.name}: {item.value:.3g}")
    for finding in found.findings:
        print(f"    finding: {finding}")
    sys.stdout.flush()


PARTS = {"truth": known_truth, "coverage": coverage, "bad": bad, "real": real}


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="Explicitly requested dtype")
    print(
        f"{platform.machine()}, {jax.default_backend()}, jax {jax.__version__}, "
        f"jaxlib {jaxlib.__version__}, python {platform.python_version()}"
    )
    for part in given.parts:
        start = time.perf_counter()
        PARTS[part](given.quick)
        print(f"({part}: {time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
