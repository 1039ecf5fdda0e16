"""Near copies: of texts by MinHash signatures, of other files by the distance of their modality's vectors.

Signatures are rensa's, found again through locality-sensitive hashing in numpy tables.

A signature estimates the Jaccard similarity of two sets of n-grams (Broder 1997). Rows whose signatures agree in one of
`bands` bands are candidates (Indyk and Motwani 1998), which the lowest byte of each of the 128 hashes then confirms.
A million rows peak at about 670 MB (signatures 128, tables 300, the rest while tables grow). datasketch took a hundred
times as long for a signature (256 against 2.6 microseconds for a row of 18 3-grams) and keeps them in dictionaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genwright.core import Example, MissingExtra
from genwright.core.words import normal, tokens

_HASHES = 128
_SEED = 20051
_NONE = 0xFFFFFFFF  # no row


def shingles(text: str, size: int) -> list[str]:
    """The n-grams of a text's words (characters in scripts without spaces); a shorter text is one shingle."""
    words = tokens(normal(text))
    if len(words) < size:
        return [" ".join(words) or normal(text)]
    return [" ".join(words[i : i + size]) for i in range(len(words) - size + 1)]


def signatures(sets: Sequence[Sequence[str]]) -> Any:
    """MinHash signatures: numpy uint32, (len(sets), 128)."""
    import numpy as np

    try:
        from rensa import RMinHash
    except ImportError:
        raise MissingExtra("rensa", "text") from None
    return np.array(RMinHash.digests_from_token_sets(list(sets), _HASHES, _SEED), np.uint32).reshape(-1, _HASHES)


def similarity(one: Any, other: Any) -> Any:
    """Estimated Jaccard similarity of signatures' lowest bytes, along the last axis; chance agreement is taken off."""
    agree = (one == other).mean(axis=-1)
    return (agree - 1 / 256) / (1 - 1 / 256)


