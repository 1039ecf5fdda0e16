"""Split: which rows are held out, by hash, so that copies, near copies and equal questions stay on one side."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from genwright.core.words import digest64


@dataclass
class Keys:
    """Three 64-bit hashes a row: of its question (0: it has none), of all of it, and of its group (0: it has none)."""

    prompt: array[int] = field(default_factory=lambda: array("Q"))
    content: array[int] = field(default_factory=lambda: array("Q"))
    group: array[int] = field(default_factory=lambda: array("Q"))
    links: dict[int, int] = field(default_factory=dict)  # groups that a row binds together: group -> an older one

    def add(self, prompt: int, content: int, group: Any) -> None:
        """`group` is the row's `meta["group"]`: None, a name, or a list of names that belong together."""
        names = group if isinstance(group, list) else [] if group is None else [group]
        groups = [digest64(str(name)) for name in names]
        for other in groups[1:]:
            first, second = self.root(groups[0]), self.root(other)
            if first != second:
                self.links[max(first, second)] = min(first, second)
        self.prompt.append(prompt)
        self.content.append(content)
        self.group.append(groups[0] if groups else 0)

    def root(self, group: int) -> int:
        """The group that stands for all that are linked with `group`."""
        while (older := self.links.get(group)) is not None:
            group = older
        return group

    def __len__(self) -> int:
        return len(self.content)


def held_out_rows(keys: Keys, share: float, seed: int) -> tuple[Any, list[str]]:
    """A mask (numpy bool, one a row) of the rows held out, and what is worth telling about it.

    Rows are bound together by an equal question or an equal group, and each bundle goes to the side that the hash of
    its smallest key says; so new rows do not move old ones. A question that more than half of the rows share is an
    instruction and binds nothing. A bundle larger than the wanted share stays in training. With two rows or more at
    least one is held out.
    """
    import numpy as np

    n, notes = len(keys), list[str]()
    if not share or n < 2:
        return np.zeros(n, bool), notes
    unit = _units(keys, notes)
    group = np.frombuffer(keys.group, np.uint64).copy()
    for linked in keys.links:
        group[group == np.uint64(linked)] = keys.root(linked)
    bundle = _bundles(unit, group)
    if bundle.max() == 0:
        notes.append("All rows are bound together by groups; they are split one by one, so both sides are alike.")
        unit = np.arange(n, dtype=np.uint64)
        bundle = np.arange(n)
    sizes = np.bincount(bundle)
    smallest = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, bundle, unit)
    chance = _mixed(smallest + np.uint64(digest64(f"split {seed}"))) / 2.0**64
    small = sizes <= max(1.0, share * n)
    held = (chance < share) & small
    if not held.any():
        held[np.lexsort((chance, ~small))[0]] = True
    if held.all():
        held[np.argmax(chance)] = False
    if large := int((~small).sum()):
        notes.append(f"{large} group(s) larger than the held-out share stay in training.")
    return held[bundle], notes


def shared_with(keys: Keys, held: Keys) -> Any:
    """A mask of the rows of `keys` whose question or whole content also stands among `held`."""
    import numpy as np

    overused: list[str] = []
    unit, held_unit = _units(keys, overused), _units(held, overused)
    same = np.isin(np.frombuffer(keys.content, np.uint64), np.frombuffer(held.content, np.uint64))
    return same | np.isin(unit, held_unit)


def _units(keys: Keys, notes: list[str]) -> Any:
    """What binds rows: the question, or all of the row where there is none or where most rows have the same."""
    import numpy as np

    prompt, content = np.frombuffer(keys.prompt, np.uint64), np.frombuffer(keys.content, np.uint64)
    values, counts = np.unique(prompt, return_counts=True)
    common = values[(counts * 2 > len(prompt)) & (values != 0)]
    if len(common):
        notes.append("More than half of the rows ask the same; these are split by their answers.")
    return np.where((prompt == 0) | np.isin(prompt, common), content, prompt)


def _bundles(unit: Any, group: Any) -> Any:
    """Connected components over equal units and equal groups: one number from 0 a row."""
    import numpy as np

    _, by_unit = np.unique(unit, return_inverse=True)
    grouped = group != 0
    if not grouped.any():
        return by_unit
    _, by_group = np.unique(group[grouped], return_inverse=True)
    label = by_unit.astype(np.int64)
    while True:
        lowest = np.full(by_group.max() + 1, len(unit), np.int64)
        np.minimum.at(lowest, by_group, label[grouped])
        spread = label.copy()
        spread[grouped] = lowest[by_group]
        lowest = np.full(by_unit.max() + 1, len(unit), np.int64)
        np.minimum.at(lowest, by_unit, spread)
        spread = lowest[by_unit]
        if (spread == label).all():
            return np.unique(label, return_inverse=True)[1]
        label = spread


def _mixed(keys: Any) -> Any:
    """splitmix64's finisher: evenly spread 64-bit numbers (Steele, Lea and Flood 2014)."""
    import numpy as np

    with np.errstate(over="ignore"):
        keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
