"""Remove knowledge from a language model, and show that it is gone while the rest stays."""
