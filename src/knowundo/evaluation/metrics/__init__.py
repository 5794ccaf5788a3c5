"""Metrics: (scores) → float over the rows of one group; any number a file."""
