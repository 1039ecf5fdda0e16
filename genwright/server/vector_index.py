"""Vector index: the chunks of a store in memory, and how near each is to a question.

A chunk's score is 0.6 × the cosine of its nearest window with the question + 0.4 × BM25 (Robertson & Zaragoza 2009) of
its words, the latter as a share of the most that the question's words could give, so that scores lie in [0, 1]. Over
the topics of Python's manual (benchmarks/vector_search.py) this finds more than either part alone.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .house import House
from .store.tables import Chunk, VectorFile, VectorStore

MEANING = 0.6  # share of the cosine in a score; the rest is for words
_K1, _B = 1.2, 0.75  # BM25's usual numbers
_KEPT = 8  # indexes in memory
_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TERM = re.compile(rf"[{_HAN}]|(?:(?![{_HAN}])\w)+")

Version = tuple[Any, ...]


@dataclass(frozen=True)
class Hit:
    """A chunk that was found: `file` is the id of its row of vector_files."""

    file: str
    text: str
    score: float


@dataclass
class Index:
    """Rows are chunks. `vectors` (windows, dimensions) have length 1; the windows of a row begin at its `starts`."""

    version: Version
    files: list[str]
    texts: list[str]
    words: list[str]  # the text as " word word word ", for counting
    lengths: np.ndarray  # words of each row
    starts: np.ndarray
    vectors: np.ndarray

    def search(
        self, questions: Sequence[str], vectors: np.ndarray | None, *, files: Collection[str], most: int,
        threshold: float = 0.0, with_words: bool = True,
    ) -> list[Hit]:  # fmt: skip
        """The nearest chunks of `files` to any of the questions; `vectors` are theirs, None where nobody can make them.

        Of chunks that share the window that was found, the better one counts.
        """
        rows = np.array([row for row, file in enumerate(self.files) if file in files], dtype=np.int64)
        if not len(rows):
            return []
        near = self._cosines(vectors) if vectors is not None else np.zeros((len(questions), len(self.files)))
        if with_words or vectors is None:
            near = MEANING * near + (1 - MEANING) * np.stack([self._bm25(question) for question in questions])
        scores = np.clip(near, 0.0, 1.0)
        best = scores.max(axis=0)
        found: list[Hit] = []
        seen: set[tuple[str, bytes]] = set()
        for row in rows[np.argsort(-best[rows], kind="stable")].tolist():
            if len(found) == most or best[row] < threshold:
                break
            asked = int(scores[:, row].argmax())
            spot = (self.files[row], self._window(row, None if vectors is None else vectors[asked]))
            if spot not in seen:
                seen.add(spot)
                found.append(Hit(self.files[row], self.texts[row], float(best[row])))
        return found

    def _cosines(self, questions: np.ndarray) -> np.ndarray:
        """(questions, rows): of the nearest window of each row."""
        return np.maximum.reduceat(questions @ self.vectors.T, self.starts, axis=1)

    def _bm25(self, question: str) -> np.ndarray:
        score, most, count = np.zeros(len(self.files)), 0.0, len(self.files)
        length = 1 - _B + _B * self.lengths / max(1.0, float(self.lengths.mean()))
        for term in terms_of(question):
            times = np.array([words.count(term) for words in self.words], dtype=np.float64)
            holding = int((times > 0).sum())
            weight = math.log(1 + (count - holding + 0.5) / (holding + 0.5))
            most += weight * (_K1 + 1)
            score += weight * times * (_K1 + 1) / (times + _K1 * length)
        return score / most if most else score

    def _window(self, row: int, question: np.ndarray | None) -> bytes:
        """What tells the row's window apart that is nearest to the question; its text where there are no vectors."""
        if question is None:
            return self.texts[row].encode()
        end = self.starts[row + 1] if row + 1 < len(self.starts) else len(self.vectors)
        windows = self.vectors[self.starts[row] : end]
        found: bytes = windows[int((windows @ question).argmax())].tobytes()
        return found


