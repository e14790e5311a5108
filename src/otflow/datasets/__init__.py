"""Toy laws in the plane and small real data sets, as plain NumPy arrays."""

from otflow.datasets.real import Split, breast_cancer, digits, photo_patches
from otflow.datasets.toy import (
    TOY_NAMES,
    checkerboard,
    checkerboard_log_prob,
    circles,
    circles_log_prob,
    eight_gaussians,
    eight_gaussians_log_prob,
    labelled_moons,
    labelled_moons_log_prob,
    moons,
    pinwheel,
    swissroll,
    toy,
    two_spirals,
)

__all__ = [
    "TOY_NAMES",
    "Split",
    "breast_cancer",
    "checkerboard",
    "checkerboard_log_prob",
    "circles",
    "circles_log_prob",
    "digits",
    "eight_gaussians",
    "eight_gaussians_log_prob",
    "labelled_moons",
    "labelled_moons_log_prob",
    "moons",
    "photo_patches",
    "pinwheel",
    "swissroll",
    "toy",
    "two_spirals",
]
