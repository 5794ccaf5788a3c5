"""Unlearning methods: (step, *, …) → named loss parts; one a file."""