def plain_words(text: str) -> str:
    """Words in small letters, each Chinese, Japanese or Korean character a word: " you say 你 好 "."""
    return f" {' '.join(_TERM.findall(text.lower()))} "


def terms_of(question: str) -> list[str]:
    """What is counted in `plain_words`: words, and pairs of characters that stand side by side."""
    words = _TERM.findall(question.lower())
    wide = [bool(re.match(rf"[{_HAN}]", word)) for word in words]
    pairs = [f" {a} {b} " for (a, b), (x, y) in zip(pairwise(words), pairwise(wide), strict=True) if x and y]
    single = [f" {word} " for word, is_wide in zip(words, wide, strict=True) if not is_wide]
    return list(dict.fromkeys([*single, *pairs])) or [f" {word} " for word in dict.fromkeys(words)]


class Indexes:
    """The indexes that were used last; each is as new as its store."""

    def __init__(self) -> None:
        self.kept: OrderedDict[str, Index] = OrderedDict()

    async def of(self, house: House, store: str) -> Index | None:
        """None for a store that holds nothing."""
        version = await house.store.read(version_of, store)
        index = self.kept.pop(store, None)
        if index is None or index.version != version:
            index = await house.store.read(_load, store, version) if version[0] else None
        if index is not None:
            self.kept[store] = index
            while len(self.kept) > _KEPT:
                self.kept.popitem(last=False)
        return index


def version_of(session: Session, store: str) -> Version:
    """(chunks, newest chunk, how vectors are made): the same for as long as an index holds."""
    count, newest = session.execute(select(func.count(), func.max(Chunk.seq)).where(Chunk.store == store)).one()
    settings = session.scalar(select(VectorStore.settings).where(VectorStore.id == store))
    return count, newest, (settings or {}).get("embedder")


def _load(session: Session, store: str, version: Version) -> Index | None:
    columns = (Chunk.vector_file, Chunk.text, Chunk.embedding)
    rows = session.execute(select(*columns).where(Chunk.store == store).order_by(Chunk.seq)).all()
    if not rows:
        return None
    width = dimensions_of(session, store)
    texts = [text for _, text, _ in rows]
    words = [plain_words(text) for text in texts]
    counts = [len(embedding) // (4 * width) for _, _, embedding in rows]
    return Index(
        version, [file for file, _, _ in rows], texts, words, np.array([text.count(" ") - 1 for text in words]),
        np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64),
        np.frombuffer(b"".join(embedding for _, _, embedding in rows), dtype="<f4").reshape(-1, width),
    )  # fmt: skip


def dimensions_of(session: Session, store: str) -> int:
    """Numbers of a vector in a store."""
    settings: dict[str, Any] = session.scalar(select(VectorStore.settings).where(VectorStore.id == store)) or {}
    return int(settings["dimensions"])


# -- filters ---------------------------------------------------------------------------------------------------------


def fitting(files: Sequence[VectorFile], wanted: dict[str, Any] | None) -> Iterator[VectorFile]:
    """The files whose attributes a filter lets through."""
    return (file for file in files if wanted is None or fits(file.attributes, wanted))


def fits(attributes: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether attributes pass `{"type": "eq", "key", "value"}` and its like, or `and` and `or` of several.

    What a file does not have equals nothing, and is not more or less than anything.
    """
    if wanted["type"] in ("and", "or"):
        return (all if wanted["type"] == "and" else any)(fits(attributes, one) for one in wanted["filters"])
    has, value, how = attributes.get(wanted["key"]), wanted["value"], wanted["type"]
    if how in ("eq", "ne"):
        return _same(has, value) is (how == "eq")
    if how in ("in", "nin"):
        return any(_same(has, one) for one in value) is (how == "in")
    if has is None or isinstance(has, bool) or isinstance(has, str) is not isinstance(value, str):
        return False
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "gt": lambda a, b: a > b, "gte": lambda a, b: a >= b, "lt": lambda a, b: a < b, "lte": lambda a, b: a <= b,
    }  # fmt: skip
    return compare[how](has, value)


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, bool) is isinstance(b, bool) and a == b
