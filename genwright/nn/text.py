"""Text: how a conversation becomes tokens, the same way when a model is taught and when it answers.

`prompt_tokens` is what a model sees before it answers; `chat_tokens` is a prompt made by the same function with the
answer behind it and a mask of what is learned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core.content import Message
from genwright.core.errors import ModelError
from genwright.core.model import Encoded, Unlearnable
from genwright.nn.template import PLAIN, render

IGNORE = -100  # a target that is not learned; as in nn/packing, but asking a model must not load torch
_LARGEST_TOKENIZER = 200_000_000  # bytes


@dataclass(frozen=True)
class Tokens:
    """Token ids of one sequence, which of them are learned, and how many were cut away."""

    ids: list[int]
    learned: list[bool]
    cut: int = 0


# -- conversations -------------------------------------------------------------------------------------------------


def prompt_tokens(tokenizer: Any, messages: Sequence[Message], *, room: int | None = None) -> Tokens:
    """What the model sees before it answers; the last message may be the beginning of the answer itself.

    A single assistant message is plain text to go on with, without any template. More than `room` tokens are cut from
    the start, keeping what stands before the first question (the system message) where it fits.
    """
    if messages and messages[-1].role == "assistant":
        begun = messages[-1].text
        if len(messages) == 1:
            ids = _without_end(tokenizer, tokenizer(begun)["input_ids"])
            cut = 0 if room is None else max(0, len(ids) - room)
            return Tokens(ids[cut:], [False] * (len(ids) - cut), cut)
        head = chat_text(tokenizer, messages[:-1], prompt=True)
        ids = token_ids(tokenizer, head) + token_ids(tokenizer, begun)
    else:
        head = chat_text(tokenizer, messages, prompt=True)
        ids = token_ids(tokenizer, head)
    kept, cut = _cut(tokenizer, messages, head, ids, room)
    return Tokens(kept, [False] * len(kept), cut)


def chat_tokens(tokenizer: Any, messages: Sequence[Message], *, supervise: str, max_length: int) -> Tokens:
    """A conversation with its answer, cut to `max_length`, the prompt first (a quarter of the room stays its own).

    `supervise`: "answer" (the last message and its end-of-turn token), "assistant" (every assistant turn) or "all".
    Raises Unlearnable with the reason when there is nothing to learn.
    """
    if messages[-1].role != "assistant":
        raise Unlearnable(f"the last message is by the {messages[-1].role}, so there is no answer to learn")
    if not messages[-1].text.strip():
        raise Unlearnable("the answer is empty")
    head = chat_text(tokenizer, messages[:-1], prompt=True)
    prompt = token_ids(tokenizer, head)
    answer = _answer_tokens(tokenizer, messages, head, prompt)
    learned = [supervise == "all"] * len(prompt)
    if supervise == "assistant":
        learned = _earlier_answers(tokenizer, messages[:-1], head, prompt)
    kept_prompt = max(max_length - len(answer), min(len(prompt), max_length // 4))
    kept, cut = _cut(tokenizer, messages[:-1], head, list(range(len(prompt))), kept_prompt, tokens=prompt)
    kept_answer = answer[: max_length - len(kept)]
    return Tokens(
        [prompt[i] for i in kept] + kept_answer,
        [learned[i] for i in kept] + [True] * len(kept_answer),
        cut + len(answer) - len(kept_answer),
    )


def plain_tokens(tokenizer: Any, text: str) -> list[int]:
    """A text as it is, begun as the tokenizer likes it, with the end token behind it."""
    ids = list(tokenizer(text)["input_ids"])
    if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
        ids.append(tokenizer.eos_token_id)
    return ids


def encoded(sequences: Sequence[Tokens], *, cut: int = 0) -> Encoded:
    """Sequences for a causal model: position i is to predict token i + 1, so the last token is a target only.

    Raises Unlearnable when nothing supervised remains.
    """
    made = []
    for one in sequences:
        if len(one.ids) < 2:
            continue
        ids = np.asarray(one.ids, dtype=np.int32)
        made.append({"tokens": ids[:-1], "targets": np.where(one.learned[1:], ids[1:], IGNORE).astype(np.int32)})
    weight = sum(int((s["targets"] != IGNORE).sum()) for s in made)
    if not weight:
        raise Unlearnable("nothing that is to be learned remains within max_length")
    return Encoded(tuple(made), sum(len(s["tokens"]) for s in made), float(weight), cut + sum(s.cut for s in sequences))


def windows(ids: Sequence[int], length: int) -> list[list[int]]:
    """A long text in pieces of at most `length` + 1 ids that share one id, so that each is predicted exactly once."""
    if len(ids) <= length + 1:
        return [list(ids)]
    return [list(ids[start : start + length + 1]) for start in range(0, len(ids) - 1, length)]


# -- template and tokens -------------------------------------------------------------------------------------------


def chat_text(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    """The conversation through the model's own template. Raises ModelError when the template objects."""
    template = template_of(tokenizer)
    turns = [{"role": m.role, "content": _defused(tokenizer, m.text)} for m in messages]
    names = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    if turns and turns[0]["role"] == "system" and not _takes_system(template, tuple(sorted(names.items()))):
        told, turns = turns[0]["content"], turns[1:]
        if turns:
            turns = [{**turns[0], "content": f"{told}\n\n{turns[0]['content']}"}, *turns[1:]]
    return render(template, turns, prompt=prompt, tokens=names)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text that already holds its special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def template_of(tokenizer: Any) -> str:
    found = tokenizer.chat_template
    if isinstance(found, dict):
        found = found.get("default") or next(iter(found.values()))
    return found or PLAIN


