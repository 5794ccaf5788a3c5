"""Several processes that work on one run: who they are, and what they exchange."""
