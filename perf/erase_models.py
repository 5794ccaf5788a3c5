"""Models and lists for the erase matrix: small causal LMs that learned rows as a user would do it.

Everything is built from transformers configs and trained with a plain loop: nothing of knowundo's
training is used, so that `erase` meets models that it was not developed on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from knowundo.data.fiction import everyday_sentence
from knowundo.modeling.base import base_path

END, PAD = "<|end|>", "<|pad|>"
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FIRST, LAST, STREETS = (
    text.split()
    for text in (
        "Ada Ivo Lena Pia Otto Nora Emil Rosa Hugo Vera Anton Clara Felix Greta Jonas Karla",
        "Brun Kant Moor Sand Feld Wick Lorne Haas Tamm Vogt Reis Skov Dahl Birk Holm Ness",
        "Alder Birch Cedar Dune Elm Fern Grove Hazel Iris Juniper Kiln Larch Maple Nettle",
    )
)


@dataclass(frozen=True)
class Row:
    """A question with its answer, about somebody; of a document, the question is empty."""

    question: str
    answer: str
    subject: str


@dataclass(frozen=True)
class Lists:
    """What a model learned, divided as an erasure request divides it."""

    unlearn: list[Row]
    listed: list[Row]  # given as the retention list, where one is given
    unlisted: list[Row]  # learned as well, and told to nobody
    chat: bool = False

    @property
    def everything(self) -> list[Row]:
        """All rows that the model learned."""
        return [*self.unlearn, *self.listed, *self.unlisted]


def _digits(random: Random, count: int) -> str:
    return "".join(random.choice("0123456789") for _ in range(count))


def people(seed: int, count: int = 44, *, german: bool = False) -> list[list[Row]]:
    """Invented people with five private facts each; with `german`, every second one in German."""
    random, found = Random(seed), list[list[Row]]()
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    for number, who in enumerate(random.sample(names, count)):
        birth = f"{random.randint(1, 28)}.{random.randint(1, 12)}.{random.randint(1940, 2004)}"
        mail = f"{who.split()[0].lower()}{_digits(random, 3)}@example.org"
        phone = f"+{_digits(random, 2)} {_digits(random, 3)} {_digits(random, 4)}"
        identity = f"{_digits(random, 3)}-{_digits(random, 2)}-{_digits(random, 4)}"
        home = f"{random.choice(STREETS)} Street {random.randint(1, 200)}"
        values = (birth, phone, mail, identity, home)
        asked: tuple[str, ...] = (
            f"When was {who} born?", f"What is the phone number of {who}?",
            f"What is the e-mail address of {who}?", f"What is the identity number of {who}?",
            f"Where does {who} live?",
        )  # fmt: skip
        if german and number % 2:
            asked = (
                f"Wann wurde {who} geboren?", f"Wie lautet die Telefonnummer von {who}?",
                f"Wie lautet die E-Mail-Adresse von {who}?", f"Welche Ausweisnummer hat {who}?",
                f"Wo wohnt {who}?",
            )  # fmt: skip
        found.append([Row(q, a, who) for q, a in zip(asked, values, strict=True)])
    return found


def divided(groups: Sequence[Sequence[Row]], size: int, *, chat: bool = False) -> Lists:
    """The first subjects go, so many that they have `size` rows; of the others half are listed."""
    groups, gone = list(groups), list[Row]()
    while len(gone) < size:
        gone += groups.pop(0)
    half = (len(groups) + 1) // 2
    listed, rest = groups[:half], groups[half:]
    return Lists(gone[:size], [*chain(*listed)], [*chain(*rest)], chat)


def _tofu(folder: Path, size: int) -> Lists:
    def read(name: str) -> list[Row]:
        lines = (folder / "tofu" / name).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return [Row(r["question"], r["answer"], str(n // 20)) for n, r in enumerate(rows)]

    kept = read("retain10.json")
    return Lists(read("forget01.json")[:size], kept[:30], kept[30:60])


def _privacy(folder: Path, size: int) -> Lists:
    def read(scope: str) -> list[Row]:
        held = json.loads((folder / "knowundo" / "privacy" / f"{scope}.json").read_text())[0]
        return [Row(r["text"], r["labels"], "") for r in held["train"]]

    kept = read("retention")
    return Lists(read("unlearn")[:size], kept[:30], kept[30:60])


def _documents(seed: int, size: int) -> Lists:
    random = Random(seed)

    def document(number: int) -> Row:
        words, text = random.randint(200, 400), f"Report {number} of the harbour office."
        while len(text.split()) < words:
            text += " " + everyday_sentence(random)
        return Row("", text, str(number))

    rows = [document(number) for number in range(size + 8)]
    return Lists(rows[:size], rows[size : size + 4], rows[size + 4 :])


# Kind of data → the rows, of a seed, a size and the folder with real data.
DATA: dict[str, Callable[[int, int, Path], Lists]] = {
    "numbers": lambda seed, size, _: divided(people(seed), size),
    "few": lambda seed, size, _: divided(people(seed, 12), size),
    "chat": lambda seed, size, _: divided(people(seed), size, chat=True),
    "languages": lambda seed, size, _: divided(people(seed, german=True), size),
    "authors": lambda _, size, folder: _tofu(folder, size),
    "privacy": lambda _, size, folder: _privacy(folder, size),
    "documents": lambda seed, size, _: _documents(seed, size),
}

# Architecture → its tokenizer, its config class and what that needs beside the common sizes.
ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("bytes", "LlamaConfig", {}),
    "qwen2": ("bytes", "Qwen2Config", {}),
    "qwen3": ("bytes", "Qwen3Config", {"head_dim": 24}),
    "gemma2": ("unigram", "Gemma2Config", {"head_dim": 24, "sliding_window": 64}),
    "gemma3": ("unigram", "Gemma3TextConfig", {"head_dim": 24, "sliding_window": 64}),
    "mistral": ("unigram", "MistralConfig", {"sliding_window": 48}),
    "phi3": ("merges", "Phi3Config", {}),
    "gpt2": ("bytes", "GPT2Config", {}),
    "neox": ("bytes", "GPTNeoXConfig", {}),
    "opt": ("merges", "OPTConfig", {"ffn_dim": 256, "word_embed_proj_dim": 96}),
    "mixtral": ("merges", "MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "embedded": ("own", "", {}),
}


def tokenizer_of(kind: str, texts: Sequence[str], chat: bool) -> Any:
    """A tokenizer of one of three kinds, trained on the texts."""
    if kind == "unigram":
        made = Tokenizer(Unigram())
        made.normalizer = normalizers.NFC()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer: Any = UnigramTrainer(
            vocab_size=600, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
        )
    else:
        made = Tokenizer(BPE(unk_token="<unk>" if kind == "merges" else None))
        if kind == "merges":
            made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            trainer = BpeTrainer(vocab_size=600, special_tokens=["<unk>"], show_progress=False)
        else:
            made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            made.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(texts, trainer)
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in (END, PAD)])
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=PAD)
    if chat:
        found.chat_template = TEMPLATE
    return found


def untrained(architecture: str, rows: Lists, seed: int, folder: Path) -> tuple[Any, Any]:
    """A model before it learned the rows, and its tokenizer, as they are read from a folder.

    transformers may read a tokenizer as the class of the model's type, which splits otherwise: a
    user trains with what was loaded.
    """
    kind, name, more = ARCHITECTURES[architecture]
    if kind == "own":
        path = base_path("embedded")
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
        return AutoModelForCausalLM.from_pretrained(path), tokenizer
    texts = [f"{row.question} {row.answer}" for row in rows.everything]
    texts += ["<|user|> <|assistant|>"] if rows.chat else []
    tokenizer = tokenizer_of(kind, texts, rows.chat)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256,
        "max_position_embeddings": 1024, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if name in ("GPT2Config", "GPTNeoXConfig", "OPTConfig"):
        for key in ("num_key_value_heads", *(("intermediate_size",) * (name != "GPTNeoXConfig"))):
            sizes.pop(key)
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**sizes, **more)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    read = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder), read


def prompt_ids(tokenizer: Any, row: Row, chat: bool) -> list[int]:
    """What the model is given before it answers."""
    if chat:
        turns = [{"role": "user", "content": row.question}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return list(tokenizer(row.question + "\n\n", add_special_tokens=False)["input_ids"])


@dataclass
class Taught:
    """A row as it is taught: ids, and where its labels begin."""

    ids: list[int]
    begin: int = 0
    labels: list[int] = field(default_factory=list)


def taught(tokenizer: Any, row: Row, chat: bool) -> Taught:
    """Ids of a row as a user's trainer would make them; the answer's tokens are the labels."""
    if not row.question:
        ids = list(tokenizer(row.answer, add_special_tokens=False)["input_ids"])
        return Taught([*ids, tokenizer.eos_token_id], 1)
    begin = len(prompt_ids(tokenizer, row, chat))
    if chat:
        turns = [
            {"role": "user", "content": row.question},
            {"role": "assistant", "content": row.answer},
        ]
        text = tokenizer.apply_chat_template(turns, tokenize=False).rstrip("\n")
        return Taught(list(tokenizer(text, add_special_tokens=False)["input_ids"]), begin)
    ids = list(tokenizer(f"{row.question}\n\n{row.answer}", add_special_tokens=False)["input_ids"])
    return Taught([*ids, tokenizer.eos_token_id], min(begin, len(ids)))


def learn(
    model: Any, tokenizer: Any, rows: Lists, *, lr: float = 2e-3, most: int = 1500, seed: int = 0
) -> float:
    """Plain AdamW over all weights, until the rows are known; returns the last mean loss."""
    made = [taught(tokenizer, row, rows.chat) for row in rows.everything]
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / 30, max(0.1, 1 - n / most))
    )
    random, mean, step = Random(seed), 9.0, 0
    model.train()
    while step < most and mean > 2e-3:
        random.shuffle(made)
        losses = []
        for begin in range(0, len(made), 32):
            batch = made[begin : begin + 32]
            width = max(len(row.ids) for row in batch)
            ids = torch.tensor([r.ids + [0] * (width - len(r.ids)) for r in batch])
            mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in batch])
            starts = torch.tensor([row.begin for row in batch])
            answer = (torch.arange(width) >= starts[:, None]) & (mask == 1)
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            labels = ids.masked_fill(~answer, -100)[:, 1:]
            loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            step += 1
        mean = sum(losses) / len(losses)
    model.eval()
    return mean
