"""Toy sets: data, samples and densities of four laws in the plane.

python examples/toys.py [--out toys.png] [--quick]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from otflow import OTFlow
from otflow.datasets import toy

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="toys.png")
parser.add_argument("--quick", action="store_true", help="one law, little training")
options = parser.parse_args()

laws = ["8gaussians"] if options.quick else ["8gaussians", "moons", "pinwheel", "checkerboard"]
rows, cells = (1000, 30) if options.quick else (20_000, 150)
settings = {"width": 64, "max_iter": 3000}
if options.quick:
    settings = {"width": 8, "n_steps": 1, "max_iter": 25}
figure, axes = plt.subplots(3, len(laws), figsize=(2.6 * len(laws), 7.8), squeeze=False)

for (top, middle, bottom), name in zip(axes.T, laws, strict=True):
    points, held_out = toy(name, rows, seed=0), toy(name, rows, seed=1)
    flow = OTFlow(alpha=100.0, random_state=0, **settings).fit(points)
    nll = -flow.score(held_out)
    print(f"{name}: held-out nll {nll:.3f} nats")

    limit = 1.15 * np.abs(points).max()
    ticks = np.linspace(-limit, limit, cells)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    density = np.exp(flow.score_samples(grid)).reshape(cells, cells)

    top.plot(*held_out[:4000].T, ",", color="#0072b2")
    middle.plot(*flow.sample(4000).T, ",", color="#d55e00")
    bottom.imshow(density, origin="lower", extent=2 * [-limit, limit], cmap="magma")
    top.set_title(f"{name}\nnll {nll:.2f} nats", fontsize=10)
    for axis in (top, middle, bottom):
        axis.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xticks=[], yticks=[])

for axis, label in zip(axes[:, 0], ("held-out data", "samples", "density"), strict=True):
    axis.set_ylabel(label)
figure.tight_layout()
figure.savefig(options.out, dpi=80)
