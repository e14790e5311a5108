"""Digits: samples of a flow in 64 dimensions, and the held-out images it finds least likely.

python examples/digits.py [--out digits.png] [--quick]
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np

from otflow import OTFlow
from otflow.datasets import digits

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="digits.png")
parser.add_argument("--quick", action="store_true", help="little training")
options = parser.parse_args()

split = digits(seed=0)  # dequantised pixels in [0, 1): .train, .validation, .test
flow = OTFlow(
    alpha=100.0,
    weight_decay=1.0,  # few rows for so many columns
    n_steps=1 if options.quick else 2,
    width=16 if options.quick else 64,
    batch_size=256,
    max_iter=2 if options.quick else 800,
    random_state=0,
).fit(split.train, X_val=split.validation)

log_density = flow.score_samples(split.test)
print(f"held-out nll {-log_density.mean():.1f} nats for 64 pixels")
order = np.argsort(log_density)
tiles = {
    "samples": flow.sample(48),
    "most likely held-out digits": split.test[order[::-1][:48]],
    "least likely held-out digits": split.test[order[:48]],
}

figure, axes = plt.subplots(1, 3, figsize=(10.5, 4.9))
for axis, (title, images) in zip(axes, tiles.items(), strict=True):
    framed = np.pad(images.reshape(8, 6, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    wall = framed.transpose(0, 2, 1, 3).reshape(80, 60)
    axis.imshow(wall, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(title, fontsize=11)
    axis.set_axis_off()
figure.tight_layout()
figure.savefig(options.out, dpi=90)
