"""What each process of a launched group does in the tests; writes what it saw as JSON.

torchrun --nproc-per-node 2 tests/distributed/launched.py OUT BASE [SET…]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from knowundo.distributed.group import barrier, from_main, gathered, group, join, leave
from knowundo.distributed.sums import all_of_each, own_share, sum_parts, summed
from knowundo.errors import BadInput
from knowundo.pipeline.whole import run_all
from knowundo.storage.files import write_text
from tiny_run import tiny_run

# Every way in which gradients of several processes are put together: a plain sum, a combination of
# two gradients, one that keeps those of each row, and one that computes a gradient once more.
VARIANTS = (
    "unlearn.variants=[{preset: memflex}, {method: npo, name: plain}, "
    "{method: npo, name: project, gradients: project}, "
    "{method: npo, name: rows, gradients: orthograd}, {method: npo, name: sam, gradients: sam}]"
)
SETS = (VARIANTS, "localize.copies=2", "evaluate.generate=[val]", "memorize.epochs=2")


def exchanged() -> dict[str, Any]:
    """What the collectives give this process."""
    own = group()
    like = [torch.zeros(2), torch.zeros(3), torch.zeros(1)]
    rank = float(own.rank + 1)
    first = torch.full((2,), rank)
    mine = [first, None if own.main else torch.full((3,), 5.0), None]
    sums = summed(mine, like)
    numbered = [[torch.full((2,), float(n)), None, None] for n in range(5)][own_share()]
    parts = {"unlearn": torch.tensor(rank)} | ({} if own.main else {"late": torch.tensor(0.5)})

    def refuse() -> None:
        raise BadInput("the list is empty; give rows")

    try:
        from_main(refuse)
        refused = ""
    except BadInput as error:
        refused = str(error)
    return {
        "rank": own.rank,
        "size": own.size,
        "gathered": gathered(own.rank),
        "from_main": from_main(lambda: own.rank),
        "summed": [None if one is None else one.tolist() for one in sums],
        "in_order": [float(one[0][0]) for one in all_of_each(numbered, like) if one[0] is not None],
        "parts": {name: float(one) for name, one in sum_parts(parts).items()},
        "refused": refused,
    }


def main() -> None:
    """Exchange, run, and write."""
    out, base, *sets = sys.argv[1:]
    join()
    seen = exchanged()
    write_text(Path(out) / "only-main.txt", f"{seen['rank']}")
    barrier()
    results = run_all(tiny_run(Path(out) / "run", base, *SETS, *sets))
    seen["values"] = [row.value for row in results.rows]
    (Path(out) / f"seen-{seen['rank']}.json").write_text(json.dumps(seen))
    leave()


if __name__ == "__main__":
    main()
