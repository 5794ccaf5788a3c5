"""Attacks on a model that should have forgotten: one per file, each scored by all metrics."""
