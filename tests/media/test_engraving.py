"""A tune's score is engraved as it is written, the same each time, with its words, without a word from the engraver."""

from __future__ import annotations

import io
import random
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from genwright.core import DataError, MissingExtra
from genwright.media.abc import Bar, Tune, read_tune
from genwright.media.score import abc_of
from tests.nn.tunes import KESH, STEPS

pytest.importorskip("verovio")
from genwright.media.engraving import engraved, picture_of

SIGNS = """X:1
T:Every <sign> & more
M:4/4
L:1/8
K:Ador
|:E2EF G2AB|cdef d4|1(3EFG (3FED D4:|2 (3EFG _B2 A4||
e4 z2 ^g2|A5 A3|E2F2 D2=F2|A8:|
"""


def count(svg: str, kind: str) -> int:
    return sum(kind in one.get("class", "").split() for one in ElementTree.fromstring(svg).iter())


def texts(svg: str) -> list[str]:
    return [text for text in ("".join(one.itertext()).strip() for one in ElementTree.fromstring(svg).iter()
            if one.tag.endswith("}text")) if text]  # fmt: skip


@pytest.mark.parametrize("text", [KESH, STEPS, SIGNS])
def test_every_note_and_bar_is_engraved(text: str) -> None:
    tune = read_tune(text)
    svg = engraved(tune)
    tied = sum(note.ticks == 120 for note in tune.notes)  # five eighths are two notes
    assert count(svg, "note") == sum(note.step is not None for note in tune.notes) + tied
    assert count(svg, "rest") == sum(note.step is None for note in tune.notes)
    assert count(svg, "measure") == sum(isinstance(event, Bar) for event in tune.events) - (text is SIGNS)
    assert any(words.endswith(tune.title) for words in texts(svg))
    assert engraved(tune) == svg
    assert engraved(read_tune(abc_of(tune))) == svg, "as ABC it is the same tune"


def test_signs_stand_where_they_must() -> None:
    svg = engraved(read_tune(SIGNS))
    assert [count(svg, kind) for kind in ("tuplet", "keySig", "ending", "tie")] == [3, 2, 2, 1]
    drawn = [use.get("{http://www.w3.org/1999/xlink}href", "")[1:5] for use in ElementTree.fromstring(svg).iter()]
    assert [drawn.count(glyph) for glyph in ("E260", "E261", "E262")] == [1, 1, 3], "flat, natural; sharps: 2 in keys"
    minor = engraved(read_tune(SIGNS.replace("K:Ador", "K:Fm").replace("_B", "B")))
    assert count(minor, "keyAccid") == 8


def test_words_stand_under_notes_in_english_and_chinese() -> None:
    tune = read_tune(KESH)
    svg = engraved(tune, verses=[{0: "one", 3: "<two> & 3"}, {0: "清晨的阳光", 2: "照在"}])
    assert {"one", "<two> & 3", "清晨的阳光", "照在"} <= set(texts(svg))
    assert count(svg, "verse") == 4


def test_a_picture_is_drawn_with_its_words() -> None:
    pytest.importorskip("resvg_py")
    from PIL import Image

    def ink(svg: str) -> int:
        return int((np.asarray(Image.open(io.BytesIO(picture_of(svg)))) < 128).sum())

    tune = read_tune(STEPS)
    plain = engraved(tune)
    assert Image.open(io.BytesIO(picture_of(plain))).size[0] == 1_680
    bare = ink(plain.replace(">Steps<", "><"))
    assert bare > 5_000
    assert ink(plain) > bare + 500, "the title is drawn on every machine"


def test_nothing_is_said_and_nothing_breaks_it(capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(5)
    for number in range(25):
        one = read_tune((KESH, STEPS, SIGNS)[number % 3])
        events = list(one.events)
        for _ in range(chance.randint(0, 12)):
            del events[chance.randrange(len(events))]
        title = "".join(chr(chance.choice((chance.randrange(32, 127), chance.randrange(0x4E00, 0x9FFF),
                                           chance.randrange(0x1F300, 0x1F600)))) for _ in range(20))  # fmt: skip
        verse = {place: title[:5] for place in range(0, len(events), 3)}
        ElementTree.fromstring(engraved(Tune(one.key, one.metre, tuple(events), {"T": (title,)}), verses=[verse]))
    assert capfd.readouterr() == ("", "")


def test_what_is_too_much_or_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    one = read_tune(STEPS)
    with pytest.raises(DataError, match="notes"):
        engraved(Tune(one.key, one.metre, one.events * 100))
    monkeypatch.setitem(sys.modules, "verovio", None)
    with pytest.raises(MissingExtra) as error:
        engraved(one)
    assert "pip install 'genwright[engrave]'" in error.value.hint
