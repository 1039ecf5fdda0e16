"""Pictures go to a file and come back, are checked before they are learned from, and are shown safely."""

import io

import numpy as np
import pytest
from PIL import Image

from genwright.core import DataError, Part, shelves
from genwright.modalities import image


def test_a_picture_comes_back_as_it_was_saved(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    modality = shelves["modalities"].load("image").modality
    part = modality.save(pixels, tmp_path / "deep" / f"a{modality.suffix}")
    assert part.kind == modality.name == "image"
    assert (np.asarray(modality.read(part)) == pixels).all()
    with pytest.raises(DataError, match="no file"):
        modality.read(Part("image"))


@pytest.mark.parametrize(("size", "side", "shape"), [
    ((64, 64), "64–127 px", "square"), ((63, 100), "32–63 px", "up to 2:1"), ((5, 11), "1–15 px", "longer than 2:1"),
    ((4096, 4100), "4096 px and more", "square"),
])  # fmt: skip
def test_what_is_counted_of_a_picture(size, side, shape, tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", size).save(path)
    assert image.check(path) == {"suffix": ".png", "shorter side": side, "shape": shape, "transparency": "no"}
    assert image.check(path.read_bytes()) == image.check(path)


def test_a_damaged_picture_is_found_by_the_check():
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)).save(out, "PNG")
    with pytest.raises(DataError, match="cut off"):
        image.check(out.getvalue()[:-2000])


def test_a_page_shows_the_picture_small_and_nothing_of_its_words_is_markup(tmp_path):
    part = image.save(np.zeros((600, 300, 3), np.uint8), tmp_path / "a.png")
    shown = image.html(Part("image", '"><script>', part.path))
    assert shown.startswith('<img src="data:image/png;base64,')
    assert 'width="128" height="256"' in shown
    assert "<script>" not in shown
    assert image.html(Part("image", path=tmp_path / "none.png")).startswith("<em>")


def test_an_overview_is_a_sheet_of_all(tmp_path):
    parts = [image.save(np.full((9, 9, 3), k, np.uint8), tmp_path / f"{k}.png") for k in range(12)]
    sheet = image.overview(parts, [str(k) for k in range(12)], tmp_path)
    assert sheet.parent == tmp_path
    with Image.open(sheet) as opened:
        assert opened.width > 10 * 96
    assert image.overview([], [], tmp_path) is None