class NearIndex:
    """Gives each row the number of its cluster: the first row that it resembles, directly or through others."""

    def __init__(self, threshold: float):
        import numpy as np

        self.threshold = threshold
        self.rows_per_band = _rows_per_band(threshold)
        self.bands = _HASHES // self.rows_per_band
        self.count = self._size = 0
        self._keys: Any = None
        self._rows: Any = None
        self._lowest = np.empty((1024, _HASHES), np.uint8)
        self._cluster = np.empty(1024, np.uint32)
        self._grow_table(1 << 12)

    def add(self, signed: Any) -> list[list[int]]:
        """Clusters of the next rows: usually one number each, several when a row joins clusters that were apart."""
        import numpy as np

        size, start = len(signed), self.count
        ids = np.arange(start, start + size, dtype=np.uint32)
        self._make_room(start + size)
        self._lowest[start : start + size] = signed.astype(np.uint8)
        self._cluster[start : start + size] = ids
        self.count += size
        first = self._first_with(self._band_keys(signed), ids)
        rows, bands = np.nonzero(first != ids[:, None])
        others = first[rows, bands]
        close = similarity(self._lowest[ids[rows]], self._lowest[others]) >= self.threshold
        found: dict[int, set[int]] = {}
        for row, other in zip(rows[close].tolist(), others[close].tolist(), strict=True):
            found.setdefault(row, set()).add(other)
        return _clusters(self._cluster, start, size, found)

    def _band_keys(self, signed: Any) -> Any:
        """(rows, bands) uint32: each band of hashes mixed into one (FNV-like, then a finisher)."""
        import numpy as np

        wide = signed[:, : self.bands * self.rows_per_band].astype(np.uint64).reshape(len(signed), self.bands, -1)
        key = np.full(wide.shape[:2], 0xCBF29CE484222325, np.uint64)
        with np.errstate(over="ignore"):
            for i in range(self.rows_per_band):
                key = (key ^ wide[:, :, i]) * np.uint64(0x9E3779B97F4A7C15)
                key ^= key >> np.uint64(29)
        return (key >> np.uint64(32)).astype(np.uint32)

    def _first_with(self, keys: Any, ids: Any) -> Any:
        """The first row ever seen with each band's key: open addressing, one table a band, all probed at once."""
        import numpy as np

        rows = np.repeat(ids, self.bands)
        flat = keys.reshape(-1)
        base = np.tile(np.arange(self.bands, dtype=np.int64) * self._size, len(ids))
        place = (flat.astype(np.int64) * 0x9E3779B1 >> 7) & (self._size - 1)
        answer = np.empty(len(flat), np.uint32)
        open_ = np.arange(len(flat))
        while len(open_):
            slot = base[open_] + place[open_]
            there = self._rows[slot]
            empty = np.flatnonzero(there == _NONE)
            if len(empty):  # the lowest row among those that want the same empty slot gets it
                _, winners = np.unique(slot[empty], return_index=True)
                chosen = empty[winners]
                self._rows[slot[chosen]] = rows[open_[chosen]]
                self._keys[slot[chosen]] = flat[open_[chosen]]
                there = self._rows[slot]
            same = self._keys[slot] == flat[open_]
            answer[open_[same]] = there[same]
            open_ = open_[~same]
            place[open_] = (place[open_] + 1) & (self._size - 1)
        return answer.reshape(len(ids), self.bands)

    def _make_room(self, rows: int) -> None:
        import numpy as np

        if rows > len(self._lowest):
            more = max(rows, len(self._lowest) * 3 // 2) - len(self._lowest)
            self._lowest = np.concatenate([self._lowest, np.empty((more, _HASHES), np.uint8)])
            self._cluster = np.concatenate([self._cluster, np.empty(more, np.uint32)])
        if rows > self._size * 0.6:
            self._grow_table(1 << (rows * 2 - 1).bit_length())

    def _grow_table(self, size: int) -> None:
        """A larger table with all that the old one holds, moved band by band."""
        import numpy as np

        keys, rows, before = self._keys, self._rows, self._size
        self._size = size
        self._keys = np.zeros(self.bands * size, np.uint32)
        self._rows = np.full(self.bands * size, _NONE, np.uint32)
        for band in range(self.bands if before else 0):
            held = np.flatnonzero(rows[band * before : (band + 1) * before] != _NONE) + band * before
            place = (keys[held].astype(np.int64) * 0x9E3779B1 >> 7) & (size - 1)
            while len(held):
                slot = band * size + place
                empty = np.flatnonzero(self._rows[slot] == _NONE)
                _, winners = np.unique(slot[empty], return_index=True)
                chosen = empty[winners]
                self._keys[slot[chosen]], self._rows[slot[chosen]] = keys[held[chosen]], rows[held[chosen]]
                left = np.ones(len(held), bool)
                left[chosen] = False
                held, place = held[left], (place[left] + 1) & (size - 1)


class NearVectors:
    """The same by Euclidean distance: rows are near copies when a view of one is nearer than `distance` to the other.

    Exact: candidates are those that are near along the first rows' 48 main axes, which never lie further apart than the
    vectors do. The work grows with the square of the rows (ten thousand rows of 768 figures took 2 s on one thread, a
    hundred thousand would take 3 min); memory is 1.7 kB a row.
    """

    _AXES = 48

    def __init__(self, distance: float):
        import numpy as np

        self.distance, self.count = distance, 0
        self._axes: Any = None
        self._whole: Any = np.empty((0, 0), np.float16)
        self._low: Any = np.empty((0, 0), np.float32)
        self._cluster = np.empty(1024, np.uint32)

    def add(self, views: Any) -> list[list[int]]:
        """Clusters of the next rows, as `NearIndex` gives them. `views` is (rows, views, d), a row itself first."""
        import numpy as np

        size, start = len(views), self.count
        views = np.asarray(views, np.float16).astype(np.float32)  # as they are kept, so that a copy is at no distance
        self._keep(views[:, 0])
        self._cluster[start : start + size] = np.arange(start, start + size)
        found: dict[int, set[int]] = {}
        for row, other in self._pairs(views, start):
            found.setdefault(row, set()).add(other)
        return _clusters(self._cluster, start, size, found)

    def is_near(self, views: Any) -> Any:
        """Which rows (numpy bool) are near copies of one that was added."""
        import numpy as np

        near = np.zeros(len(views), bool)
        if self.count:
            pairs = self._pairs(np.asarray(views, np.float16).astype(np.float32), None)
            near[[row for row, _ in pairs]] = True
        return near

    def _pairs(self, views: Any, start: int | None) -> list[tuple[int, int]]:
        """(row of `views`, row that is kept and near); only earlier ones where `views` begin at row `start`."""
        import numpy as np

        low = self._low[: self.count]
        squares, limit, found = np.square(low).sum(1), self.distance**2, set()
        for view in np.moveaxis(views, 1, 0):
            along = view @ self._axes
            apart = np.square(along).sum(1)[:, None] + squares - 2 * along @ low.T
            if start is not None:
                apart[np.arange(self.count) >= start + np.arange(len(view))[:, None]] = np.inf
            rows, others = np.nonzero(apart < limit + 1e-3)  # the last term is what rounding may take
            exact = np.square(view[rows] - self._whole[others].astype(np.float32)).sum(1) < limit
            found |= set(zip(rows[exact].tolist(), others[exact].tolist(), strict=True))
        return sorted(found)

    def _keep(self, rows: Any) -> None:
        import numpy as np

        if self._axes is None:
            self._axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][: self._AXES].T.copy()
        end = self.count + len(rows)
        if end > len(self._low):
            room = max(end, 2 * len(self._low), 1024)
            self._whole, whole = np.empty((room, rows.shape[1]), np.float16), self._whole
            self._low, low = np.empty((room, self._axes.shape[1]), np.float32), self._low
            cluster = np.empty(room, np.uint32)
            cluster[: self.count], self._cluster = self._cluster[: self.count], cluster
            if self.count:
                self._whole[: self.count], self._low[: self.count] = whole[: self.count], low[: self.count]
        self._whole[self.count : end], self._low[self.count : end] = rows, rows @ self._axes
        self.count = end


def grouped_with(example: Example, clusters: Sequence[int], what: str) -> Example:
    """The example with its clusters beside whatever group it had: all of them stay on one side of the split."""
    had = example.meta.get("group")
    groups = [str(g) for g in had] if isinstance(had, list) else [] if had is None else [str(had)]
    groups += [f"{what} {cluster}" for cluster in clusters]
    return Example(example.messages, example.meta | {"group": groups[0] if len(groups) == 1 else groups})


def _clusters(known: Any, start: int, size: int, found: dict[int, set[int]]) -> list[list[int]]:
    """Cluster numbers of new rows, from the earlier rows that each resembles; noted in `known`."""
    clusters = [[number] for number in range(start, start + size)]
    for row in sorted(found):  # in order, so that an earlier row of the same batch has its cluster already
        clusters[row] = sorted({int(known[other]) for other in found[row]})
        known[start + row] = clusters[row][0]
    return clusters


def _rows_per_band(threshold: float) -> int:
    """The longest bands that still find 97 % of the pairs that are just as similar as the threshold."""
    return max(r for r in range(1, 17) if r == 1 or 1 - (1 - threshold**r) ** (_HASHES // r) >= 0.97)
