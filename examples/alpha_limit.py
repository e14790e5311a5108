"""The alpha-limit: from the identity to the optimal transport map, against exact answers.

    python examples/alpha_limit.py [--out alpha_limit.png] [--quick]

The density is a rotated product of two bimodal laws, for which J*_alpha, the map and 1/2 W2^2 are
known. One conforming step is Brenier's map; natural gradients bring it to its minimum.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from otflow import OTFlow, RotatedProduct, reference
from otflow.flow.evaluation import evaluate

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="alpha_limit.png")
parser.add_argument("--quick", action="store_true", help="two penalties, little training")
options = parser.parse_args()

limit = reference.product_mixture(dim=2, alpha=1.0)
x = limit.sample(0, 1500)
mixture = [np.tile(v, (2, 1)) for v in ([0.4, 0.6], [-2.0, 1.5], [0.5, 0.7])]
density = RotatedProduct(*mixture, limit.rotation)
alphas = (1.0, 10.0) if options.quick else (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
steps = {"max_iter": 20, "natural_iter": 2} if options.quick else {"natural_iter": 100}

flows, found = {}, {}
for alpha in alphas:
    model = OTFlow(alpha=alpha, n_steps=1, depth=0, width=64, random_state=0, **steps)
    flows[alpha] = model.fit_density(density)
    n = 10_000 if options.quick else 200_000
    found[alpha] = evaluate(model.flow_, density, alpha, n=n).objective
    exact = reference.product_mixture(dim=2, alpha=alpha).objective
    print(f"alpha {alpha:g}: J {found[alpha].mean:.4f}, exact {exact:.4f}")

figure = plt.figure(figsize=(10, 6.4), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(4, 5))
shown = alphas[1::2]
colour = np.sign((x @ limit.rotation)[:, 0])  # which mode of the first factor a point is from
for axis, alpha in zip(top.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
    axis.scatter(*flows[alpha].transform(x).T, c=colour, s=2, cmap="coolwarm", vmin=-1.6, vmax=1.6)
    axis.set(title=f"T(x), alpha = {alpha:g}", xlim=(-4, 4), ylim=(-4, 4), aspect="equal")

axis = bottom.subplots()
exact = [reference.product_mixture(dim=2, alpha=a) for a in np.geomspace(alphas[0], alphas[-1], 40)]
axis.plot([e.alpha for e in exact], [e.objective for e in exact], color="black", label="J*, exact")
axis.plot(alphas, [e.mean for e in found.values()], "o", color="#d55e00", label="J of the flows")
axis.axhline(limit.half_w2_squared, color="#0072b2", ls="--", label="1/2 W2² (its limit)")
axis.set(xscale="log", xlabel="alpha", ylabel="transport + alpha KL")
axis.legend()
figure.savefig(options.out, dpi=80)
