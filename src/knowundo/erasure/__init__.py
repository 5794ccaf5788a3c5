"""Erasure of a user's own list from a user's own model."""
