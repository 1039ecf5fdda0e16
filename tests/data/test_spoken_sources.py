"""Speech as data: recorded prompts out of an archive, and phrases that a packaged voice says."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import pytest

from genwright.core import DataError, Row, UsageError, choose, find_card
from genwright.media.sound import encoded, open_sound, sound_of

HIBARI = pytest.mark.skipif(not find_card("hibari").is_here, reason="needs `genwright models pull hibari`")


def prompts(folder, names=("digits/1", "beep", "digits/2"), suffix=".wav"):
    with tarfile.open(folder / "prompts.tar.xz", "w:xz") as archive:
        for name in names:
            data = encoded(sound_of(np.full(800, 0.1), 8_000), ".wav")
            entry = tarfile.TarInfo(f"./usr/share/sounds/en_US/{name}{suffix}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    words = "; Core sounds\n\ndigits/1: one\nbeep: [a tone]\ndigits/2: number  two [2]\nother: not there\n"
    with gzip.open(folder / "prompts.txt.gz", "wt") as file:
        file.write(words)
    return folder


def rows_of(**options):
    return list(choose("sources", options, key="source")())


def test_recorded_prompts_come_with_their_words(tmp_path):
    found = rows_of(source="prompts", path=str(prompts(tmp_path)), speaker="ann", licence="CC0-1.0", attribution="Ann")
    assert all(isinstance(row, Row) for row in found)
    assert [(row.fields["id"], row.fields["text"]) for row in found] == [
        ("digits/1", "one"),
        ("digits/2", "number two"),
    ]
    assert found[0].fields["meta"] == {"style": "ann", "licence": "CC0-1.0", "attribution": "Ann"}
    assert open_sound(found[0].fields["audio"]).rate == 8_000
    assert [row.fields["text"] for row in rows_of(source="prompts", path=str(tmp_path), include=["*/2"])] == [
        "number two"
    ]


def test_prompts_that_are_not_there_are_errors(tmp_path):
    with pytest.raises(DataError, match="holds 0 files"):
        rows_of(source="prompts", path=str(tmp_path))
    with pytest.raises(DataError, match="is called letters"):
        rows_of(source="prompts", path=str(prompts(tmp_path)), include=["letters/*"])


def test_phrases_are_one_or_the_other():
    with pytest.raises(ValueError, match="one of them"):
        choose("sources", {"source": "spoken"}, key="source")
    with pytest.raises(ValueError, match="faster"):
        choose("sources", {"source": "spoken", "phrases": ["hi"], "slow": 2}, key="source")
    chosen = choose("sources", {"source": "spoken", "phrases": ["hi"], "card": "whisper-base"}, key="source")
    with pytest.raises(UsageError, match="no voice"):
        chosen.module.resolve(chosen.settings, lambda card: card.folder)


@HIBARI
@pytest.mark.weights
def test_a_packaged_voice_says_phrases_the_same_way_for_the_same_seed(tmp_path):
    pytest.importorskip("hibari")
    how = {"source": "spoken", "phrases": ["turn {on|off} the {light|radio}"], "count": 3, "rate": 8_000}
    first = rows_of(**how)
    assert len({row.fields["text"] for row in first}) == 3
    assert [row.fields for row in first] == [row.fields for row in rows_of(**how)]
    sounds = [open_sound(row.fields["audio"]) for row in first]
    assert all(sound.rate == 8_000 and 0.5 < sound.seconds < 3 for sound in sounds)
    assert first[0].fields["meta"]["style"] == "hibari"
    assert "synthetic" in first[0].fields["meta"]["licence"]
    assert [row.fields["text"] for row in rows_of(**how, seed=4)] != [row.fields["text"] for row in first]
    slow, noisy = rows_of(**how, slow=0.5, fast=0.5), rows_of(**how, noise=0.2)
    assert open_sound(slow[0].fields["audio"]).seconds > 1.5 * sounds[0].seconds
    assert np.abs(open_sound(noisy[0].fields["audio"]).samples - sounds[0].samples).std() > 1e-3
    often = rows_of(**how, takes=2, slow=0.8, fast=1.2)
    texts = [row.fields["text"] for row in often]
    assert (texts[::2], len({*texts})) == (texts[1::2], 3)
    assert len({row.fields["audio"] for row in often}) == 6, "each take at its own speed"
    groups = [row.fields["meta"]["group"] for row in often]
    assert groups[0] == groups[1] != groups[2], "takes lie on one side of a split"
    (tmp_path / "said.txt").write_text("Hello.\n\nGoodbye.\n")
    told = rows_of(source="spoken", texts=str(tmp_path / "said.txt"), voices=["heart"])
    assert [(row.fields["text"], row.fields["meta"]["style"]) for row in told] == [
        ("Hello.", "heart"),
        ("Goodbye.", "heart"),
    ]
