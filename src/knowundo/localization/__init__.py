"""Localization: which tensors store the unlearn scope and not the retention scope."""
