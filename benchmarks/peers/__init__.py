"""The contestants of benchmarks/speed.py: one file a peer, one process each."""
