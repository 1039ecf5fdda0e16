"""Books of tunes become rows that say what each is; melodies in other keys and versions stay on one side."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from pydantic import ValidationError

from genwright.core import Bad, Example, Row, UsageError, assistant, find_card, user
from genwright.data.refiners import near_tunes
from genwright.data.sources import abc_tunes
from genwright.media.abc import read_tune
from genwright.media.score import abc_of, told_of, tune_of, words_of_tune
from tests.nn.tunes import KESH, STEPS, rows


def read(path: Path, **settings: Any) -> tuple[list[Row], list[Bad]]:
    found = list(abc_tunes.read(abc_tunes.Settings(path=path, **settings)))
    return [one for one in found if isinstance(one, Row)], [one for one in found if isinstance(one, Bad)]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    broken = STEPS.replace("(3EFG", "(5EFGAB")
    path = tmp_path / "reels.abc"
    text = KESH.replace("O:Ireland\n", "Z:Transcribed by Ann Bee, ann@example.org 1/2/97\n").replace("R:jig\n", "")
    path.write_text(f"% a book\n\n{text}\n{broken}\n{STEPS}", encoding="utf-8")
    return path


def test_a_tune_is_a_row_that_says_what_it_is(book: Path) -> None:
    good, bad = read(
        book, regions={"reel*": "Scotland"}, rhythms={"*.abc": "jig"}, licence="CC0-1.0", attribution="A book"
    )
    fields = good[0].fields
    assert fields["prompt"] == "a jig in G major, 6/8, 16 bars, from Scotland, called The Kesh"
    assert read_tune(fields["completion"]).events == read_tune(KESH).events
    assert "L:1/8" in fields["completion"]
    meta = fields["meta"]
    assert (meta["licence"], meta["attribution"]) == ("CC0-1.0", "A book; Ann Bee"), "without addresses"
    assert (meta["title"], meta["group"], meta["tune"]["bars"]) == ("The Kesh", "tune kesh", 16)
    assert good[1].fields["meta"]["tune"]["rhythm"] == "reel", "what the tune says itself goes first"
    assert [one.where for one in bad] == ["reels.abc:14"]
    assert "group of 5" in bad[0].reason


def test_archives_and_encodings_are_read(book: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "books.zip", "w") as archive:
        archive.write(book, "a/reels.abc")
        archive.writestr("b/other.abc", KESH.replace("The Kesh", "Kéš").encode("utf-16"))
    good, _ = read(tmp_path / "books.zip", include=["a/*.abc"])
    assert len(good) == 2
    assert [
        row.fields["meta"]["title"] for row in read(tmp_path / "books.zip", include=["b/*"], encoding="utf-16")[0]
    ] == ["Kéš"]


def test_what_is_not_for_commerce_must_be_asked_for(book: Path) -> None:
    with pytest.raises(UsageError, match="forbids commercial use"):
        read(book, commercial=False)
    assert read(book, commercial=False, non_commercial=True)[0]
    assert find_card("tunes-essen").read["commercial"] is False
    for wrong in ({"regions": {"*": "Mars"}}, {"rhythms": {"*": "tango"}}):
        with pytest.raises(ValidationError, match="is none of"):
            abc_tunes.Settings(path=book, **wrong)


class Report:
    def __init__(self) -> None:
        self.notes, self.dropped = list[str](), list[str]()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def drop(self, example: Example, reason: str) -> None:
        self.dropped.append(reason)


def groups(examples: list[Example], **settings: Any) -> list[Any]:
    found = near_tunes.refine(iter(examples), near_tunes.Settings(**settings), report=Report())
    return [example.meta.get("group") for example in found]


def test_a_melody_is_the_same_in_every_key_and_with_another_ending() -> None:
    tune = read_tune(KESH)
    told, words = {**told_of(tune), "tonic": 2}, words_of_tune(tune)
    other = Example((user("x"), assistant(abc_of(tune_of(told, words)).replace("A", "B", 1) + "D8|E8||\n")))
    found = groups([rows()[0], rows()[7], other, Example((user("x"), assistant("no tune")))])
    assert found == ["melody 0", "melody 1", "melody 0", None]
    report = Report()
    kept = list(near_tunes.refine(iter(rows()), near_tunes.Settings(action="drop"), report=report))
    assert (len(kept), len(report.dropped)) == (2, 10)
    assert groups([rows()[0], other], share=1.0) == ["melody 0", "melody 1"], "not all of it is shared"
    assert groups([rows()[0], other], n=64) != []
