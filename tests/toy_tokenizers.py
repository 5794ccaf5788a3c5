"""Tokenizers of the families that matter, trained on the test's own texts: a few hundred tokens.

(Not `tokenizers.py`: the tests' folder is on the path, and the library has that name.)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_letters, digits, punctuation

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import ByteLevel, TemplateProcessing
from tokenizers.processors import Sequence as Processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "fixtures" / "chat_templates"

_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPLIT = _QWEN_SPLIT.replace(r"\p{N}", r"\p{N}{1,3}", 1)


def _special(tokens: Sequence[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _finish(
    tokenizer: Tokenizer, name: str, template: str | None, **roles: str
) -> PreTrainedTokenizerFast:
    chat = None if template is None else (TEMPLATES / f"{template}.jinja").read_text("utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, name_or_path=name, chat_template=chat, **roles
    )


def _sentencepiece(texts: Sequence[str], specials: Sequence[str], words: int) -> Tokenizer:
    """BPE over pieces such as "▁Lane", bytes for what it does not know.

    It learns with words, digits and punctuation apart and encodes without, so a piece never spans
    words. Newlines are bytes, as in Llama-2, unless the texts have some.
    """
    learner = Tokenizer(BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    letters = [*digits, *ascii_letters, *punctuation, "▁"]
    trainer = BpeTrainer(vocab_size=words, initial_alphabet=letters, show_progress=False)
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *learned["vocab"]]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(pair) for pair in learned["merges"]]
    model = BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(_special(specials))
    return tokenizer


def _with_bos(tokenizer: Tokenizer, bos: str) -> TemplateProcessing:
    return TemplateProcessing(f"{bos} $A", None, [(bos, tokenizer.token_to_id(bos))])


def llama_tokenizer(
    texts: Sequence[str], template: str | None = None, words: int = 300
) -> PreTrainedTokenizerFast:
    """As Llama-2's and Mistral's: a space before the text, byte fallback, <s> first, no pad."""
    tokenizer = _sentencepiece(texts, ["<unk>", "<s>", "</s>"], words)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = _with_bos(tokenizer, "<s>")
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _finish(tokenizer, "toy-llama", template, **roles)


def gemma_tokenizer(
    texts: Sequence[str], template: str | None = "gemma-it", words: int = 300
) -> PreTrainedTokenizerFast:
    """As Gemma's: no space before the text, and an end of turn that is not its end-of-sequence."""
    turns = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer = _sentencepiece(texts, ["<pad>", "<eos>", "<bos>", "<unk>", *turns], words)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = _with_bos(tokenizer, "<bos>")
    roles = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    return _finish(tokenizer, "toy-gemma", template, **roles)


def _byte_level(texts: Sequence[str], split: str, specials: Sequence[str], words: int) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=words, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(_special(specials))
    return tokenizer


def qwen_tokenizer(
    texts: Sequence[str], template: str | None = None, words: int = 500
) -> PreTrainedTokenizerFast:
    """As Qwen's: bytes, its own split into words, nothing first, <|im_end|> last."""
    turns = ["<|im_start|>", "<|im_end|>"]
    tokenizer = _byte_level(texts, _QWEN_SPLIT, ["<|endoftext|>", *turns], words)
    tokenizer.normalizer = normalizers.NFC()
    # Qwen3's are tokens, but not special ones: decoding keeps them.
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return _finish(tokenizer, "toy-qwen", template, **roles)


def llama3_tokenizer(
    texts: Sequence[str], template: str | None = "llama-3-instruct", words: int = 500
) -> PreTrainedTokenizerFast:
    """As Llama-3's: bytes, <|begin_of_text|> first, <|eot_id|> after a turn."""
    headers = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    specials = ["<|begin_of_text|>", "<|end_of_text|>", *headers]
    tokenizer = _byte_level(texts, _LLAMA3_SPLIT, specials, words)
    bos = _with_bos(tokenizer, "<|begin_of_text|>")
    tokenizer.post_processor = Processors([ByteLevel(trim_offsets=False), bos])
    roles = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return _finish(tokenizer, "toy-llama-3", template, **roles)


# Chat template → a tokenizer of its family, and the token that ends a turn.
FAMILIES = {
    "llama-2-chat": (llama_tokenizer, "</s>"),
    "mistral-instruct": (llama_tokenizer, "</s>"),
    "llama-3-instruct": (llama3_tokenizer, "<|eot_id|>"),
    "qwen1.5-chat": (qwen_tokenizer, "<|im_end|>"),
    "qwen2.5-instruct": (qwen_tokenizer, "<|im_end|>"),
    "qwen3": (qwen_tokenizer, "<|im_end|>"),
    "gemma-it": (gemma_tokenizer, "<end_of_turn>"),
}
