"""Metrics over scores, with intervals, comparisons and general tasks."""
