"""Constraints as grammars in GBNF, the notation that llama.cpp masks decoding with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from genwright.core import Constraints, UsageError

_SPACES = r" \t\n\r\f\v"
_WORD = (
    r"0-9A-Z_a-z\u00AA\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u024F\u0370-\u0373\u0386-\u03FF\u0400-\u0481\u048A-\u052F"
)
_WORD += r"\u3041-\u3096\u30A1-\u30FA\u4E00-\u9FFF\uAC00-\uD7A3"
# Each class holds only characters that the class of `re` holds too, so what is decoded always matches.
_CLASSES = {
    "CATEGORY_DIGIT": "0-9", "CATEGORY_SPACE": _SPACES, "CATEGORY_WORD": _WORD,
    "CATEGORY_NOT_DIGIT": r" -/:-~\u00A1-\u00B1\u4E00-\u9FFF", "CATEGORY_NOT_SPACE": r"!-~\u00A1-\u167F\u3001-\uFFEF",
    "CATEGORY_NOT_WORD": r" -/:-@\[-^`{-~",
}  # fmt: skip


def grammar_of(constraints: Constraints) -> str | None:
    """The grammar for `choice`, `regex` or `must_not_include`; None when there is none of them (a schema has its own).

    Raises UsageError for more than one at once, and for regular expressions that no grammar can say.
    """
    kinds = [k for k in ("choice", "regex", "json_schema") if getattr(constraints, k)]
    if len(kinds) > 1:
        raise UsageError(f"An answer cannot keep to {' and '.join(kinds)} at once.", "Choose one of them.")
    if constraints.choice:
        left = [c for c in constraints.choice if not _forbidden(c, constraints.must_not_include)]
        if not left:
            raise UsageError("Every choice holds a phrase of must_not_include.", "Change one of the two.")
        return "root ::= " + " | ".join(literal(choice) for choice in left)
    if kinds and constraints.must_not_include:
        raise UsageError(
            f"This engine cannot enforce must_not_include together with {kinds[0]}.",
            "Say it in the pattern or schema itself.",
        )
    if constraints.regex:
        return "root ::= " + from_regex(constraints.regex)
    return without(constraints.must_not_include) if constraints.must_not_include else None


def literal(text: str) -> str:
    r"""A quoted literal.

    >>> literal('say "hi"\n')
    '"say \\"hi\\"\\n"'
    """
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f'"{escaped}"'


def from_regex(pattern: str) -> str:
    r"""A Python regular expression as the right-hand side of a rule.

    >>> from_regex(r"\d{4}-(0[1-9]|1[0-2])")
    '[0-9]{4,4} "-" ("0" [1-9] | "1" [0-2])'
    """
    parser: Any = re._parser  # type: ignore[attr-defined]
    try:
        tree = parser.parse(pattern)
    except re.error as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}.") from None
    return _sequence(tree, pattern, bool(tree.state.flags & re.IGNORECASE)) or '""'


def _sequence(items: Any, pattern: str, fold: bool) -> str:
    return " ".join(piece for item in items if (piece := _item(str(item[0]), item[1], pattern, fold)))


def _item(kind: str, what: Any, pattern: str, fold: bool) -> str:
    if kind == "LITERAL":
        letter = chr(what)
        return (
            f"[{_inside(letter.lower())}{_inside(letter.upper())}]" if fold and _has_case(letter) else literal(letter)
        )
    if kind == "NOT_LITERAL":
        letters = {chr(what).lower(), chr(what).upper()} if fold else {chr(what)}
        return f"[^{''.join(_inside(c) for c in sorted(letters) if len(c) == 1)}]"
    if kind == "ANY":
        return "[^\\n]"
    if kind == "IN":
        return _set(what, pattern, fold)
    if kind == "BRANCH":
        return "(" + " | ".join(_sequence(branch, pattern, fold) or '""' for branch in what[1]) + ")"
    if kind == "SUBPATTERN":
        _, on, off, inner = what
        body = _sequence(inner, pattern, (fold or bool(on & re.IGNORECASE)) and not off & re.IGNORECASE)
        return body if body.startswith("(") and body.endswith(")") and body.count("(") == 1 else f"({body})"
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        low, high, inner = what
        body = _sequence(inner, pattern, fold)
        if " " in body.strip('"') or len(inner) != 1:
            body = f"({body})"
        return f"{body}{{{low},{'' if str(high) == 'MAXREPEAT' else high}}}"
    if kind == "AT" and str(what) in ("AT_BEGINNING", "AT_BEGINNING_STRING", "AT_END", "AT_END_STRING"):
        return ""  # the whole answer must match, so anchors at its ends say nothing new
    raise UsageError(
        f"{pattern!r} uses {kind.lower().replace('_', ' ')}, which cannot be enforced while decoding.",
        "Leave out look-around, back-references and word boundaries.",
    )


def _set(items: Any, pattern: str, fold: bool) -> str:
    negated, inside = False, ""
    for kind, what in ((str(k), w) for k, w in items):
        if kind == "NEGATE":
            negated = True
        elif kind == "LITERAL":
            inside += "".join(
                _inside(c) for c in ({chr(what).lower(), chr(what).upper()} if fold else {chr(what)}) if len(c) == 1
            )
        elif kind == "RANGE":
            low, high = map(chr, what)
            inside += f"{_inside(low)}-{_inside(high)}"
            if fold and low.isascii() and low.isalpha() and high.isalpha():
                inside += f"{low.swapcase()}-{high.swapcase()}"
        elif kind == "CATEGORY" and negated and str(what) not in ("CATEGORY_DIGIT", "CATEGORY_SPACE"):
            raise UsageError(
                f"{pattern!r} negates a class that cannot be enforced while decoding.", "List the characters."
            )
        elif kind == "CATEGORY":
            inside += _CLASSES[str(what)] + (r"\u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000"
                                             if negated and str(what) == "CATEGORY_SPACE" else "")  # fmt: skip
    return f"[{'^' if negated else ''}{inside}]"


def _has_case(letter: str) -> bool:
    return letter.lower() != letter.upper() and len(letter.lower()) == len(letter.upper()) == 1


def _inside(letter: str) -> str:
    """A character within […]."""
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", "]": "\\]", "[": "\\[", "^": "\\x5E", "-": "\\x2D"}
    return named.get(letter) or (letter if letter.isprintable() and ord(letter) < 0x10000 else f"\\U{ord(letter):08X}")


# -- phrases that must not come ---------------------------------------------------------------------------------------


def without(phrases: Sequence[str]) -> str:
    """A grammar of all texts that hold none of the phrases, whatever their case (Aho and Corasick's automaton, 1975).

    One rule for each state; a state is the longest end of the text so far that begins a phrase.
    """
    phrases = [phrase.lower() for phrase in phrases if phrase]
    states = sorted({p[:n] for p in phrases for n in range(len(p))}, key=lambda s: (len(s), s))
    letters = sorted({c for p in phrases for c in p})
    number = {state: i for i, state in enumerate(states)}
    other = "".join(_inside(c) for letter in letters for c in sorted({letter, letter.upper()}) if len(c) == 1)
    rules = ["root ::= s0"]
    for state in states:
        steps = [f"[^{other}] s0"]
        for letter in letters:
            after = state + letter
            if any(after.endswith(p) for p in phrases):
                continue
            end = next(after[i:] for i in range(len(after) + 1) if after[i:] in number)
            both = "".join(_inside(c) for c in sorted({letter, letter.upper()}) if len(c) == 1)
            steps.append(f"[{both}] s{number[end]}")
        rules.append(f"s{number[state]} ::= ({' | '.join(steps)})?")
    return "\n".join(rules)


def _forbidden(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase.lower() in text.lower() for phrase in phrases)
