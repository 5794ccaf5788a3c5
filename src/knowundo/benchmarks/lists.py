"""Lists of your own: rows that must go, rows that must stay, in the files such lists lie in.

read_list(Path("rows.csv"), scope="unlearn", split="train", columns={"question": "Q"})
lists(source="folder")      the lists of a run, as `write_list` writes them and a person edits them
with_subjects(records)      whom each row is about, where the rows do not say
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from knowundo.artifacts import parse_json, write_text
from knowundo.benchmarks.files import read_parquet
from knowundo.benchmarks.knowundo import _PERSON
from knowundo.errors import BadInput, unknown
from knowundo.records import ROLES, SPLITS, Record, readable
from knowundo.registry import benchmark
from knowundo.wording import split_words

DOMAINS = ("lists",)
# Every key that a row may have; `columns` gives them other names.
KEYS = (
    "question", "answer", "prompt", "completion", "messages", "text", "labels",
    "id", "split", "subject", "subset", "facts", "turns", "generated", "continues",
)  # fmt: skip
# Subsets of rows that the package made itself begin so; who edits a list sees which they are.
MADE = ("generated", "reworded")

_SHAPES = (
    "a row has question and answer, or prompt and completion, or messages, or text and labels, or "
    "text alone; say --columns question=… if yours are named otherwise"
)
# First words of a question or request, which a name may follow without a comma.
_OPENERS = {
    "Am", "And", "Are", "As", "At", "By", "Can", "Compare", "Continue", "Could", "Describe", "Did",
    "Discuss", "Do", "Does", "Explain", "Extend", "Find", "For", "From", "Give", "Had", "Has",
    "Have", "How", "I", "If", "In", "Is", "List", "May", "Mention", "Name", "Of", "On", "Or",
    "Please", "Quote", "Recall", "Say", "Shall", "Should", "So", "State", "Summarize", "Tell", "To",
    "Was", "Were", "What", "When", "Where", "Which", "Who", "Whom", "Whose", "Why", "Will", "With",
    "Would", "Write",
}  # fmt: skip
# Words around a name that are no part of it: titles, and what follows a name in a question whose
# words all begin with a capital ("Does Ada Brun Live in Rome?").
_TITLES = {"dr", "doctor", "prof", "professor", "mr", "mrs", "ms", "miss"}
_FOLLOWERS = {
    "as", "at", "become", "born", "by", "come", "die", "do", "earn", "from", "get", "go", "grow",
    "have", "in", "is", "know", "like", "live", "lives", "make", "marry", "meet", "move", "of",
    "on", "own", "play", "sing", "speak", "stay", "study", "teach", "to", "want", "was", "wear",
    "win", "with", "work", "works", "write",
}  # fmt: skip
_LONGEST = 6  # words of a name


class _Row(NamedTuple):
    """A row of a file, and where it stands there."""

    place: str
    values: dict[str, Any]


def parse_columns(text: str) -> dict[str, str]:
    """Our names → the file's, of `question=Q,answer=A`.

    Raises:
        BadInput: a part that is no pair, a name that rows do not have, or one that occurs twice.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        ours, equals, theirs = (word.strip() for word in part.partition("="))
        if not (ours and equals and theirs):
            raise BadInput(f"--columns '{text}': '{part}' is no pair; write question=Q,answer=A")
        if ours not in KEYS:
            raise BadInput(f"--columns '{text}': {unknown('name', ours, KEYS)}")
        if ours in columns:
            raise BadInput(f"--columns '{text}': '{ours}' occurs twice; name one column for it")
        columns[ours] = theirs
    return columns


def read_list(
    path: Path, *, scope: str, split: str, columns: Mapping[str, str] = {}
) -> list[Record]:
    """Records of a .jsonl, .json, .csv, .tsv or .parquet file.

    A row is, told apart by its keys in this order: a conversation `messages` whose last two turns
    are question and answer; `question` and `answer`; `prompt` and `completion`; KnowUnDo's `text`
    (the question) and `labels`; or a document `text`. Any may also have `id`, `split`, `subject`,
    `subset`, `facts` (substrings of the answer), `turns` (what was said before the question, as
    messages), `generated`, and `continues` (the text was cut off, so that it has no end to learn);
    other keys are ignored. A turn's content is a text, or a list of parts that are all texts; a
    call of a tool, an image or a number is refused. In a table's cell, lists are JSON, and the line
    ends of Windows and of old Macs become newlines. Texts stay as they are, without newlines at
    their end.

    Args:
        path: the file; text is UTF-8, with or without a byte order mark.
        scope: of all rows.
        split: of rows that name none.
        columns: our names → the file's.

    Raises:
        BadInput: no such file, no rows, malformed, or a row that is none of these; says where.
    """
    rows = _renamed(path, _read(path), columns)
    records: list[Record] = []
    places: dict[str, str] = {}
    for number, row in enumerate(rows):
        record = _record(row, scope, split, number)
        if record.id in places:
            raise BadInput(
                f"{row.place}: id '{record.id}' is also that of {places[record.id]}; "
                "give each row its own"
            )
        places[record.id] = row.place
        records.append(record)
    return records


