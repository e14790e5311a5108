"""Training: batches, compiled steps, the loop."""

from otflow.data.rows import Rows
from otflow.training.checkpoint import Watch
from otflow.training.config import TrainingConfig
from otflow.training.loop import train
from otflow.training.natural import NaturalConfig
from otflow.training.polish import polish
from otflow.training.run import TrainingResult

__all__ = ["NaturalConfig", "Rows", "TrainingConfig", "TrainingResult", "Watch", "polish", "train"]
