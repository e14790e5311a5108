"""Digits through principal components: samples, and a flow from noise to digits, as a picture.

    python benchmarks/mnist.py --data FOLDER --minutes 5 --out mnist.png
    python benchmarks/mnist.py --data FOLDER --quick --out mnist.png

The OT-Flow paper trains on an autoencoder's latent; here 64 whitened principal components of
MNIST's dequantised test digits. Rows of the picture: data, the same after the components, samples,
interpolations in the target between the two outer digits of a row, and one digit on its straight
way back from the target to the data (the inverse flow's path).
"""

import argparse
import warnings

import numpy as np
from sklearn.decomposition import PCA

from otflow import OTFlow, datasets
from otflow.support.extras import require
from tables import DATA
from timing.budget import fit_within

_COUNT = 10  # images a row


def rows_of_images(model: OTFlow, pca: PCA, test: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> (10, 784) pixels."""
    x, t = test[:_COUNT], np.linspace(0, 1, _COUNT)[:, None]
    z = pca.transform(x)
    y = model.transform(z[:2])
    path = np.asarray(model.flow_.trajectories(z[:1]))[::-1, 0]  # from target to data
    steps = np.linspace(0, len(path) - 1, _COUNT)
    along = np.array([np.interp(steps, np.arange(len(path)), column) for column in path.T]).T
    latents = {
        "components": z,
        "samples": model.sample(_COUNT, random_state=3),
        "more samples": model.sample(_COUNT, random_state=4),
        "interpolation": model.inverse_transform((1 - t) * y[0] + t * y[1]),
        "along the flow": along,
    }
    return {"data": x} | {name: pca.inverse_transform(rows) for name, rows in latents.items()}


def draw(images: dict[str, np.ndarray], path: str) -> None:
    """Write the picture."""
    pyplot = require("matplotlib.pyplot", "plot")
    figure, axes = pyplot.subplots(len(images), 1, figsize=(8, 1.0 * len(images)))
    for axis, (name, rows) in zip(axes, images.items(), strict=True):
        axis.imshow(np.hstack(rows.reshape(-1, 28, 28)), cmap="gray_r", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Parse the command line, train, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=DATA, help="folder")
    parser.add_argument("--components", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", default="mnist.png")
    parser.add_argument("--quick", action="store_true", help="20 seconds, 16 components")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.quick:
        given.components, given.minutes = 16, 1 / 3
    data = datasets.mnist(given.data)
    pca = PCA(given.components, whiten=True, random_state=0).fit(data.train)
    train, validation, test = (pca.transform(p) for p in (data.train, data.validation, data.test))
    options = {
        "alpha": 100.0,
        "potential": "resnet",
        "width": 128,
        "depth": 0,
        "n_steps": 4,
        "batch_size": 512,
    }
    options |= {"learning_rate": 0.005, "patience": 10**6, "random_state": 0, "verbose": False}
    model = OTFlow(standardize=False, **options)
    fit_within(model, train, validation, 60 * given.minutes)
    scores = model.score_samples(test)
    gauss = -0.5 * (test**2).sum(axis=1).mean() - 0.5 * test.shape[1] * np.log(2 * np.pi)
    print(f"{model.n_iter_} steps; variance kept {pca.explained_variance_ratio_.sum():.3f}")
    valid = np.isfinite(scores)
    nll = -scores[valid].mean()
    print(f"test nll {nll:.2f} nats in the components ({(~valid).sum()} rows not invertible)")
    print(f"N(0, I) on the same rows: {-gauss:.2f}")
    draw(rows_of_images(model, pca, data.test), given.out)


if __name__ == "__main__":
    main()
