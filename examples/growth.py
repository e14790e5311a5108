"""Two clusters, one of which grows: transport with growth beside plain transport.

    python examples/growth.py [--out growth.png] [--quick]

Half of the cells are in each cluster at first; later the right one has three quarters of them and
both have moved. Plain transport has to send cells across the gap.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from otflow import transport_between

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="growth.png")
parser.add_argument("--quick", action="store_true", help="little training")
options = parser.parse_args()
rng = np.random.default_rng(0)


def cells(n, left, height):
    """n cells, `left` of them in the first cluster."""
    side = np.where(rng.uniform(size=n) < left, -3.0, 3.0)
    return np.column_stack([side, np.full(n, height)]) + 0.6 * rng.standard_normal((n, 2))


X, Y = cells(600, 0.5, 0.0), cells(600, 0.25, 1.5)
size = {"n_steps": 3, "width": 24, "max_components": 2, "seed": 0}
quick = {"max_iter": 10, "plan_iter": 10, "width": 2}
settings = size | (quick if options.quick else {"max_iter": 300, "plan_iter": 400})

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
prices = {"delta = 1.5: mass grows": 1.5, "delta = 1000: plain transport": 1000.0}
for axis, (title, delta) in zip(axes, prices.items(), strict=True):
    found = transport_between(X, Y, growth=delta, **settings)
    end, factor = found.transform(X), found.growth(X)
    sides = [factor[(X[:, 0] < 0) == left].mean() for left in (True, False)]
    crossed = np.mean((X[:, 0] < 0) & (end[:, 0] > 0)) / np.mean(X[:, 0] < 0)
    print(f"{title}: growth left {sides[0]:.2f}, right {sides[1]:.2f}; {crossed:.0%} cross")
    axis.plot(*Y.T, ".", ms=3, color="#bbbbbb", label="cells later")
    axis.plot(*np.stack([X[::6], end[::6]]).transpose(2, 0, 1), color="#1b1b1b", lw=0.4)
    axis.plot(*X.T, ".", ms=3, color="#0072b2", label="cells at first")
    axis.scatter(*end.T, s=5 * factor, color="#d55e00", label="where they end, area: mass")
    axis.set_title(f"{title}; {crossed:.0%} of the left cross", fontsize=11)
axes[0].legend(loc="lower center", fontsize=8)
figure.savefig(options.out, dpi=80)