def _read(path: Path) -> list[_Row]:
    readers = {
        ".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet,
    }  # fmt: skip
    if path.is_dir():
        raise BadInput(f"{path}: a folder; name a file in it")
    if not path.exists():
        raise BadInput(f"{path}: no such file; check the path")
    if (ending := path.suffix.lower()) not in readers:
        raise BadInput(f"{path}: expected a file named {', '.join(readers)}; rename or convert it")
    rows = readers[ending](path)
    if not rows:
        raise BadInput(f"{path}: holds no rows; write at least one")
    return rows


def _text(path: Path) -> str:
    """A text file, without the byte order mark that spreadsheets write."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise BadInput(f"{path}, line {line}: a NUL byte; save the file as text in UTF-8")
    return text


def _object(value: Any, place: str) -> _Row:
    if not isinstance(value, dict):
        raise BadInput(f"{place}: {_kind(value)}, not an object; {_SHAPES}")
    return _Row(place, value)


def _jsonl(path: Path) -> list[_Row]:
    text = _text(path)
    mend = "correct that line"
    if text.lstrip().startswith("["):
        mend = "a row is one line; a list of rows belongs into a .json file"
    # Not splitlines(): texts hold line separators of other kinds, which JSON leaves as they are.
    return [
        _object(parse_json(line, path, number, mend), f"{path}, line {number}")
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]


def _json(path: Path) -> list[_Row]:
    text = _text(path)
    mend = "correct that place"
    if text.lstrip().startswith("{"):
        mend = "a .json file is a list of rows; name it .jsonl if it holds one object a line"
    if not text.strip():
        return []
    rows = parse_json(text, path, None, mend)
    if not isinstance(rows, list):
        raise BadInput(f"{path}: {_kind(rows)}, not a list of rows; write [{{…}}, {{…}}]")
    return [_object(row, f"{path}, row {n}") for n, row in enumerate(rows, start=1)]


def _parquet(path: Path) -> list[_Row]:
    return [_Row(f"{path}, row {n}", row) for n, row in enumerate(read_parquet([path]), start=1)]


def _table(path: Path) -> list[_Row]:
    """Rows of comma- or tab-separated cells under a header; empty cells count as absent."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    stream = io.StringIO(_text(path), newline="")
    reader = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        table = list(reader)
    except csv.Error as error:
        hint = "close its quotation marks"
        if "field larger" in str(error):
            hint += "; texts as long as that belong into a .jsonl file"
        raise BadInput(f"{path}, line {reader.line_num}: {error}; {hint}") from None
    header = [" ".join(name.split()) for name in table[0]] if table else []
    _check_header(header, path)
    rows = []
    for number, cells in enumerate(table[1:], start=1):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise BadInput(
                f"{path}, row {number}: {len(cells)} cells under {len(header)} columns; put a text "
                "that holds the separator into quotation marks"
            )
        texts = (re.sub("\r\n?", "\n", cell) for cell in cells)
        values = {name: text for name, text in zip(header, texts, strict=True) if name}
        rows.append(_Row(f"{path}, row {number}", values))
    return rows


def _check_header(header: list[str], path: Path) -> None:
    for name in header:
        if name and header.count(name) > 1:
            raise BadInput(f"{path}: two columns are named '{name}'; rename one")
    if len(header) == 1 and (other := next((c for c in ";\t|," if c in header[0]), None)):
        shown = "a tab" if other == "\t" else f"'{other}'"
        raise BadInput(
            f"{path}: one column, '{header[0].strip()}', seemingly separated by {shown}; separate "
            "by commas (.csv) or tabs (.tsv)"
        )


