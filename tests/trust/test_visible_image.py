"""The label in a picture: as high as asked for, measured on the pixels; legible on any ground; put on once."""

import numpy as np
import pytest

from genwright.core import DataError, Part, Provenance
from genwright.media.stamp import place_of, stamped
from genwright.trust.marks import metadata, visible_image

Image = pytest.importorskip("PIL.Image")
NOISE = np.random.default_rng(0).integers(0, 255, (512, 768, 3), dtype=np.uint8)
GROUNDS = {
    "white": lambda size: Image.new("RGB", size, "white"),
    "black": lambda size: Image.new("RGB", size, "black"),
    "noise": lambda size: Image.fromarray(NOISE[: size[1], : size[0]]),
}


def mark(path, **options):
    return visible_image.apply(Part("image", path=path), Provenance(), visible_image.Settings(**options))


def ink(picture, box):
    """Where the letters are, inside the label's own field."""
    left, top, right, bottom = box
    return np.asarray(picture.convert("L"))[top:bottom, left:right] > 110


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (300, 300), (768, 512)])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_letters_are_as_high_as_the_rule_asks_on_any_ground(tmp_path, size, language, ground):
    path = tmp_path / "a.png"
    GROUNDS[ground](size).save(path)
    mark(path, language=language)
    place = place_of(size, visible_image.WORDS[language])
    seen = ink(Image.open(path), place.box)
    rows = np.flatnonzero(seen.any(1))
    lines = 2 if rows[-1] - rows[0] + 1 > 1.5 * place.letters else 1
    height = (rows[-1] - rows[0] + 1) / lines if lines == 1 else place.letters
    assert height >= 0.05 * min(size)
    assert height >= min(place.letters, 7) - 1
    if lines == 1:  # every letter for itself
        columns = np.flatnonzero(seen.any(0))
        letters = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
        tall = [np.flatnonzero(seen[:, one].any(1)) for one in letters if len(one) > 2]
        assert min(one[-1] - one[0] + 1 for one in tall) >= 0.05 * min(size)


@pytest.mark.parametrize("ground", GROUNDS)
def test_letters_stand_out_from_their_ground(ground):
    size = (128, 128)
    field = np.asarray(stamped(GROUNDS[ground](size), "AI生成").convert("L"), float)
    left, top, right, bottom = place_of(size, "AI生成").box
    inside = field[top:bottom, left:right]
    bright, dark = np.percentile(inside, 97), np.percentile(inside, 20)
    assert (bright / 255 + 0.05) / ((dark / 255) ** 2.2 + 0.05) > 7, "WCAG's strictest contrast"


@pytest.mark.parametrize("corner", ["top left", "top right", "bottom left", "bottom right"])
def test_the_corner_is_chosen_and_all_other_pixels_stay(tmp_path, corner):
    before = GROUNDS["noise"]((96, 80))
    before.save(tmp_path / "a.png")
    mark(tmp_path / "a.png", corner=corner)
    left, top, right, bottom = place_of((96, 80), "AI生成", corner=corner).box
    assert (left == 0) == ("left" in corner)
    assert (top == 0) == ("top" in corner)
    changed = (np.asarray(before) != np.asarray(Image.open(tmp_path / "a.png"))).any(2)
    assert changed[top:bottom, left:right].mean() > 0.9
    changed[top:bottom, left:right] = False
    assert not changed.any()


def test_higher_letters_and_a_second_time(tmp_path):
    Image.new("RGBA", (200, 200), (0, 0, 0, 0)).save(tmp_path / "a.png")
    mark(tmp_path / "a.png", height=0.2)
    once = (tmp_path / "a.png").read_bytes()
    mark(tmp_path / "a.png", height=0.2)
    assert (tmp_path / "a.png").read_bytes() == once
    assert place_of((200, 200), "AI生成", share=0.2).letters == 40
    left, top, right, bottom = place_of((200, 200), "AI生成", share=0.2).box
    alpha = np.asarray(Image.open(tmp_path / "a.png"))[:, :, 3]
    assert (alpha[top:bottom, left:right] == 255).all()
    assert alpha[0, 0] == 0
    with pytest.raises(ValueError):
        visible_image.Settings(height=0.04)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_other_formats_are_labelled_too_before_their_metadata(tmp_path, name):
    GROUNDS["white"]((128, 128)).save(tmp_path / name)
    part = metadata.apply(mark(tmp_path / name), Provenance(request_id="r"), metadata.Settings())
    assert ink(Image.open(part.path), place_of((128, 128), "AI生成").box).any()


def test_what_is_too_small_is_said_and_words_pass(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="too small for the label"):
        mark(tmp_path / "a.png")
    words = Part(text="x")
    assert visible_image.apply(words, Provenance(), visible_image.Settings()) == words
