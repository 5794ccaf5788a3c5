"""Recipes: the schema of their keys, presets, and reading them from YAML."""
