"""Exact answers of the finite-penalty problem, in float64 and without training (SPEC 4).

Every reference holds the exact minimiser of J_alpha = transport + alpha KL for a density rho0 and
the target N(0, I): costs, optimal map, samples, log-density, 1/2 W2^2, entropy, rate constant.
"""

from otflow.reference.base import AbstractReference
from otflow.reference.densities import AbstractDensity1D, Mixture1D, TabulatedDensity1D
from otflow.reference.discrete import DiscreteTransport, discrete
from otflow.reference.gaussian import GaussianReference, gaussian
from otflow.reference.jko import JKO, gradient_flow, jko, optimal_map, w2
from otflow.reference.one_dimensional import (
    OneDimensionalReference,
    density_1d,
    mixture_1d,
    solve_1d,
)
from otflow.reference.product import (
    STANDARD_MIXTURE,
    ProductReference,
    product,
    product_mixture,
    random_rotation,
)
from otflow.reference.tabulate import tabulate
from otflow.reference.unbalanced import DiscreteGrowth, wfr_discrete
from otflow.reference.wfr import GaussianGrowth, wfr_diracs, wfr_gaussians

__all__ = [
    "JKO",
    "STANDARD_MIXTURE",
    "AbstractDensity1D",
    "AbstractReference",
    "DiscreteGrowth",
    "DiscreteTransport",
    "GaussianGrowth",
    "GaussianReference",
    "Mixture1D",
    "OneDimensionalReference",
    "ProductReference",
    "TabulatedDensity1D",
    "density_1d",
    "discrete",
    "gaussian",
    "gradient_flow",
    "jko",
    "mixture_1d",
    "optimal_map",
    "product",
    "product_mixture",
    "random_rotation",
    "solve_1d",
    "tabulate",
    "w2",
    "wfr_diracs",
    "wfr_discrete",
    "wfr_gaussians",
]
