"""Words go to a file and come back."""

import pytest

from genwright.core import DataError, Part, shelves
from genwright.modalities import text


def test_words_come_back_as_they_were_written(tmp_path):
    part = text.modality.save("Grüße, 世界\n", tmp_path / "deep" / f"a{text.modality.suffix}")
    assert part.path is not None
    assert text.modality.read(part) == "Grüße, 世界\n"
    assert text.modality.read(Part(text="only words")) == "only words"
    assert shelves["modalities"].load("text").modality.name == "text"


def test_a_byte_order_mark_is_no_word(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert text.read(Part(path=tmp_path / "a.txt")) == "hello"


def test_what_is_no_text_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no UTF-8"):
        text.read(Part(path=tmp_path / "a.txt"))
    with pytest.raises(DataError, match="cannot be read"):
        text.read(Part(path=tmp_path / "none.txt"))
    monkeypatch.setattr(text, "MAX_BYTES", 2)
    with pytest.raises(DataError, match="larger than"):
        text.read(Part(path=tmp_path / "a.txt"))


def test_what_is_no_text_does_not_pass_the_check(tmp_path):
    assert text.modality.check(b"hello") == {"suffix": ".txt"}
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    for given in (tmp_path / "a.txt", b"\xff"):
        with pytest.raises(DataError, match="no UTF-8"):
            text.modality.check(given)


def test_words_are_shown_on_a_page_and_no_markup(tmp_path):
    assert text.modality.html(Part(text="<b>")) == "<pre>&lt;b&gt;</pre>"
    assert text.modality.overview([Part(text="a")], ["a"], tmp_path) is None
