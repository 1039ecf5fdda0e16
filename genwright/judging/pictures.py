"""Pictures for metrics: which one a message holds, which sets are compared, thumbnails and distances."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np

from genwright.core import Example, Message, Pairs, UsageError
from genwright.judging.words import spelt

_FEWEST = 4  # pictures that a set can be made of


def picture_of(message: Message | None) -> Path | None:
    """The first picture of a message."""
    return next((part.path for part in message.parts if part.kind == "image" and part.path), None) if message else None


def pictures_of(examples: Iterable[Example]) -> list[Path]:
    """The pictures that the examples answer with."""
    return [path for example in examples if (path := picture_of(example.answer))]


@dataclass(frozen=True)
class Sets:
    """What is compared. `made`: the answers' pictures; `true`: those that the same rows hold; `retrieved`: for each
    row the training picture whose words are nearest; `reference`: true pictures of other rows, `where` says which;
    `side`: pixels."""

    rows: Pairs
    made: list[Path]
    true: list[Path]
    retrieved: list[Path]
    reference: list[Path]
    where: str
    side: int

    @property
    def beside(self) -> dict[str, list[Path]]:
        """The sets to judge beside the answers: the ceiling and a baseline that paints nothing."""
        return {"true pictures": self.true} | ({"retrieved from training": self.retrieved} if self.retrieved else {})

    def said(self) -> str:
        """For a signature: how many of what."""
        return f"made:{len(self.made)}|reference:{len(self.reference)} {self.where}"


def sets_of(
    pairs: Pairs, *, train: Iterable[Example], held_out: Iterable[Example], most: int, seed: int, metric: str
) -> Sets:
    """The reference are held-out pictures of rows that were not answered; where these are fewer than the answers,
    training pictures. At most `most`, drawn by the seed. Raises UsageError when a set has too few pictures."""
    rows = [pair for pair in pairs if picture_of(pair.answer) and picture_of(pair.example.answer)]
    made = [path for pair in rows if (path := picture_of(pair.answer))]
    train = list(train)
    true = pictures_of(pair.example for pair in rows)
    answered = {path.name for path in pictures_of(pair.example for pair in pairs)}
    reference, where = [path for path in pictures_of(held_out) if path.name not in answered], "held-out"
    if len(reference) < len(made):
        reference, where = pictures_of(train), "training"
    if len(reference) > most:
        reference = random.Random(f"reference {seed}").sample(reference, most)
    if min(len(made), len(reference)) < _FEWEST:
        raise UsageError(
            f"`{metric}` compares sets of pictures, and here are {len(made)} answers with a picture and "
            f"{len(reference)} true ones of other rows; {_FEWEST} of each is the least.",
            f"Raise evaluate.max_rows, hold out more rows, or leave `{metric}` out.",
        )
    return Sets(rows, made, true, retrieved([p.example for p in rows], train), reference, where, _side(made))


def retrieved(asked: Sequence[Example], train: Sequence[Example]) -> list[Path]:
    """For each example the training picture whose words (rare ones weigh more) and style are nearest, by cosine; none
    when no training row has a picture."""
    known = [example for example in train if picture_of(example.answer)]
    words = [_words(example) for example in known]
    counts = Counter(word for some in words for word in some)
    weight = {word: log(1 + len(known) / count) for word, count in counts.items()}
    lengths = [sum(weight[word] ** 2 for word in some) ** 0.5 or 1.0 for some in words]
    places: dict[str, list[int]] = defaultdict(list)
    for row, some in enumerate(words):
        for word in some:
            places[word].append(row)
    found = []
    for example in asked if known else ():
        near: dict[int, float] = defaultdict(float)
        for word in sorted(_words(example)):
            for row in places.get(word, ()):
                near[row] += weight[word] ** 2 / lengths[row]
        best = max(near, key=lambda row: (near[row], -row), default=0)
        found.append(known[best].answer)
    return [path for answer in found if (path := picture_of(answer))]


def caption_of(example: Example, language: str = "") -> str:
    """The first caption in that language where the row has one, else the words that were asked."""
    captions = (example.meta.get("captions") or {}).get(language)
    asked = next((m.text for m in reversed(example.prompt) if m.role == "user"), "")
    return str(captions[0]) if captions else asked


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean, (len(some), len(others)).

    >>> distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[5.0, 0.0]]
    """
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return np.sqrt(np.maximum(squares, 0))


def thumbnails(paths: Iterable[Path]) -> Iterator[np.ndarray]:
    """16 × 16 mean colours of each picture, (768,), float64."""
    from genwright.media.picture import open_picture, thumbnail

    for path in paths:
        yield thumbnail(open_picture(path, drawn=32)).reshape(-1).astype(np.float64)


def _side(made: Sequence[Path]) -> int:
    """Pixels of the smallest answer's longer side."""
    from genwright.media.picture import picture_facts

    sizes = [picture_facts(path) for path in made]
    return min(224, *(max(one["width"], one["height"]) for one in sizes))


def _words(example: Example) -> set[str]:
    captions = [text for texts in (example.meta.get("captions") or {}).values() for text in texts[:1]]
    words = {word for text in (caption_of(example), *captions) for word in spelt(text)}
    return words | ({f"style: {style}"} if (style := example.meta.get("style")) else set())
