"""Training: batches, compiled steps, the loop."""

from otflow.training.config import TrainingConfig
from otflow.training.loop import TrainingResult, train

__all__ = ["TrainingConfig", "TrainingResult", "train"]
