"""Benchmarks: one record-builder a file."""
