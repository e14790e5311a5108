"""Single cells between days: flows from one day to the day after next, checked on the day between.

    python examples/single_cell.py --data FOLDER [--out single_cell.png] [--quick]

FOLDER holds embryoid_body.npz with X (2750, 100), principal components of human embryoid-body
cells (Moon et al., 2019), and t, the day 0..4. The target is a Gaussian mixture of the later day.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import ot
from sklearn.mixture import GaussianMixture as Mixture

from otflow import GaussianMixture, OTFlow

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--out", default="single_cell.png")
parser.add_argument("--quick", action="store_true", help="little training")
options = parser.parse_args()


def distance(a, b):
    """W1 between two clouds, exact."""
    return ot.emd2([], [], ot.dist(a, b, metric="euclidean"))


table = np.load(Path(options.data) / "embryoid_body.npz")
X = table["X"][:, :5].astype(float)
X = (X - X.mean(axis=0)) / X.std(axis=0)

figure, axes = plt.subplots(1, 3, figsize=(12, 4.6), sharex=True, sharey=True, layout="constrained")
for day, axis in enumerate(axes):
    first, between, last = (X[table["t"] == day + k] for k in range(3))
    mixture = Mixture(8, reg_covar=0.02, random_state=0).fit(last)
    flow = OTFlow(
        alpha=10.0,
        width=64,
        max_iter=20 if options.quick else 1500,
        standardize=False,  # transport in the cells' own space
        target=GaussianMixture(mixture.weights_, mixture.means_, mixture.covariances_),
        random_state=0,
    ).fit(first)
    paths = np.asarray(flow.flow_.trajectories(first))  # (steps + 1, cells, 5)
    halfway = paths[len(paths) // 2]
    W1 = [distance(cloud, between) for cloud in (first, halfway, last)]
    print(f"W1 to day {day + 1} of day {day}, halfway, day {day + 2}:", np.round(W1, 2))

    axis.plot(*between[:, :2].T, ".", ms=4, color="#999999", label=f"day {day + 1}, not seen")
    axis.plot(*paths[:, ::8, :2].transpose(2, 0, 1), color="#1b1b1b", lw=0.5)
    axis.plot(*halfway[:, :2].T, ".", ms=3, color="#d55e00", label="flow halfway")
    axis.set_title(f"day {day} to {day + 2}: W1 to day {day + 1} is {W1[1]:.2f}", fontsize=11)
    axis.legend(loc="lower left")
figure.supxlabel("principal component 1")
figure.supylabel("principal component 2")
figure.savefig(options.out, dpi=80)
