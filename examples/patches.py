"""Image patches: a flow for 6 x 6 pixels of two photographs, next to a Gaussian.

    python examples/patches.py [--out patches.png] [--quick]

The photographs ship with scikit-learn. `dequantise` noise makes the grey levels a density. The
pictures show a grey level by its rank among the held-out ones, since most of them are dark.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import multivariate_normal

from otflow import OTFlow
from otflow.datasets import photo_patches

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="patches.png")
parser.add_argument("--quick", action="store_true", help="few patches, little training")
options = parser.parse_args()

split = photo_patches(6, n=2000 if options.quick else None, seed=0)
flow = OTFlow(
    alpha=100.0,
    width=8 if options.quick else 128,
    n_steps=1 if options.quick else 2,
    max_iter=5 if options.quick else 1000,
    batch_size=256 if options.quick else 512,
    random_state=0,
).fit(split.train, X_val=split.validation)
gaussian = multivariate_normal(split.train.mean(axis=0), np.cov(split.train, rowvar=False))


def bits(log_density):
    """Nats for a whole patch in [0, 1) to bits a pixel of 256 grey levels."""
    return 8 - log_density.mean() / np.log(2) / split.test.shape[1]


print(f"{len(split.train)} training, {len(split.test)} held-out patches")
titles = {
    f"held-out patches\nflow {bits(flow.score_samples(split.test)):.2f} bits a pixel": split.test,
    "samples of the flow": flow.sample(100),
    f"samples of the Gaussian\n{bits(gaussian.logpdf(split.test)):.2f} bits a pixel": gaussian.rvs(
        100, random_state=0
    ),
}
print(*(title.replace("\n", ": ") for title in titles), sep="\n")

ranks = np.linspace(0, 1, 257)
levels = np.quantile(split.test, ranks)
figure, axes = plt.subplots(1, 3, figsize=(10.5, 4), layout="constrained")
for axis, (title, rows) in zip(axes, titles.items(), strict=True):
    shown = np.interp(rows[:100], levels, ranks).reshape(10, 10, 6, 6)
    framed = np.pad(shown, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=1)
    wall = framed.transpose(0, 2, 1, 3).reshape(70, 70)
    axis.imshow(wall, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=11)
    axis.set_axis_off()
figure.savefig(options.out, dpi=80)
