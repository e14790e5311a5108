"""Schemes: how time is discretised, with log-determinants and costs."""

from otflow.schemes.base import AbstractScheme, Push, straightness
from otflow.schemes.conforming import Conforming
from otflow.schemes.growing import Growing
from otflow.schemes.rk4 import RK4

__all__ = ["RK4", "AbstractScheme", "Conforming", "Growing", "Push", "straightness"]
