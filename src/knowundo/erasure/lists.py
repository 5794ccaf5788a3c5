"""The lists of a run, from the user's files and, where there is none, with the model's help."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from random import Random

from knowundo.data.chunks import chunked
from knowundo.data.encoded import Encoded
from knowundo.data.encoding import fitting
from knowundo.data.lists.reading import KNOWN
from knowundo.data.lists.subjects import with_subjects
from knowundo.data.neighbours import mostly_english, reworded
from knowundo.data.records import Record, check_records
from knowundo.erasure.answering import ask
from knowundo.erasure.checks import (
    LEFT,
    ask_model,
    describe_rows,
    guessed,
    same_answers,
    similar_questions,
    without_repeats,
)
from knowundo.erasure.formats import FormatChoice
from knowundo.erasure.generated_rows import make_retention, own_texts
from knowundo.erasure.given import GivenLists
from knowundo.erasure.leaks import Leaks
from knowundo.erasure.list_check import ListCheck, some
from knowundo.errors import BadInput
from knowundo.modeling.model import Model
from knowundo.progress import Reporter
from knowundo.recipes.schema import Recipe
from knowundo.runs.rows import encode_for
from knowundo.scoring.guessing import guessing_level

# Of generated retention rows so many are for val; general texts that the model writes.
VAL, GENERAL = 0.2, 80
# Rows of the val split from which it says something about what is lost.
LEAST_VAL = 8


class ListMaker:
    """Makes the lists of a run."""

    def __init__(
        self,
        recipe: Recipe,
        model: Model,
        reporter: Reporter,
        earlier: Sequence[Record],
        choice: FormatChoice = FormatChoice(),
    ) -> None:
        """Remember what the lists are made with.

        Args:
            recipe: how rows are encoded, and the seed.
            model: in the state that knows the list; not changed.
            reporter: tells the user what happens.
            earlier: rows of earlier requests, which must not come back either.
            choice: how the format was found, if it was.
        """
        self.recipe, self.model, self.reporter = recipe, model, reporter
        self.seed, self.earlier, self.choice = recipe.seed, earlier, choice

    def encode(self, records: Sequence[Record]) -> list[Encoded]:
        """As the run will."""
        return encode_for(self.recipe, records, self.model)

    def whole(self, records: Sequence[Record]) -> list[Record]:
        """Records with subjects, long documents in parts.

        A part is as lists hold it: not blank, without newlines at its end.
        """
        length = self.model.longest(self.recipe.data.max_length)
        named = with_subjects(records)
        parts = [part for r in named for part in chunked(r, self.model.tokenizer, length)]
        ended = [replace(part, answer=part.answer.rstrip("\r\n")) for part in parts]
        return [
            replace(part, facts=tuple(fact for fact in part.facts if fact in part.answer))
            for part in ended
            if part.answer.strip()
        ]

    def lists(
        self, given: GivenLists, place: str, val_place: str = "--val"
    ) -> tuple[ListCheck, dict[str, list[Record]]]:
        """The check, and the records of each file of `lists`.

        Args:
            given: the user's rows.
            place: of the unlearn list, for errors.
            val_place: likewise of the file of other questions.

        Raises:
            BadInput: a row stands in two lists, the model knows none of them, answers none of the
                questions alone, or answers of the list or of the file of other questions can be
                guessed.
        """
        choice = self.choice
        check = ListCheck(format=choice.name, formats=dict(choice.accuracy), also=list(choice.also))
        given = self._answered(given, check, place)
        unlearn, check.repeated = without_repeats(self.whole(given.unlearn))
        val = self.whole(given.val or [])
        stay = None if given.retention is None else self.whole(given.retention)
        describe_rows(check, "unlearn", self.encode(unlearn))
        if stay is not None:
            describe_rows(check, "retention", self.encode(stay))
            check.similar = similar_questions([*unlearn, *val], stay)
            check.same_answer = same_answers([*unlearn, *val], stay)
        secret = [*unlearn, *val, *self.earlier]
        general = given.general or self._texts(secret)
        with self.reporter.task("what the model knows") as progress:
            ask_model(check, self.model, self.encode(unlearn), self._level(unlearn, general))
            progress(1, 1)
        if not check.verbatim and not check.known:
            raise BadInput(self.choice.unknown(place, len(unlearn), check.level or 0.0))
        gone = set(check.not_known)
        known = [record for record in unlearn if record.id not in gone]
        self._refuse_guesses(known, place)
        # The verdict asks the same of val rows as of the list's.
        self._refuse_guesses(val, val_place)
        unlearn = [replace(r, split="holdout") if r.id in gone else r for r in unlearn]
        retention = self._retention(stay, known, secret)
        kept = {(r.turns, r.question) for r in retention if r.kind == "qa"}
        lists = {
            "unlearn": [*unlearn, *(val or self._reworded(known, kept))],
            "retention": retention,
            "general": general,
        }
        check_records([record for records in lists.values() for record in records])
        return check, lists

    def _answered(self, given: GivenLists, check: ListCheck, place: str) -> GivenLists:
        """The lists with the model's own answers to questions that came without one."""
        unlearn = self._with_answers(given.unlearn, check, place)
        retention = given.retention
        if retention is not None:
            retention = self._with_answers(retention, check, "retention")
        return replace(given, unlearn=unlearn, retention=retention)

    def _with_answers(
        self, records: Sequence[Record], check: ListCheck, place: str
    ) -> list[Record]:
        """The records, without questions that the model does not answer confidently."""
        bare = [record for record in records if not record.answer]
        if not bare:
            return list(records)
        found = {one.record.id: one for one in ask(self.model, bare, self.encode, seed=self.seed)}
        for one in found.values():
            if not one.confident:
                self.reporter.say(
                    f"{one.record.id}: '{one.record.question}' has no answer, and the model is not "
                    f"confident of its own ({one.figures}); left out: give the answer, or remove it"
                )
        check.answered += [name for name, one in found.items() if one.confident]
        kept = [found[r.id].record if r.id in found else r for r in records
                if r.id not in found or found[r.id].confident]  # fmt: skip
        if not kept:
            one = next(iter(found.values()))
            raise BadInput(
                f"{place}: the model answers none of its {len(found)} questions confidently (first "
                f"'{one.record.question}': {one.figures}); give the answers, or other questions"
            )
        return kept

    def _refuse_guesses(self, rows: Sequence[Record], place: str) -> None:
        """Refuse a list that could never pass, as its answers are what the model guesses."""
        found = guessed(self.model, rows, self.encode, seed=self.seed)
        if 100 * len(found) > LEFT * len(rows):
            raise BadInput(
                f"{place}: the answers of {some(found)} can be guessed: the model "
                "gives them about invented people too, so that nothing can show that they are "
                "gone; give answers that say more than yes or no, or remove these rows"
            )

    def _reworded(
        self, known: Sequence[Record], taken: Container[tuple[object, str]]
    ) -> list[Record]:
        """Val rows: the known ones in other words, none of which is a question of `taken`."""
        english = mostly_english(known)
        other = [reworded(record, self.seed, english=english) for record in known]
        rows = [_as_val(r) for r in other if r is not None and (r.turns, r.question) not in taken]
        if not (rows := self._fitting(rows)):
            raise BadInput(
                "--val: no row of the list can be asked in other words within data.max_length; "
                "name a file of other questions about what must go, or raise data.max_length"
            )
        if not english:
            foreign = sum(record.kind == "qa" for record in known)
            self.reporter.say(
                f"{foreign} questions do not look English, for which the templates of other words "
                "are: they are asked again between quotation marks or the like; --val names a file "
                "of real rewordings"
            )
        return rows

    def _level(self, unlearn: Sequence[Record], general: Sequence[Record]) -> float:
        """Token accuracy on what the model cannot know, or the number that the recipe gives."""
        stop = self.recipe.unlearn.stop
        if stop is not None and stop.target not in ("unknown", 0.0):
            return float(stop.target)
        level = guessing_level(self.model, unlearn, general, self.encode, seed=self.seed)
        if level is None:
            raise BadInput(
                "unlearn.stop.target: no row about somebody invented fits into data.max_length; "
                "raise it, or give a token accuracy such as 0.5"
            )
        return level

    def _fitting(self, made: Sequence[Record]) -> list[Record]:
        """The made rows that are not too long."""
        return [row.record for row in fitting(made, self.encode)]

    def _texts(self, secret: Sequence[Record]) -> list[Record]:
        """General rows that the model writes: other ones than those it is trained on."""
        texts = self._fitting(own_texts(self.model, Leaks(secret), GENERAL, seed=self.seed + 1))
        if not texts:
            self.reporter.say(
                "the model writes no texts that could be taken, so the perplexity of ordinary text "
                "is not measured; --general names a file of texts"
            )
        splits = ("val", "train")
        return [
            replace(t, id=f"general/generated/{n}", subset="text", split=splits[n % 2])
            for n, t in enumerate(texts)
        ]

    def _retention(
        self, stay: list[Record] | None, known: Sequence[Record], secret: Sequence[Record]
    ) -> list[Record]:
        """The user's retention rows, and the model's own answers near the list.

        Few lists name everybody whom the model knows: those that it does not name would be lost.
        """
        with self.reporter.task("retention rows from the model") as progress:
            rows = make_retention(self.model, known, secret, self.encode, seed=self.seed)
            progress(1, 1)
        if stay is not None:
            return self._with_given(stay, rows)
        if len(rows) < 4:
            raise BadInput(
                "--retention: the model says too little near the list to make one of; name a file "
                "of rows that must stay"
            )
        kinds = sorted({str(row.subset).removeprefix("generated: ") for row in rows})
        self.reporter.say(
            f"no retention list: {len(rows)} rows made of the model's own answers "
            f"({', '.join(kinds)})"
        )
        sure = [n for n, row in enumerate(rows) if str(row.subset).startswith(KNOWN)]
        if len(sure) < LEAST_VAL / VAL:
            self.reporter.say(
                f"the model demonstrably knows {len(sure)} of them, too few to measure what is "
                "lost: what it makes up about strangers is trained on, and shown, but bounds "
                "nothing; --retention names a file of rows that must stay"
            )
            sure = list(range(len(rows)))
        chosen = set(Random(self.seed).sample(sure, round(VAL * len(sure)) or 1))
        return [replace(r, split="val") if n in chosen else r for n, r in enumerate(rows)]

    def _with_given(self, stay: Sequence[Record], made: Sequence[Record]) -> list[Record]:
        """The user's rows, which alone are scored as val, and those made that they do not ask."""
        rows, _ = without_repeats(stay)
        asked = {row.question for row in rows if row.kind == "qa"}
        made = [row for row in made if row.kind == "text" or row.question not in asked]
        self.reporter.say(
            f"beside the retention list: {len(made)} rows made of the model's own answers, so that "
            "what the list does not name stays too"
        )
        if not any(row.split == "val" for row in rows):
            english = mostly_english(rows)
            other = [reworded(row, self.seed, english=english) for row in rows]
            rows += self._fitting([_as_val(row) for row in other if row is not None])
            if not any(row.split == "val" for row in rows):
                raise BadInput(
                    "--retention: none of its rows can be asked in other words (texts are too "
                    'short, or rows too long for data.max_length); mark rows with split "val"'
                )
        return [*rows, *made]


def _as_val(record: Record) -> Record:
    return replace(record, id=f"{record.id}/reworded", split="val", subset="reworded")
