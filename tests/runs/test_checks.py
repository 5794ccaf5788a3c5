"""What is checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from knowundo.errors import BadInput
from knowundo.recipes.reading import load_recipe
from knowundo.runs.checks import check, effective


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["data.benchmark=knowundoo"], "did you mean 'knowundo'?"),
        (["unlearn.variants=[{method: gradient_assent}]"], "did you mean 'gradient_ascent'?"),
        (["unlearn.variants=[{preset: memflex, acsent: 1}]"], "did you mean 'ascent'?"),
        (["localize.localizers={memflx: {}}"], "did you mean 'memflex'?"),
        (["localize.localizers={memflex: {mue: 1}}"], "did you mean 'mu'?"),
        (
            ["localize.localizers={snip: {share: 2}}"],
            "localizer snip: share: Input should be less than or equal to 1",
        ),
        (
            ["localize.localizers={reversion: {granularity: row}}"],
            "reversion: granularity row: it scores whole modules or layers",
        ),
        (["localize.draws=2"], "memflex_random-3: unknown region 'random-3'"),
        (["unlearn.variants=[{preset: memflex, region: gone.json}]"], "no region file gone.json"),
        (
            ["unlearn.variants=[{preset: memflex, keep_every: 20}]"],
            "variant memflex: keep_every: lr auto trains several times",
        ),
        (
            ["compat=original", "unlearn.retained=4"],
            "variant gradient_ascent: retained: compat mixed_batches takes as many retention rows",
        ),
        (
            [
                "unlearn.variants=[{method: npo, retain_on: [retention, general]}]",
                "compat=[mixed_batches]",
            ],
            "variant npo: retain_on: compat mixed_batches takes the rows of one scope",
        ),
        (
            ["unlearn.variants=[{method: npo, retain_on: [general, siblings], retained: 1}]"],
            "variant npo: retain_on: 2 scopes, and 1 retained rows a batch",
        ),
        (
            ["unlearn.variants=[{method: undo, gradients: sam}]"],
            "variant undo: gradients sam: undo has no unlearn part",
        ),
    ],
)
def test_names_are_bound_before_anything_runs(sets: list[str], said: str) -> None:
    recipe, _ = load_recipe("demo", sets)
    with pytest.raises(BadInput) as caught:
        check(recipe)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["model.base", "memorize.adopt", "model.merge", "evaluate.models"])
def test_a_guard_is_not_passed_by(tmp_path: Path, key: str) -> None:
    """Whoever names an exported guard as a model would get the memorized one."""
    folder = tmp_path / "guarded"
    folder.mkdir()
    value = f"[{folder}]" if key == "evaluate.models" else str(folder)
    recipe, _ = load_recipe("demo", [f"{key}={value}", "memorize.retain_model=false"])
    (folder / "guard.json").write_text("{}")
    with pytest.raises(BadInput, match=f"{key} '.*guarded': holds a guard"):
        check(recipe)


def test_gradients_of_what_follows_are_written_with_their_defaults() -> None:
    then = "[{method: npo, retention: 1, gradients: gru, lr: 1e-4}]"
    recipe, _ = load_recipe(None, [f"unlearn.variants=[{{preset: npo, then: {then}}}]"])
    (plan,) = effective(recipe)["unlearn"]["variants"]
    assert plan["then"][0]["gradients"] == {"name": "gru", "weight": 0.8}
