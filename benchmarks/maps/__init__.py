"""Solvers of optimal transport between two measures: each gives functions x -> T(x)."""
