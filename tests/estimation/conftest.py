"""A base of 7 billion parameters, without them."""

from __future__ import annotations

import pytest

from estimation.recipes import write_base


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Llama-2-7B's shape: there are no weights to read."""
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    folder = tmp_path_factory.mktemp("seven") / "base"
    more = {"intermediate_size": 11008, "tie_word_embeddings": False}
    return write_base(folder, weights=False, **shape, **more)
