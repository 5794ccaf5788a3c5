"""One output directory: its recipe, its records, its model and its artifacts."""
