"""Localizers: (gradients, *, …) → set of parameter names; one a file."""
