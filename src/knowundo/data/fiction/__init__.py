"""A fictional world: people, books, countries and everyday sentences, all drawn from a seed.

The embedded base is trained on one part of it (`scripts/build_embedded_base.py`), the embedded
benchmark is made of another (`knowundo.data.benchmarks.embedded`). Surnames and towns are split by
a fixed hash, so no subject of the benchmark can occur in the text of the base.
"""

from __future__ import annotations

from knowundo.data.fiction.world import Item, Subject, World, everyday_sentence, known_subjects

__all__ = ["Item", "Subject", "World", "everyday_sentence", "known_subjects"]
