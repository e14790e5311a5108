"""Training: batches, compiled steps, the loop."""

from otflow.data.rows import Rows
from otflow.training.checkpoint import Watch
from otflow.training.config import TrainingConfig
from otflow.training.loop import TrainingResult, train
from otflow.training.natural import NaturalConfig
from otflow.training.polish import polish

__all__ = ["NaturalConfig", "Rows", "TrainingConfig", "TrainingResult", "Watch", "polish", "train"]
