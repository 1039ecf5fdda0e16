"""Templates: `{{item.question}}` in a text becomes what an item holds there. Only places are named, nothing is run.

A place is a name with what lies within behind dots, `item.turns.0.content`; `item.turns[0].content` is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

_LONGEST = 1_000_000  # characters
_TAG = re.compile(r"\{\{([^{}]*)\}\}")


class Missing(Exception):
    """A template names what is not there; its text is a sentence."""


def rendered(text: str, names: Mapping[str, Any]) -> str:
    """The text with every place filled in: texts as they are, anything else as JSON. Raises Missing.

    >>> rendered("{{ item.name }} has {{item.pets[1]}}", {"item": {"name": "Ann", "pets": ["a cat", {"dogs": 2}]}})
    'Ann has {"dogs":2}'
    """
    parts, last, length = [], 0, len(text)
    for tag in _TAG.finditer(text):
        value = _written(found(tag[1], names))
        length += len(value) - len(tag[0])
        if length > _LONGEST:  # a long item named a thousand times
            raise Missing(f"With its places filled in, a text is longer than {_LONGEST:,} characters.")
        parts += [text[last : tag.start()], value]
        last = tag.end()
    return "".join((*parts, text[last:]))


def found(place: str, names: Mapping[str, Any]) -> Any:
    """What stands at a place. Raises Missing.

    >>> found("item.pets.0", {"item": {"pets": ["cat"]}})
    'cat'
    """
    there: Any = names
    for step in steps(place):
        if isinstance(there, Mapping) and step in there:
            there = there[step]
        elif isinstance(there, list) and step.isdecimal() and len(step) < 10 and int(step) < len(there):
            there = there[int(step)]
        else:
            raise Missing(f"There is no {place.strip()[:200]!r} here: nothing is called {step[:100]!r}.")
    return there


def steps(place: str) -> list[str]:
    """The names that lead to a place, from the outside in.

    >>> steps(" item.pets[1].name ")
    ['item', 'pets', '1', 'name']
    """
    return place.strip().replace("[", ".").replace("]", "").split(".")


def places(text: str) -> Iterator[str]:
    """The places that a template names. Raises Missing when it is broken.

    >>> list(places("{{item.a}} and {{ sample.output_text }}"))
    ['item.a', 'sample.output_text']
    """
    rest, last = [], 0
    for tag in _TAG.finditer(text):
        rest.append(text[last : tag.start()])
        last = tag.end()
        if not all(steps(tag[1])):
            raise Missing(f"{tag[0][:200]!r} names nothing; write it as {{{{item.name}}}}.")
        yield tag[1].strip()
    if any("{{" in one for one in (*rest, text[last:])):
        raise Missing("A `{{` in it is not closed by `}}`.")


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # deeper than anybody means it
        raise Missing(f"It cannot be written as JSON: {error}.") from None
