"""Studies: the limits that the theory promises, measured with intervals and kept on disk."""
