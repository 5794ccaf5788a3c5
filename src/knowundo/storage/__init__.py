"""Files of a run: written whole or not at all, sealed, locked, and resumed from checkpoints."""
