"""`otflow demo`: real data end to end, with a picture."""

import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from otflow.cli.errors import clean_errors


class Size(NamedTuple):
    """Settings of the flows of digits and in the plane, and rows in the plane: to fit, to score."""

    digits: dict[str, Any]
    plane: dict[str, Any]
    points: int
    test_points: int


FULL = Size({"width": 128, "n_steps": 2, "max_iter": 800}, {"max_iter": 2500}, 20_000, 5000)
_TINY = {"width": 16, "n_steps": 1, "max_iter": 10}
QUICK = Size(_TINY, _TINY, 1000, 1000)


@clean_errors
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture and the model.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    quick: Annotated[bool, typer.Option(help="Tiny flows, hardly trained: does it run?")] = False,
) -> None:
    """Train on scikit-learn's digits (64 real columns), score held-out digits, draw new ones."""
    from otflow.datasets import digits, toy
    from otflow.estimator.estimator import OTFlow
    from otflow.report.demo import draw_demo
    from otflow.support.files import check_writable
    from otflow.support.statistics import Estimate

    size = QUICK if quick else FULL
    out.mkdir(parents=True, exist_ok=True)
    picture = check_writable(out / "demo.png")
    model_file = check_writable(out / "digits.otflow")

    start = time.perf_counter()
    if quick:
        typer.echo("--quick: tiny flows, hardly trained, to see that it runs")
    split = digits(seed)
    typer.echo(f"digits: {len(split.train)} training, {len(split.test)} held-out rows of 64 pixels")
    model = OTFlow(
        alpha=100.0,
        batch_size=256,
        weight_decay=1.0,
        random_state=seed,
        **size.digits,
    )
    model.fit(split.train, X_val=split.validation)
    gaussian = gaussian_nll(split.train, split.validation, split.test)
    scores = model.score_samples(split.test)
    nll, error = -scores.mean(), Estimate.of(scores).half
    typer.echo(
        f"held-out nll, nats (lower is better): OT-Flow {nll:.2f} +- {error:.2f}, "
        f"full-covariance Gaussian {gaussian:.2f}; {gaussian - nll:.1f} nats better"
    )
    error = np.abs(model.inverse_transform(model.transform(split.test)) - split.test).max()
    typer.echo(f"largest round-trip error over held-out pixels (0..1): {error:.1e}")

    points = toy("8gaussians", size.points, seed)
    flow2d = OTFlow(random_state=seed, **size.plane).fit(points)
    nll = -flow2d.score(toy("8gaussians", size.test_points, 1))
    typer.echo(f"8gaussians, 2-d: held-out nll {nll:.3f} nats")

    model.save(model_file)
    draw_demo(picture, split.test, model, points[:2000], flow2d, seed)
    typer.echo(f"{picture}, {model_file} written; {time.perf_counter() - start:.0f} s in all")


def gaussian_nll(train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> float:
    """Held-out nll of a full-covariance Gaussian, its shrinkage chosen on the validation rows."""
    from scipy.stats import multivariate_normal

    from otflow.support.statistics import covariance

    mean, cov = train.mean(axis=0), covariance(train)
    diagonal = np.diag(np.diag(cov))
    fits = [
        multivariate_normal(mean, (1 - s) * cov + s * diagonal) for s in (0.001, 0.003, 0.01, 0.03)
    ]
    best = max(fits, key=lambda fit: fit.logpdf(validation).mean())
    return float(-best.logpdf(test).mean())