def _renamed(path: Path, rows: list[_Row], columns: Mapping[str, str]) -> list[_Row]:
    """The rows under our names, without what is absent."""
    present = list(dict.fromkeys(key for row in rows for key in row.values))
    for ours, theirs in columns.items():
        if ours not in KEYS:
            raise BadInput(f"{path}: --columns: {unknown('name', ours, KEYS)}")
        if theirs not in present:
            said = str(unknown("column", theirs, present))
            if "; known: " not in said:
                said += f" It has {', '.join(present)}"
            raise BadInput(f"{path}: {' '.join(said.split())}")
    cells = path.suffix.lower() in (".csv", ".tsv")
    taken = set(columns.values())
    renamed = []
    for row in rows:
        values = {key: value for key, value in row.values.items() if key not in taken}
        values |= {ours: row.values.get(theirs) for ours, theirs in columns.items()}
        if cells:
            values = {key: _cell(key, value) for key, value in values.items()}
        # Without its `labels` a question would pass for a document.
        values = {k: v for k, v in values.items() if v is not None or k == "labels"}
        renamed.append(_Row(row.place, values))
    return renamed


def _cell(key: str, text: str) -> Any:
    """What a cell means: nothing, a list as JSON, a fact alone, true or false, or its text."""
    if not text:
        return None
    if key in ("facts", "messages", "turns"):
        try:
            return json.loads(text) if text.lstrip().startswith("[") else [text]
        except ValueError:
            return [text]
    if key in ("generated", "continues"):
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    return text


def _record(row: _Row, scope: str, split: str, number: int) -> Record:
    place, values = row
    turns, question, answer = _shape(row)
    split = _name(row, "split") or split
    if split not in SPLITS:
        raise BadInput(f"{place}: {unknown('split', split, SPLITS)}")
    for key in ("generated", "continues"):
        if not isinstance(values.get(key, False), bool):
            raise BadInput(f"{place}: '{key}' is neither true nor false; remove it")
    return Record(
        id=_name(row, "id") or f"{scope}/{split}/{number}",
        question=question or "",
        answer=answer,
        scope=scope,
        split=split,
        subject=_name(row, "subject"),
        kind="text" if question is None else "qa",
        subset=_name(row, "subset"),
        facts=_facts(row, answer),
        turns=turns,
        continues=values.get("continues", False),
    )


def _shape(row: _Row) -> tuple[tuple[tuple[str, str], ...], str | None, str]:
    """Earlier turns, question and answer; no question: a document."""
    place, values = row
    if "messages" in values:
        *turns, (asker, question), (speaker, answer) = _conversation(row, "messages", least=2)
        if (asker, speaker) != ("user", "assistant"):
            raise BadInput(
                f"{place}: 'messages' ends with turns of {asker} and {speaker}; the last must be "
                "the assistant's, the answer, and the one before it the user's"
            )
        pair = {"question": question, "answer": answer}
        return tuple(turns), _said(pair, "question", place), _said(pair, "answer", place)
    for first, second in (("question", "answer"), ("prompt", "completion"), ("text", "labels")):
        if second in values or (first in values and first != "text"):
            turns = _conversation(row, "turns") if "turns" in values else []
            return tuple(turns), _said(values, first, place), _said(values, second, place)
    if "text" not in values:
        has = ", ".join(repr(key[:40]) for key in list(values)[:12]) or "nothing"
        raise BadInput(f"{place}: not a known kind of row; it has {has}, but {_SHAPES}")
    if "turns" in values:
        raise BadInput(f"{place}: 'turns' before a document; remove them, or add 'labels'")
    return (), None, _said(values, "text", place)


def _said(values: Mapping[str, Any], key: str, place: str) -> str:
    """A text that must be there."""
    text = _string(values.get(key, ""), f"'{key}'", place)
    if not text.strip():
        raise BadInput(f"{place}: '{key}' is missing or empty; fill it in or remove the row")
    return text


def _string(value: Any, what: str, place: str) -> str:
    """Any text, without newlines at its end."""
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise BadInput(f'{place}: {what} is {_kind(value)}, not a text; write it as "…"')
    if not readable(value):
        raise BadInput(f"{place}: {what} holds a NUL or half a character; remove it")
    return value.rstrip("\r\n")


def _name(row: _Row, key: str) -> str | None:
    """One of the short texts that a row may have; ids are often numbers."""
    value = row.values.get(key)
    if key == "id" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = _string(value, f"'{key}'", row.place).strip()
    if len(text.splitlines()) > 1:
        raise BadInput(f"{row.place}: '{key}' has several lines; write it on one")
    return text or None


