"""Two clusters, one of which grows: transport with growth beside plain transport.

    python examples/growth.py [--out growth.png] [--quick]

Half of the cells are in each cluster at first; later the right one has three quarters of them and
both have moved. Plain transport, the exact plan between the cells, has to send some across the gap.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from otflow import transport_between
from otflow.reference import discrete

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
size = {"n_steps": 1, "width": 16, "max_components": 2, "seed": 0}
quick = {"max_iter": 10, "plan_iter": 10, "width": 2}
settings = size | (quick if options.quick else {"max_iter": 250, "plan_iter": 300})
found = transport_between(X, Y, growth=1.5, **settings)
ends = {
    "delta = 1.5: mass grows": (found.transform(X), found.growth(X)),
    "plain transport": (discrete(X, Y).map(), np.ones(len(X))),
}

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharex=True, sharey=True, layout="constrained")
left = X[:, 0] < 0
for axis, (title, (end, factor)) in zip(axes, ends.items(), strict=True):
    crossed = np.mean(end[left, 0] > 0)
    sides = [factor[left].mean(), factor[~left].mean()]
    print(f"{title}: growth left {sides[0]:.2f}, right {sides[1]:.2f}; {crossed:.0%} cross")
    axis.plot(*Y.T, ".", ms=3, color="#bbbbbb", label="cells later")
    axis.plot(*np.stack([X[::6], end[::6]]).transpose(2, 0, 1), color="#1b1b1b", lw=0.4)
    axis.plot(*X.T, ".", ms=3, color="#0072b2", label="cells at first")
    axis.scatter(*end.T, s=5 * factor, color="#d55e00", label="where they end, area: mass")
    axis.set_title(f"{title}; {crossed:.0%} of the left cross", fontsize=11)
print(f"cells left: {left.mean():.2f} at first, {np.mean(Y[:, 0] < 0):.2f} later")
axes[0].legend(loc="lower center", fontsize=8)
figure.savefig(options.out, dpi=80)
