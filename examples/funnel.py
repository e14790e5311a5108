"""Neal's funnel from its log-density alone: draws of the flow, weighted, beside exact ones.

python examples/funnel.py [--out funnel.png] [--quick]
"""

import argparse

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from otflow import fit_unnormalised

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="funnel.png")
parser.add_argument("--quick", action="store_true", help="little training, few draws")
options = parser.parse_args()
N = 200 if options.quick else 4000


def log_density(theta):
    """v ~ N(0, 9), x given v ~ N(0, exp v); Z = 6 pi."""
    v, x = theta
    return -(v**2) / 18 - 0.5 * x**2 * jnp.exp(-v) - 0.5 * v


short = {"max_iter": 5, "width": 4, "n_steps": 1, "batch_size": 64} if options.quick else {}
posterior = fit_unnormalised(log_density, 2, names=["v", "x"], seed=0, verbose=False, **short)
drawn = posterior.weighted(N, seed=1)
chain = posterior.metropolis(N, chains=1, seed=2)
found = posterior.evidence(N)
low, high = found.line("log Z").interval
print(f"log Z {found.log_evidence:.3f} in [{low}, {high}], true {np.log(6 * np.pi):.3f}")
print(f"Pareto k {found.pareto_k:.2f}, acceptance {chain.acceptance:.2f}")

rng = np.random.default_rng(0)
v = 3 * rng.standard_normal(N)
exact = np.stack([v, np.exp(v / 2) * rng.standard_normal(N)], axis=1)
panels = {
    "exact": exact,
    f"flow: worth {100 * found.ess / found.n:.0f} % of as many": drawn.points,
    f"corrected: {100 * chain.acceptance:.0f} % accepted": chain.points[0],
}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.8), layout="constrained", sharey=True)
for axis, (title, points) in zip(axes, panels.items(), strict=True):
    squeezed = np.arcsinh(points[:, 1])
    axis.scatter(squeezed, points[:, 0], s=2, alpha=0.3, linewidths=0)
    axis.set(title=title, xlabel="arcsinh x", xlim=(-6, 6), ylim=(-11, 11))
axes[0].set_ylabel("v")
figure.savefig(options.out, dpi=80)
