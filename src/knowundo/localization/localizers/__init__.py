"""Localizers: what is seen of tensors → a set of parameter names, or scores; one per file."""