def end_tokens(tokenizer: Any, generation_config: Any = None) -> frozenset[int]:
    """Tokens after which an answer is over: the end of the text, and the end of a turn by the template."""
    told = getattr(generation_config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(told if isinstance(told, (list, tuple)) else [told])}
    asked, said = Message("user", _words("a")), Message("assistant", _words("b"))
    head = chat_text(tokenizer, [asked], prompt=True)
    tail = _answer_tokens(tokenizer, [asked, said], head, token_ids(tokenizer, head))
    special = special_ids(tokenizer)
    ends |= set(tail[-1:]) & special
    return frozenset(end for end in ends if end is not None)


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of all tokens that are not words."""
    marked = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return marked | set(tokenizer.all_special_ids)


def make_ready(tokenizer: Any) -> Any:
    """Give a tokenizer what everything later relies on: an end token, a padding token and a chat template."""
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not tokenizer.chat_template:
        begins = tokenizer("a")["input_ids"][:1]
        bos = tokenizer.bos_token_id is not None and begins == [tokenizer.bos_token_id]
        tokenizer.chat_template = ("{{- bos_token -}}\n" if bos else "") + PLAIN
        if tokenizer.eos_token is None:
            tokenizer.chat_template = tokenizer.chat_template.replace(" + eos_token", "")
    return tokenizer


# -- where tokenizers come from --------------------------------------------------------------------------------------


def open_tokenizer(place: Path) -> Any:
    """A tokenizer from a model folder or a tokenizer.json file; no code of its own, nothing fetched.

    Raises ModelError naming the place when it cannot be read.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from genwright.nn.weights import read_json, refuse_own_code

    if place.is_dir() and (place / "tokenizer_config.json").is_file():
        refuse_own_code(read_json(place / "tokenizer_config.json"), place / "tokenizer_config.json")
    words = place if place.is_file() else place / "tokenizer.json"
    if words.is_file() and not isinstance(read_json(words, largest=_LARGEST_TOKENIZER).get("model"), dict):
        raise _unreadable(words, "it holds no model")
    try:
        if place.is_file():
            return make_ready(_named(PreTrainedTokenizerFast(tokenizer_file=str(place))))
        return make_ready(AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=True))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise _unreadable(place, str(error)) from None


def _unreadable(place: Path, why: str) -> ModelError:
    return ModelError(
        f"The tokenizer in {place} cannot be read: {' '.join(why.split())[:300]}",
        "A folder needs tokenizer.json (or its model's own tokenizer files).",
    )


def texts_of(examples: Iterable[Any]) -> Iterable[str]:
    """All words of some examples, message by message: what a tokenizer is trained on."""
    return (message.text for example in examples for message in example.messages if message.text)


# -- details ---------------------------------------------------------------------------------------------------------


def _answer_tokens(tokenizer: Any, messages: Sequence[Message], head: str, prompt: list[int]) -> list[int]:
    """The last message as tokens behind `prompt`, up to and with its end-of-turn token."""
    whole = chat_text(tokenizer, messages, prompt=False)
    if whole.startswith(head):
        both = token_ids(tokenizer, whole)
        same = both[: len(prompt)] == prompt
        answer = both[len(prompt) :] if same else token_ids(tokenizer, whole[len(head) :])
    else:  # the template writes an old answer otherwise than a new one
        answer = token_ids(tokenizer, _defused(tokenizer, messages[-1].text))
    special = special_ids(tokenizer)
    for end in range(len(answer), 0, -1):
        if answer[end - 1] in special:
            return answer[:end]
        if tokenizer.decode(answer[end - 1 :]).strip():
            break
    return answer + ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])


