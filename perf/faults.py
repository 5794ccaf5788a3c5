"""The fault campaign: kill runs, fill their disk, damage their files.

    python perf/faults.py --kills 50 --rooms 10 --out runs/faults

An undisturbed run of the demo is the reference. Then:

kills       the same run is killed with SIGKILL at random moments and resumed until it ends; all of
            its files (weights, curves, regions, scores, results.json) must have the same bytes.
full disk   the same on a file system that is too small and grows each time it is full.
damage      a bit of each kind of artifact is flipped, a file cut, two adapters swapped, results
            edited; `verify` must name it.

Times differ between two runs, so manifests and the report, which hold seconds and dates, are left
out of the comparison. Prints a table, and writes it with the machine to `<out>/faults.json`.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from knowundo.errors import KnowUndoError
from knowundo.storage.environment import surroundings
from knowundo.storage.files import file_hash, write_json
from knowundo.storage.integrity import read_seal

COMMAND = [sys.executable, "-c", "from knowundo.cli import main; main()"]
MIB = 2**20
# Files that differ between equal runs, because they hold dates and durations.
ASIDE = ("manifest.json", "report.html")


def call(*words: str, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line, to its end."""
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, preexec_fn=before)


def content(out: Path) -> dict[str, str]:
    """sha256 of every file that equal runs share."""
    return {
        str(file.relative_to(out)): file_hash(file)
        for file in sorted(out.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.name not in ASIDE
    }


def sealed(out: Path) -> dict[str, str]:
    """Hashes of the finished artifacts; empty if the seal cannot be read."""
    with suppress(KnowUndoError):
        return dict(read_seal(out).files)
    return {}


class Tally:
    """Counts for one kind of fault."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.runs = self.faults = self.resumed = self.identical = self.lost = 0
        self.complaints: list[str] = []

    def judge(self, out: Path, wanted: dict[str, str]) -> None:
        """Compare a finished run with the reference."""
        self.runs += 1
        found = content(out)
        odd = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
        self.identical += not odd
        if odd:
            self.complaints.append(f"{out.name}: {', '.join(odd[:5])} differ")

    def keep(self, before: dict[str, str], out: Path) -> None:
        """Artifacts that were finished before must still be there."""
        after = sealed(out)
        gone = [name for name in before if name not in after]
        self.lost += len(gone)
        if gone:
            self.complaints.append(f"{out.name}: lost {', '.join(gone)}")

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def killed(out: Path, words: list[str], wanted: dict[str, str], kills: int, rng: Random) -> Tally:
    """Runs that are killed repeatedly, until the number of kills is reached."""
    tally, number = Tally("kill -9"), 0
    with Progress(console=Console(stderr=True)) as bars:
        bar = bars.add_task("kills", total=kills)
        while tally.faults < kills:
            number += 1
            place = out / f"killed-{number}"
            while True:
                before = sealed(place)
                process = subprocess.Popen(
                    [*COMMAND, *words, "--out", str(place)],
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                    start_new_session=True,
                )  # fmt: skip
                try:
                    _, said = process.communicate(timeout=rng.uniform(1.0, LIFE))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.communicate()
                    tally.faults += 1
                    bars.update(bar, completed=tally.faults)
                    tally.resumed += 1  # taken back below if it does not resume
                    tally.keep(before, place)
                    continue
                if process.returncode:
                    tally.resumed -= 1
                    tally.complaints.append(f"{place.name}: {said.strip().splitlines()[-1]}")
                break
            tally.judge(place, wanted)
            shutil.rmtree(place, ignore_errors=True)
    return tally


def mounted(place: Path, size: int) -> bool:
    """Mount a small file system in memory; `False` if that is not permitted."""
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return subprocess.run(command, capture_output=True).returncode == 0


def filled(out: Path, words: list[str], wanted: dict[str, str], rooms: int) -> Tally:
    """One run whose disk grows in steps; each time it is full, it must say so and resume later."""
    place = out / "full"
    total = sum(f.stat().st_size for f in (out / "whole").rglob("*") if f.is_file())
    small = mounted(place, 64 * 1024)
    tally = Tally("disk full" if small else "file size limit")
    largest = max(f.stat().st_size for f in (out / "whole").rglob("*") if f.is_file())
    run = place / "run"
    try:
        for step in range(1, 10 * rooms):
            if small:
                share = min(1.0, step / rooms) * total
                size = int(share + (8 * MIB if step > rooms else 0)) + 16 * 1024 * step
                remount = ["mount", "-o", f"remount,size={size}", str(place)]
                subprocess.run(remount, check=True, capture_output=True)
                limit = None
            else:
                size = int(largest * 2 * step / rooms) if step <= rooms else resource.RLIM_INFINITY
                limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
            before = sealed(run)
            done = call(*words, "--out", str(run), before=limit)
            tally.keep(before, run)
            if done.returncode == 0:
                break
            tally.faults += 1
            last = done.stderr.strip().splitlines()[-1]
            plainly = done.returncode == 1 and "no room left" in last
            partial_left = [p.name for p in run.rglob(".partial.*")] if run.exists() else []
            tally.resumed += plainly and not partial_left
            if not plainly or partial_left:
                tally.complaints.append(f"full: exit {done.returncode}: {last} {partial_left}")
        tally.judge(run, wanted)
    finally:
        if small:
            subprocess.run(["umount", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)
    return tally


def flip(file: Path) -> None:
    """One bit, in the middle."""
    held = bytearray(file.read_bytes())
    held[len(held) // 2] ^= 4
    file.write_bytes(held)


def harms(out: Path) -> dict[str, tuple[str, Callable[[Path], Any]]]:
    """Ways to damage a finished run: title → the artifact that must be named, and the damage."""
    found: dict[str, tuple[str, Callable[[Path], Any]]] = {}
    first, second = sorted(p.name for p in (out / "unlearned").iterdir())[:2]
    artifacts = ["memorized", "regions", f"unlearned/{first}", f"scores/{first}"]
    if (out / "retain").exists():
        artifacts.append("retain")
    for name in artifacts:
        files = sorted(p.name for p in (out / name).iterdir() if p.is_file())
        for file in files:
            found[f"bit of {name}/{file}"] = (name, lambda o, n=name, f=file: flip(o / n / f))
        largest = max(files, key=lambda f: (out / name / f).stat().st_size)
        half = (out / name / largest).stat().st_size // 2
        found[f"half of {name}/{largest}"] = (
            name,
            lambda o, n=name, f=largest, size=half: os.truncate(o / n / f, size),
        )
    for name in ("results.json", "report.html", "recipe.yaml"):
        found[f"bit of {name}"] = (name, lambda o, n=name: flip(o / n))

    def swap(o: Path) -> None:
        (o / "unlearned" / first).rename(o / "aside")
        (o / "unlearned" / second).rename(o / "unlearned" / first)
        (o / "aside").rename(o / "unlearned" / second)

    found["two adapters swapped"] = (f"unlearned/{first}", swap)
    found["a better number in results.json"] = (
        "results.json",
        lambda o: (o / "results.json").write_text(
            (o / "results.json").read_text().replace('"value": ', '"value": 1', 1)
        ),
    )
    return found


def damaged(out: Path) -> Tally:
    """Damage a copy in each way; `verify` must name it."""
    tally = Tally("damage")
    for title, (name, harm) in harms(out / "whole").items():
        copy = out / "harmed"
        shutil.copytree(out / "whole", copy)
        harm(copy)
        tally.runs += 1
        tally.faults += 1
        asked = call("verify", str(copy))
        named = asked.returncode == 2 and f"{name} (" in asked.stderr
        tally.resumed += named
        if not named:
            tally.complaints.append(f"{title}: verify said {asked.stderr.strip()!r}")
        shutil.rmtree(copy)
    return tally


# Longest life of a killed process, in seconds.
LIFE = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/faults"))
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rooms", type=int, default=10, help="how often the disk is full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="sets", action="append", default=[], help="of the demo")
    asked = parser.parse_args()
    shutil.rmtree(asked.out, ignore_errors=True)
    words = ["demo", *(word for pair in asked.sets for word in ("--set", pair))]
    began = time.monotonic()
    whole = call(*words, "--out", str(asked.out / "whole"))
    assert whole.returncode == 0, whole.stderr
    seconds = time.monotonic() - began
    wanted = content(asked.out / "whole")
    tallies = [
        damaged(asked.out),
        filled(asked.out, words, wanted, asked.rooms),
        killed(asked.out, words, wanted, asked.kills, Random(asked.seed)),
    ]
    facts = {
        "command": words, "seed": asked.seed, "seconds_of_a_whole_run": round(seconds, 1),
        "files_compared": len(wanted), **surroundings(),
        "tallies": [tally.as_dict() for tally in tallies],
    }  # fmt: skip
    write_json(asked.out / "faults.json", facts)
    table = Table(title=f"{len(wanted)} files of a run of {seconds:.0f} s, seed {asked.seed}")
    for column in ("fault", "runs", "faults", "resumed or named", "identical", "lost"):
        table.add_column(column, justify="left" if column == "fault" else "right")
    for t in tallies:
        ended = ("–", "–") if t.kind == "damage" else (t.identical, t.lost)
        cells = (t.runs, t.faults, t.resumed, *ended)
        table.add_row(t.kind, *map(str, cells))
    Console().print(table)
    for tally in tallies:
        for complaint in tally.complaints:
            print(f"{tally.kind}: {complaint}")
    sys.exit(any(tally.complaints for tally in tallies))


if __name__ == "__main__":
    main()
