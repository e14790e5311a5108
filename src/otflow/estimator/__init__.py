"""OTFlow and OTFlowChain: the scikit-learn face of the library."""

from otflow.estimator.chain import OTFlowChain
from otflow.estimator.estimator import OTFlow, TrainingDivergedError
from otflow.estimator.loading import load

__all__ = ["OTFlow", "OTFlowChain", "TrainingDivergedError", "load"]