def _facts(row: _Row, answer: str) -> tuple[str, ...]:
    facts = row.values.get("facts", [])
    if not isinstance(facts, list) or not all(isinstance(f, str) and f.strip() for f in facts):
        raise BadInput(f'{row.place}: \'facts\' is not a list of texts; write ["…", "…"]')
    for fact in facts:
        if fact not in answer:
            raise BadInput(
                f"{row.place}: the fact {fact[:60]!r} is not a part of the answer; copy it from "
                "there, letter by letter"
            )
    return tuple(facts)


def _conversation(row: _Row, key: str, *, least: int = 0) -> list[tuple[str, str]]:
    """Turns as (role, content)."""
    messages = row.values[key]
    if not isinstance(messages, list) or len(messages) < least:
        count = f"at least {least} " if least else ""
        raise BadInput(
            f"{row.place}: '{key}' is not a list of {count}turns; write "
            '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
        )
    turns = []
    for number, message in enumerate(messages, start=1):
        what = f"turn {number} of '{key}'"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("tool", "function") or (role in ROLES and _calls_tool(message)):
            raise BadInput(
                f"{row.place}: {what} is a call of a tool; only text can go, remove the row"
            )
        if role not in ROLES:
            raise BadInput(f"{row.place}: {what} has none of the roles {', '.join(ROLES)}")
        turns.append((role, _content(message.get("content"), what, row.place)))
    return turns


def _calls_tool(message: Mapping[str, Any]) -> bool:
    # Parquet gives every message every key.
    return bool(message.get("tool_calls") or message.get("function_call"))


