"""Unlearning: methods, and how they are trained from the memorized model."""
