"""Faster ways to the same numbers, each tested against the plain way."""
