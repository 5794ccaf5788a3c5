"""Sweeps over learning rate, loss weights and region size."""
