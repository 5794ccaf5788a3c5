"""Methods one after another: each begins where the one before ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from knowundo.storage.checkpoints import State
from knowundo.storage.job import Job
from knowundo.unlearning.settings import UnlearnSettings
from knowundo.unlearning.start import Start
from knowundo.unlearning.training import Unlearned, unlearn


def unlearn_in_sequence(
    start: Start,
    first: Callable[[Job], Unlearned],
    further: Sequence[UnlearnSettings],
    job: Job = Job(),
) -> Unlearned:
    """Train a method, then others, each from the weights that the one before left.

    To a further method these weights are the memorized model: its reference, and what its edit or
    its beginning changes. A method that diverges ends the sequence.

    Args:
        start: The memorized model; changed in place, and still the start of other trainings.
        first: Trains the first method; it is given a job.
        further: The methods after it, with their rates.
        job: Progress and checkpoint. A method that is complete is not trained again.

    Returns:
        What all of them leave: one curve with consecutive steps, and the facts of each further
        method in the fact `then`.

    Raises:
        BadInput: See `unlearn`.
    """
    if not further:
        return first(job)
    if (held := job.resumed()) is not None:
        done = Unlearned(held.facts["curve"], held.facts["facts"])
        start.restore()  # another variant's training may have left its weights
        start.copy_memorized(held.tensors)
        start.model.overwrite(held.tensors)
    else:
        done = first(job.part("first"))
        done.facts["then"] = []
        _write(job, start, done)
    for number in range(len(done.facts["then"]), len(further)):
        if "diverged" in done.facts:
            break
        settings = further[number]
        names = start.model.parameters() if settings.region is None else settings.region
        start.copy_memorized(names)  # of what no method before has changed
        here = Start(
            start.model,
            start.unlearn_rows,
            start.retention_rows,
            seed=start.seed,
            encode=start.encode,
        )
        _add(done, unlearn(here, settings, job=job.part(f"then-{number + 1}")))
        _write(job, start, done)
    return done


def _add(done: Unlearned, more: Unlearned) -> None:
    """Add what a further method left."""
    before = len(done.curve)
    done.curve += [row | {"step": before + row["step"]} for row in more.curve]
    done.facts["then"].append(more.facts)
    done.facts["optimizer_steps"] = len(done.curve)
    done.facts["seconds"] = round(done.facts["seconds"] + more.facts["seconds"], 2)
    if "diverged" in more.facts:
        kept = {"kept_step": before + more.facts["kept_step"]}
        done.facts |= {"diverged": f"{more.facts['method']}: {more.facts['diverged']}"} | kept


def _write(job: Job, start: Start, done: Unlearned) -> None:
    own = start.model.parameters()
    tensors = {name: own[name].detach().cpu() for name in start.changed}
    job.write(State({"curve": done.curve, "facts": done.facts}, tensors))
