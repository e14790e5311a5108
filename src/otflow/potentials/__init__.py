"""Potentials: what Phi is, with its value, gradient, Laplacian and Hessian."""

from otflow.potentials.base import (
    AbstractPotential,
    GradientHessian,
    GradientLaplacian,
    SumPotential,
)
from otflow.potentials.chain import StageChain
from otflow.potentials.conditional import (
    ConditionalGaussian,
    ConditionalResNet,
    ConditionalStages,
)
from otflow.potentials.gaussian import GaussianBase
from otflow.potentials.lifted import LiftedStages
from otflow.potentials.resnet import ResNetPotential
from otflow.potentials.stages import ConvexStage, ConvexStages

__all__ = [
    "AbstractPotential",
    "ConditionalGaussian",
    "ConditionalResNet",
    "ConditionalStages",
    "ConvexStage",
    "ConvexStages",
    "GaussianBase",
    "GradientHessian",
    "GradientLaplacian",
    "LiftedStages",
    "ResNetPotential",
    "StageChain",
    "SumPotential",
]
