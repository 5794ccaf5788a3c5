"""The base in memory, its adapters, and the forward pass that a loss sees."""
