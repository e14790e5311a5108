"""Training: batches, compiled steps, the loop."""

from otflow.training.checkpoint import Watch
from otflow.training.config import TrainingConfig
from otflow.training.loop import TrainingResult, train
from otflow.training.natural import NaturalConfig
from otflow.training.polish import polish
from otflow.training.rows import Rows

__all__ = ["NaturalConfig", "Rows", "TrainingConfig", "TrainingResult", "Watch", "polish", "train"]
