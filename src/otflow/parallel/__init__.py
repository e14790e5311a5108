"""Beyond one process: jobs of several processes, studies on a Ray cluster."""

from otflow.parallel.processes import join_processes

__all__ = ["join_processes"]