def _content(content: Any, what: str, place: str) -> str:
    """A turn's text, which may be a list of parts."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text" or part.get("text") is None:
            kind = part.get("type") if isinstance(part, dict) else None
            shown = f" ({kind})" if isinstance(kind, str) and kind != "text" else ""
            raise BadInput(
                f"{place}: {what} holds something else than text{shown}; only text can go, remove "
                "the row"
            )
        texts.append(_string(part["text"], what, place))
    return "".join(texts)


def _kind(value: Any) -> str:
    for kinds, name in (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
        (list, "a list"),
        (dict, "an object"),
    ):
        if isinstance(value, kinds):
            return name
    return "null" if value is None else f"a {type(value).__name__}"


def write_list(path: Path, records: Iterable[Record]) -> None:
    """Write records as one object a line, for `lists` and for people.

    Their scope is the file's. Read again they are equal, up to newlines at the end of a text and
    `alternatives`, which lists do not hold.
    """
    lines = [json.dumps(_line(record), ensure_ascii=False) + "\n" for record in records]
    write_text(path, "".join(lines))


def _line(record: Record) -> dict[str, Any]:
    text = {"text": record.answer}
    if record.kind != "text":
        text = {"question": record.question, "answer": record.answer}
    rest = {
        "subject": record.subject,
        "subset": record.subset,
        "facts": list(record.facts),
        "turns": [{"role": role, "content": content} for role, content in record.turns],
        "generated": str(record.subset).startswith(MADE),
        "continues": record.continues,
    }
    given = {key: value for key, value in rest.items() if value}
    return {"id": record.id, **text, "split": record.split, **given}


@benchmark(domains=DOMAINS, licence="yours", citation="your own lists")
def lists(*, domain: str = "lists", source: str, seed: int = 0) -> list[Record]:
    """Lists of your own: unlearn.jsonl, retention.jsonl, general.jsonl and earlier.jsonl.

    Args:
        domain: `lists`.
        source: folder that holds unlearn.jsonl and retention.jsonl, and may hold general.jsonl
            and earlier.jsonl: what earlier requests made it unlearn, which is asked (split
            `probe`, whatever the rows say) and never trained on.
        seed: not used; the rows are given.

    Raises:
        BadInput: unknown domain, a list that is missing or malformed, an id that occurs twice.
    """
    if domain not in DOMAINS:
        raise unknown("domain of benchmark lists", domain, DOMAINS)
    if not Path(source).is_dir():
        raise BadInput(f"data.source '{source}': no such folder; check the path")
    records: list[Record] = []
    owner: dict[str, Path] = {}
    for name in ("unlearn", "retention", "general", "earlier"):
        path = Path(source) / f"{name}.jsonl"
        if name in ("general", "earlier") and not path.exists():
            continue
        split = "probe" if name == "earlier" else "train"
        for record in read_list(path, scope=name, split=split):
            if name == "earlier":
                record = replace(record, scope="unlearn", split=split)
            if record.id in owner:
                raise BadInput(
                    f"{path}: id '{record.id}' occurs in {owner[record.id].name} too; "
                    "give each row its own"
                )
            owner[record.id] = path
            records.append(record)
    return records


def with_subjects(records: Iterable[Record]) -> list[Record]:
    """Records that name no subject, given one: intervals resample subjects.

    It is the longest name of two or more words in both question and answer, else in the question
    (“Where does Clara Dorinford live?” – “She lives at …”), else the row's id. A name that holds a
    commoner one of the same list, and beside it only titles or words of the question (“Dr. Clara
    Dorinford”, “Clara Dorinford Live”), is that one; a row that names nobody is about the only
    subject of the list that its answer names.
    """
    given = list(records)
    found = [r if r.subject else replace(r, subject=_subject(r)) for r in given]
    names = _Names(found)
    merged = [
        one if told.subject else replace(one, subject=_shared(one, names))
        for told, one in zip(given, found, strict=True)
    ]
    names = _Names(merged)
    return [r if r.subject != r.id else replace(r, subject=_told(r, names)) for r in merged]


class _Names:
    """The subjects of a list, found by their words: each text is split into words only once."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.counts = Counter(r.subject for r in records if r.subject and r.subject != r.id)
        self.by_words: dict[tuple[str, ...], list[str]] = {}
        for name in self.counts:
            self.by_words.setdefault(tuple(split_words(name)), []).append(name)
        self.by_words.pop((), None)
        self._lengths = sorted({len(words) for words in self.by_words})

    def places(self, words: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Where a name stands among the words: its first word and the one after its last."""
        for length in self._lengths:
            for start in range(len(words) - length + 1):
                if tuple(words[start : start + length]) in self.by_words:
                    yield start, start + length


def _shared(record: Record, names: _Names) -> str:
    """The commoner name within the record's own, else its own.

    Only if the longer one adds no name: "Ada Brun Kant" is somebody else than "Ada Brun".
    """
    own = record.subject or record.id
    words, most = split_words(own), names.counts.get(own, 0)
    within = [
        name
        for start, end in names.places(words)
        if _adds_no_name(words[:start], words[end:])
        for name in names.by_words[tuple(words[start:end])]
        if name != own and names.counts[name] > most
    ]
    return max(within, key=len, default=own)


def _adds_no_name(before: Sequence[str], after: Sequence[str]) -> bool:
    """True if what stands around a name are titles, or words of a question written large."""
    titles_end = next((n for n, word in enumerate(after) if word not in _TITLES), len(after))
    rest = after[titles_end:]
    return all(word in _TITLES or word.capitalize() in _OPENERS for word in before) and (
        not rest or rest[0] in _FOLLOWERS
    )


def _told(record: Record, names: _Names) -> str:
    """The only subject that the answer names, else the record's id."""
    words = split_words(record.answer)
    named = {
        name
        for start, end in names.places(words)
        for name in names.by_words[tuple(words[start:end])]
    }
    return named.pop() if len(named) == 1 else record.id


def _subject(record: Record) -> str:
    asked = _names(record.question)
    answered = set(_names(record.answer)) if asked else set()
    plain = [name for name in asked if name.split(" ", 1)[0].capitalize() not in _OPENERS]
    # The second is for names such as “Will Smith”, which begin like a question.
    for names in (
        [name for name in plain if name in answered],
        [name for name in asked if name in answered],
        plain,
    ):
        if names:
            return max(names, key=len)
    return record.id


def _names(text: str) -> list[str]:
    """Every run of two or more words in a person's name, also within a longer one."""
    names = []
    # A possessive ends a name: “Amina Mohammed's Nigerian heritage”.
    for match in _PERSON.finditer(re.sub(r"['’]s\b", ",", text)):
        # “… in Saltmere. Clara …” is two: a longer word's full stop ends a sentence.
        for sentence in re.split(r"(?<=\w{4}\.) ", match.group()):
            words = sentence.split(" ")
            names += [
                " ".join(words[i:j]).rstrip(".'’-")
                for i in range(len(words))
                for j in range(i + 2, min(i + _LONGEST, len(words)) + 1)
                if words[i][:1].isupper() and words[j - 1][:1].isupper()
            ]
    return names
