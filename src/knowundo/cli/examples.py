"""What stands below each command's help: examples that can be typed."""

from __future__ import annotations

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("knowundo demo", "knowundo demo --set seed=1 --out runs/demo-1"),
    "run": (
        "knowundo run --config demo --out runs/demo",
        "knowundo run --config recipe.yaml --set unlearn.lr=1e-4 --out runs/mine",
        "torchrun --nproc-per-node 2 -m knowundo run --config demo --out runs/demo",
    ),
    "memorize": ("knowundo memorize --config demo --out runs/demo",),
    "localize": ("knowundo localize --out runs/demo",),
    "unlearn": ("knowundo unlearn --out runs/demo --variant memflex",),
    "evaluate": ("knowundo evaluate --out runs/demo",),
    "report": ("knowundo report --out runs/demo --redact",),
    "status": ("knowundo status runs/demo",),
    "study": (
        "knowundo study demo --grid 'seed=[0, 1, 2]' --out runs/study",
        "knowundo study demo --grid 'seed=[0, 1]' --grid 'data.domain=[privacy, copyright]'",
    ),
    "attack": ("knowundo attack runs/demo --attack relearning --variant memflex",),
    "erase": (
        "knowundo erase --model MODEL --unlearn list.jsonl --out runs/request",
        "knowundo erase --model MODEL --unlearn list.jsonl --retention keep.jsonl --out runs/two",
    ),
    "compare": ("knowundo compare runs/demo runs/demo-1 --html comparison.html",),
    "list": ("knowundo list methods", "knowundo list presets --json"),
    "estimate": ("knowundo estimate --config demo",),
    "export": ("knowundo export runs/demo --variant memflex --to exported",),
    "certify": ("knowundo certify runs/demo --variant memflex",),
    "sweep": ("knowundo sweep --config demo --variant memflex --trials 20 --out runs/demo",),
    "verify": ("knowundo verify runs/demo",),
    "purge": ("knowundo purge runs/demo --yes",),
    "doctor": ("knowundo doctor", "knowundo doctor --base MODEL --out runs"),
    "data export": ("knowundo data export --domain privacy --out data",),
    "data describe": ("knowundo data describe --benchmark embedded",),
}
# Below every command, so that nobody has to look them up.
EXIT_CODES = (
    "Exit codes: 0 done; 1 failed, such as a full disk; 2 wrong input; 3 a method diverged, or a "
    "list was not erased."
)


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Put the examples below the help of the commands of an app.

    Raises:
        KeyError: A command has no example.
    """
    for info in app.registered_commands:
        assert info.callback is not None
        name = prefix + (info.name or info.callback.__name__.replace("_", "-"))
        shown = ["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[name])]
        info.epilog = "\n".join([*shown, "", EXIT_CODES])
