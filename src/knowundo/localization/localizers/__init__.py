"""Localizers: (gradients, *, …) → set of parameter names; one per file."""
