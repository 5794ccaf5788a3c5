"""What runs around each command."""

from __future__ import annotations

import warnings

from knowundo.cli.options import quiet


def test_only_what_libraries_say_to_programmers_is_kept_off_the_terminal() -> None:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    said = [
        (FutureWarning, "transformers.modeling_utils", False),
        (DeprecationWarning, "peft", False),
        (FutureWarning, "torch.nn.modules", False),
        (UserWarning, "peft.tuners", True),
        (UserWarning, "knowundo.modeling.model", True),
        (FutureWarning, "knowundo.modeling.model", True),
        (FutureWarning, "torchless", True),
    ]
    try:
        with warnings.catch_warnings(record=True) as shown:
            warnings.resetwarnings()
            quiet()
            for kind, module, _ in said:
                warnings.warn_explicit(module, kind, "file.py", 1, module=module)
            assert not logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
    found = [(w.category, str(w.message)) for w in shown]
    assert found == [(kind, module) for kind, module, seen in said if seen]
