"""General text: the fixed set on which forgetting is measured, the same for every run on a machine.

It is made of small cards (`general-…`) in the languages of the data. Nothing is fetched here: where a card has not
been pulled, the set goes without it and the report says so; with none of them, Python's own reference, which is always
there, stands in. Rows whose words stand in the training data are left out, for they would measure learning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from genwright.core import Dataset, Example, Recipe, Row, assistant, fingerprint, shelves
from genwright.core.card import Card, find_card
from genwright.core.errors import ModelError
from genwright.core.rows import read_row
from genwright.trust.fetch import sha256_of

CARDS = {"en": ("general-prose-en", "general-trivia-en"), "zh": ("general-prose-zh",)}
_PARAGRAPHS = 60
_CHARACTERS = 600


@dataclass(frozen=True)
class General:
    """Examples with the set's name (which tells sets apart in signatures) and what should be known about it."""

    name: str
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()


def general_set(held_out: Dataset, recipe: Recipe, train: Dataset) -> General:
    """The general rows for a text task, framed as the task frames its rows; empty for other modalities.

    Raises ModelError when a file of the set has been altered.
    """
    task = recipe.task.thing
    if (task.takes, task.gives) != ("text", "text"):
        return General("none")
    names, rows, missing = [], [], []
    languages = _languages(chain(islice(held_out, 200), islice(train, 200)))
    for name in chain.from_iterable(CARDS[language] for language in languages):
        card = find_card(name)
        if card.is_here:
            rows += _rows(card)
            names.append(name)
        else:
            missing.append(name)
    notes = []
    if not rows:
        rows, names = _reference(), ["python-reference"]
    if missing:
        pulls = " && ".join(f"genwright models pull {name}" for name in missing)
        stand_in = "Python's own reference stood in" if names == ["python-reference"] else "the rest was used"
        notes.append(f"Forgetting: {', '.join(missing)} not on this machine; {stand_in}. To have it: {pulls}")
    rows = list({_joined(row): row for row in rows}.values())
    kept = _unseen(rows, train)
    if len(kept) < len(rows):
        notes.append(f"Forgetting: {len(rows) - len(kept)} general rows stand in the training data and were left out.")
    framed = tuple(task.framed(row, recipe.task.settings) for row in kept)
    digest = fingerprint([row.as_dict() for row in framed])[:8]
    return General(f"{'+'.join(names)}@{digest}", framed, tuple(notes))


def _languages(examples: Iterable[Example]) -> Sequence[str]:
    """English always; Chinese too when a tenth of the data's letters are Chinese.

    >>> _languages([Example((assistant("你好，很高兴见到你"),))])
    ('en', 'zh')
    """
    text = "".join(message.text for example in examples for message in example.messages)
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in text)
    return ("en", "zh") if chinese and chinese >= 0.1 * sum(map(str.isalpha, text)) else ("en",)


def _rows(card: Card) -> list[Example]:
    """The rows of a card that is on this machine, as its source reads them."""
    source = shelves["sources"].load("card")
    chosen = source.resolve(source.Settings(card=card.name), lambda found: _sound(found).folder)
    return [Example(*read_row(row.fields)) for row in chosen() if isinstance(row, Row)]


def _sound(card: Card) -> Card:
    """The card, when its file is what it should be. Raises ModelError."""
    if sha256_of(card.path) != card.files[0].sha256:
        raise ModelError(f"{card.path} has been altered.", f"Fetch it again: genwright models pull {card.name}")
    return card


def _reference() -> list[Example]:
    """Prose of the Python reference that comes with Python: paragraphs of at least 200 characters."""
    from pydoc_data.topics import topics

    found: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            words = " ".join(paragraph.split())[:_CHARACTERS]
            is_prose = len(words) >= 200 and words[0].isupper() and "::=" not in words and "|" not in words
            if is_prose and words not in found:
                found[words] = None
                break
    return [Example((assistant(words),)) for words in list(found)[:_PARAGRAPHS]]


def _unseen(rows: list[Example], train: Iterable[Example]) -> list[Example]:
    """Rows whose answer, with its question, does not stand in the training data."""
    ours = {_joined(row): row for row in rows}
    for example in train:
        if len(example.messages) <= 2:
            ours.pop(_joined(example), None)
    return list(ours.values())


def _joined(example: Example) -> str:
    return " ".join(
        " ".join(message.text.split()).casefold() for message in example.messages if message.role != "system"
    )
