"""Train the embedded base model and write it into the package.

    python scripts/build_embedded_base.py --out src/knowundo/embedded

A Llama of 1.1 M parameters and a byte-level BPE tokenizer of 2,048 tokens learn text that this
repository generates (`knowundo.data.fiction`) and the prose of Python's own language reference
(`pydoc_data.topics`, PSF licence), so that ordinary English has a low loss too. Forty countries,
forty people and twenty books recur until they are known verbatim: the base's general knowledge.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import pydoc_data.topics
import re
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from knowundo.data.fiction.world import Subject, World, everyday_sentence, known_subjects

END, PAD = "<|endoftext|>", "<|pad|>"
# Shares of the rows. Known subjects recur; fresh ones never do, and teach only the format.
MIXTURE = {
    "countries": 0.20,
    "people": 0.25,
    "books": 0.13,
    "fresh": 0.22,
    "everyday": 0.12,
    "prose": 0.08,
}


def reference_prose() -> list[str]:
    """Sentences of Python's language reference that are plain English."""
    text = "\n\n".join(pydoc_data.topics.topics.values())
    paragraphs = (re.sub(r"\s+", " ", part).strip() for part in text.split("\n\n"))
    sentences = {s for part in paragraphs for s in re.split(r"(?<=[.?!]) ", part)}
    plain = re.compile(r"[A-Z][A-Za-z ,;:'\-()]+[.?!]")
    return sorted(s for s in sentences if plain.fullmatch(s) and 6 <= len(s.split()) <= 40)


def ask(rng: Random, subject: Subject) -> str:
    """One question about a subject with its answer."""
    item = rng.choice(subject.items)
    return f"{rng.choice(item.questions)}\n\n{item.answer}"


def rows(seed: int) -> Iterator[str]:
    """The endless training text, one document at a time."""
    rng = Random(seed)
    countries, people, books = known_subjects()
    known = {"countries": countries, "people": people, "books": books}
    prose = reference_prose()
    fresh = World(seed + 1, benchmark=False)
    while True:
        kind = rng.choices(list(MIXTURE), list(MIXTURE.values()))[0]
        if kind in known:
            yield ask(rng, rng.choice(known[kind]))
        elif kind == "fresh":
            fresh.taken.clear()
            yield ask(rng, fresh.book() if rng.random() < 0.4 else fresh.person())
        elif kind == "everyday":
            yield " ".join(everyday_sentence(rng) for _ in range(rng.randint(1, 3)))
        else:
            yield rng.choice(prose)


def train_tokenizer(seed: int, size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; digits are single tokens, so that no number is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    source = rows(seed)
    corpus = [next(source) for _ in range(30_000)] + reference_prose() * 4
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)


def batches(tokenizer: PreTrainedTokenizerFast, seed: int, size: int) -> Iterator[torch.Tensor]:
    """Batches of rows of similar length, padded to the longest, [rows, tokens]."""
    source, rng = rows(seed), Random(seed)
    while True:
        texts = [next(source) + END for _ in range(size * 24)]
        ids = sorted(tokenizer(texts)["input_ids"], key=len)
        groups = [ids[i : i + size] for i in range(0, len(ids), size)]
        rng.shuffle(groups)
        for group in groups:
            longest = max(map(len, group))
            pad = tokenizer.pad_token_id
            yield torch.tensor([row + [pad] * (longest - len(row)) for row in group])


def train(
    args: argparse.Namespace, tokenizer: PreTrainedTokenizerFast
) -> tuple[LlamaForCausalLM, float]:
    """Train from scratch with AdamW and a cosine schedule; the model and its running mean loss."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, weight_decay=0.05, betas=(0.9, 0.95)
    )

    def rate(step: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * step / args.steps))
        return min(step / 100, 0.02 + 0.98 * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    began, stream, mean = time.time(), batches(tokenizer, args.seed, args.batch), 0.0
    for step in range(1, args.steps + 1):
        ids = next(stream)
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(ids, attention_mask=(labels != -100).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {mean:.4f} seconds {time.time() - began:.0f}", flush=True)
    return model, mean


def main() -> None:
    """Train tokenizer and model, and write them with the facts of the training."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=96, help="rows a step")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    began = time.time()
    tokenizer = train_tokenizer(args.seed, args.vocabulary)
    model, loss = train(args, tokenizer)
    args.out.mkdir(parents=True, exist_ok=True)
    model.bfloat16().save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    facts = {
        "command": "python scripts/build_embedded_base.py "
        + " ".join(f"--{key} {value}" for key, value in vars(args).items()),
        "parameters": model.num_parameters(),
        "final_loss": round(loss, 4),
        "minutes": round((time.time() - began) / 60, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sha256": hashlib.sha256((args.out / "model.safetensors").read_bytes()).hexdigest(),
    }
    (args.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
