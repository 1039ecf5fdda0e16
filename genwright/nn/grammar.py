"""Constraints as a grammar for llama.cpp: in llguidance's Lark, so that decoding cannot help but keep to them.

llama.cpp goes on without any grammar when it cannot read one, so each is validated here first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from genwright.core import Constraints, MissingExtra, UsageError

_HAN = r"\u{3040}-\u{30ff}\u{3400}-\u{4dbf}\u{4e00}-\u{9fff}\u{f900}-\u{faff}\u{20000}-\u{3ffff}"  # each is a word


def grammar_of(constraints: Constraints) -> str | None:
    """A grammar that llama.cpp reads, or None when nothing is to be enforced while decoding.

    Enforced are `choice`, `regex`, `json_schema`, `must_not_include`, and `min_words` of free text. Raises UsageError
    for two of the first three at once, and for what no grammar can say.
    """
    kinds = [name for name in ("choice", "regex", "json_schema") if getattr(constraints, name) not in (None, ())]
    if len(kinds) > 1:
        raise UsageError(f"The constraints {' and '.join(kinds)} exclude each other.", "Keep one of them.")
    banned = [phrase for phrase in constraints.must_not_include if phrase]
    if constraints.json_schema is not None:
        if banned:
            raise UsageError(
                "must_not_include cannot be enforced within a json_schema.", "Say it in the schema itself."
            )
        compact = {"x-guidance": {"whitespace_flexible": False}}  # else a model may write blanks for ever
        return _checked("start: %json " + json.dumps(constraints.json_schema | compact), "json_schema")
    wanted = []
    if constraints.choice:
        left = [one for one in constraints.choice if not any(phrase.lower() in one.lower() for phrase in banned)]
        if not left:
            raise UsageError("Every choice holds a phrase of must_not_include.", "Change one of the two.")
        return _checked("start: " + " | ".join(json.dumps(one, ensure_ascii=False) for one in left), "choice")
    if constraints.regex is not None:
        wanted.append(_regex(_bare(constraints.regex)))
    elif constraints.min_words:
        word = rf"(?:[^\s{_HAN}]*[{_HAN}]\s*|[^\s{_HAN}]+\s+)"
        wanted.append(_regex(rf"(?s:\s*{word}{{{constraints.min_words - 1}}}\S.*)"))
    if banned:
        wanted.append("~" + _regex(f"(?is:.*(?:{'|'.join(map(literal, banned))}).*)"))
    if not wanted:
        return None
    if wanted[0].startswith("~"):
        wanted.insert(0, _regex("(?s:.*)"))
    return _checked(f"start: ANSWER\nANSWER: {' & '.join(wanted)}", kinds[0] if kinds else "must_not_include")


def literal(text: str) -> str:
    r"""A text as a regular expression that matches it alone.

    >>> literal("a.b")
    'a\\u{2e}b'
    """
    return "".join(c if c.isascii() and c.isalnum() else f"\\u{{{ord(c):x}}}" for c in text)


def only(tokens: Sequence[int]) -> str:
    """A grammar (in llama.cpp's own notation) of exactly these tokens."""
    return "root ::= " + " ".join(f"<[{token}]>" for token in tokens)


def _regex(pattern: str) -> str:
    escaped = pattern.replace("/", "\\u{2f}").replace("\n", "\\n").replace("\r", "\\r")
    return f"/{escaped}/"


def _bare(pattern: str) -> str:
    """Without anchors around it: the whole answer matches anyhow."""
    pattern = pattern.removeprefix("^")
    even = (len(pattern) - len(pattern.rstrip("$").rstrip("\\"))) % 2 == 1
    return pattern[:-1] if pattern.endswith("$") and even else pattern


def _checked(lark: str, name: str) -> str:
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise MissingExtra("llguidance", "text") from None
    wrong = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(lark))
    if wrong and not wrong.startswith("WARNING"):
        raise UsageError(f"The constraint {name} cannot be enforced: {' '.join(wrong.split())[:300]}", "Simplify it.")
    return "%llguidance {}\n" + lark