def _earlier_answers(tokenizer: Any, messages: Sequence[Message], head: str, prompt: list[int]) -> list[bool]:
    """Which tokens of a prompt are assistant turns (their end-of-turn tokens too)."""
    learned = [False] * len(prompt)
    starts = _token_starts(tokenizer, head)
    special, cursor = special_ids(tokenizer), 0
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before = chat_text(tokenizer, messages[:number], prompt=True)
        words = _defused(tokenizer, message.text).strip()
        first = len(before) if head.startswith(before) else head.find(words, cursor)
        found = head.find(words, max(first, 0))
        if first < 0 or found < 0:
            continue
        cursor = found + len(words)
        behind = len(prompt)
        for index, start in enumerate(starts):
            if start >= cursor:
                behind = index
                break
            learned[index] = learned[index] or start >= first
        while behind < len(prompt) and prompt[behind] not in special:
            if tokenizer.decode([prompt[behind]]).strip():
                break
            behind += 1
        if behind < len(prompt) and prompt[behind] in special:
            learned[behind] = True
    return learned


def _cut(
    tokenizer: Any, messages: Sequence[Message], head: str, ids: list[int], room: int | None, *,
    tokens: list[int] | None = None,
) -> tuple[list[int], int]:  # fmt: skip
    """Cut a prompt to `room` from its start, but keep what stands before the first question if it fits in half."""
    over = 0 if room is None else len(ids) - room
    if over <= 0 or room is None:
        return ids, 0
    first = next((m for m in messages if m.role != "system"), None)
    place = head.find(_defused(tokenizer, first.text).strip()) if first and first.text.strip() else -1
    kept = sum(1 for start in _token_starts(tokenizer, head) if start < place) if place > 0 else 0
    kept = kept if kept <= room // 2 else 0
    return ids[:kept] + ids[kept + over :], over


def _token_starts(tokenizer: Any, text: str) -> list[int]:
    """Where in the text each token begins."""
    if tokenizer.is_fast:
        pairs = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [start for start, _ in pairs]
    starts, ids, place = [], token_ids(tokenizer, text), 0
    for token in ids:
        starts.append(place)
        word = tokenizer.decode([token]).strip()
        found = text.find(word, place)
        place = found + len(word) if found >= 0 else place
    return starts


def _defused(tokenizer: Any, text: str) -> str:
    """Words that look like a special token are taken apart, so that nobody can forge a role in a message."""
    for token in _special_words(tokenizer):
        if token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _special_words(tokenizer: Any) -> tuple[str, ...]:
    found = getattr(tokenizer, "_genwright_special", None)
    if found is None:
        marked = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        found = tuple(
            sorted({t for t in (*marked, *tokenizer.all_special_tokens) if len(t) > 1}, key=len, reverse=True)
        )
        tokenizer._genwright_special = found
    return found


@lru_cache(maxsize=64)
def _takes_system(template: str, names: tuple[tuple[str, str], ...]) -> bool:
    """Whether a template has a place for a system message (Gemma's has none: the words go before the question)."""
    turns = [{"role": "system", "content": "sYsTeM"}, {"role": "user", "content": "a"}]
    try:
        return "sYsTeM" in render(template, turns, prompt=True, tokens=dict(names))
    except ModelError:
        render(template, turns[1:], prompt=True, tokens=dict(names))
        return False


def _without_end(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """A text to go on with must not end in the end token that some tokenizers add."""
    ids = list(ids)
    while ids and ids[-1] in (tokenizer.eos_token_id, tokenizer.sep_token_id):
        ids.pop()
    return ids


def _words(text: str) -> tuple[Any, ...]:
    from genwright.core.content import Part

    return (Part(text=text),)


def _named(tokenizer: Any) -> Any:
    """A bare tokenizer.json does not say which of its tokens begins or ends a text: the usual names do."""
    usual = {
        "eos_token": ("<|im_end|>", "</s>", "<eos>", "<|endoftext|>", "<|end|>", "[SEP]"),
        "bos_token": ("<|im_start|>", "<s>", "<bos>", "<|start|>", "[CLS]"),
        "pad_token": ("<pad>", "[PAD]", "<|pad|>"), "unk_token": ("<unk>", "[UNK]", "<|unk|>"),
        "mask_token": ("[MASK]", "<mask>", "<|mask|>"), "cls_token": ("[CLS]", "<s>", "<|start|>"),
        "sep_token": ("[SEP]", "</s>", "<|end|>"),
    }  # fmt: skip
    known = tokenizer.get_vocab()
    for name, candidates in usual.items():
        if getattr(tokenizer, name) is None and (found := next((c for c in candidates if c in known), None)):
            setattr(tokenizer, name, found)
    return tokenizer
