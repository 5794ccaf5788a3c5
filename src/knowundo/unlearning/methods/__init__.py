"""Unlearning methods: (step, *, …) → named loss parts; one per file."""
