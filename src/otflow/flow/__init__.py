"""The map and what it costs: flows, flows as targets, the objective, exact evaluation."""

from otflow.flow.flow import Flow

__all__ = ["Flow"]
