"""Constraints while decoding: which tokens may come next, so that an answer cannot help but keep to what was asked.

`choice`, `regex` and `json_schema` are grammars (llguidance, MIT): a mask over the vocabulary at each step. Banned
phrases are looked for in the text that a token would make. `min_words` holds the end back, `max_words` ends the answer
before a word too many. `must_include` cannot be decoded towards; the metric `constraints` checks it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.errors import MissingExtra, ModelError, UsageError
from genwright.core.model import Constraints

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")  # Chinese characters and kana count by themselves, as in judging
_MOST_BANNED_TRIES = 64


class Constrained:
    """The constraints of one answer under way.

    `mask(logits)` before a token is chosen, `allows(text)` of what it would make, `accept(token)` after. `is_over`
    says that the answer is complete. Raises UsageError for constraints that cannot be enforced.
    """

    def __init__(self, constraints: Constraints, tokenizer: Any, ends: Collection[int], vocabulary: int):
        self.wanted, self.ends = constraints, sorted(end for end in ends if end < vocabulary)
        self.banned = tuple(phrase.casefold() for phrase in constraints.must_not_include if phrase)
        grammar = grammar_of(constraints)
        self.matcher = _matcher(grammar, tokenizer, tuple(self.ends), vocabulary) if grammar else None
        self.tries = _MOST_BANNED_TRIES

    @property
    def is_over(self) -> bool:
        return self.matcher is not None and self.matcher.is_stopped()

    def mask(self, logits: Tensor, text: str) -> Tensor:
        """Logits (V,) with -inf where a token may not come after `text`."""
        if self.matcher is not None:
            bits = np.frombuffer(self.matcher.compute_bitmask(), dtype=np.uint8)
            if self.matcher.is_error():
                raise ModelError(f"The grammar stopped working: {self.matcher.get_error()[:300]}")
            allowed = np.unpackbits(bits, bitorder="little")[: len(logits)].astype(bool)
            keep = torch.zeros(len(logits), dtype=torch.bool)
            keep[: len(allowed)] = torch.from_numpy(allowed)
            logits = logits.masked_fill(~keep.to(logits.device), float("-inf"))
        if self.wanted.min_words and word_count(text) < self.wanted.min_words and self.matcher is None:
            logits = logits.clone()
            logits[self.ends] = float("-inf")
        return logits

    def allows(self, text: str) -> bool:
        """Whether no banned phrase stands in the text."""
        low = text.casefold() if self.banned else ""
        return not any(phrase in low for phrase in self.banned)

    def has_too_many_words(self, text: str) -> bool:
        return self.wanted.max_words is not None and word_count(text) > self.wanted.max_words

    def accept(self, token: int) -> None:
        if self.matcher is not None and not self.matcher.is_stopped() and not self.matcher.consume_token(token):
            raise ModelError(f"The grammar did not take its own token: {self.matcher.get_error()[:300]}")


def constrained(constraints: Constraints, tokenizer: Any, ends: Collection[int], vocabulary: int) -> Constrained | None:
    """The constraints of one answer, or None when there are none to enforce."""
    if constraints == Constraints() or constraints == Constraints(must_include=constraints.must_include):
        return None
    return Constrained(constraints, tokenizer, ends, vocabulary)


def grammar_of(constraints: Constraints) -> str:
    """The grammar of `choice`, `regex` or `json_schema` in llguidance's form; empty when there is none.

    Raises UsageError for more than one of them, or for one that cannot be decoded.
    """
    asked = [name for name in ("choice", "regex", "json_schema") if getattr(constraints, name) not in (None, ())]
    if not asked:
        return ""
    if len(asked) > 1:
        raise UsageError(f"The constraints {' and '.join(asked)} exclude each other.", "Keep one of them.")
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise MissingExtra("llguidance", "text") from None
    if constraints.choice:
        lark = "start: " + " | ".join(json.dumps(one, ensure_ascii=False) for one in constraints.choice)
        made = LLMatcher.grammar_from_lark(lark)
    elif constraints.regex is not None:
        made = LLMatcher.grammar_from_regex(constraints.regex)
    else:
        compact = {"whitespace_flexible": False}  # else a model may write blanks for ever
        try:
            made = LLMatcher.grammar_from_json_schema(json.dumps(constraints.json_schema), overrides=compact)  # type: ignore[arg-type]
        except ValueError as error:
            raise UsageError(f"The JSON schema is not right: {str(error)[:300]}") from None
    wrong = LLMatcher.validate_grammar(made)
    if wrong and not wrong.startswith("WARNING"):
        raise UsageError(f"The constraint {asked[0]} cannot be enforced: {wrong[:300]}", "Simplify it.")
    return str(made)


def word_count(text: str) -> int:
    """Words between spaces, every Chinese character and kana by itself.

    >>> word_count("I like 北京 a lot.")
    6
    """
    return len(_WORDS.findall(text))


def _matcher(grammar: str, tokenizer: Any, ends: Sequence[int], vocabulary: int) -> Any:
    from llguidance import LLMatcher

    matcher = LLMatcher(_grammar_tokenizer(tokenizer, ends, vocabulary), grammar, log_level=0)
    if matcher.is_error():
        raise UsageError(f"The constraint cannot be enforced: {matcher.get_error()[:300]}", "Simplify it.")
    return matcher


def _grammar_tokenizer(tokenizer: Any, ends: Sequence[int], vocabulary: int) -> Any:
    """llguidance's view of a tokenizer, made once (about a second for a large vocabulary) and kept beside it."""
    from llguidance.hf import from_tokenizer

    known = getattr(tokenizer, "_genwright_grammar", None)
    if known is None or known[0] != (tuple(ends), vocabulary):
        if not tokenizer.is_fast:
            raise UsageError(
                "Grammars need a tokenizer of the tokenizers library, and this model has none.",
                "Leave out choice, regex and json_schema, or use another model.",
            )
        try:
            made = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(ends))
        except ValueError as error:
            raise UsageError(f"This model's tokenizer cannot follow a grammar: {str(error)[:300]}") from None
        known = tokenizer._genwright_grammar = ((tuple(ends), vocabulary), made)
    return known[1]
