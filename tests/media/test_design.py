"""Designs: icons on a plate, patterns without seams, covers whose words can be read; each option does something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image, ImageDraw

from genwright.core import UsageError
from genwright.media import design
from genwright.media.design import Design, contrast, cut_out, designed, suiting

RED, CJK = (210, 30, 40), pytest.mark.skipif(
    not any(design.os.path.isfile(place) for place in design._FONTS), reason="this machine has no Chinese font"
)  # fmt: skip


def ring() -> Any:
    """A red ring on white, 64 pixels, that lies to the left."""
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((4, 12, 44, 52), outline=RED, width=8)
    return picture


def made(**options: Any) -> np.ndarray:
    return np.asarray(designed(ring(), Design(**{"kind": "pattern", "width": 128} | options)))


def test_the_white_around_a_thing_is_cut_away_and_the_white_inside_stays() -> None:
    cut = np.asarray(cut_out(ring()))
    assert cut.shape == (41, 41, 4)
    assert cut[0, 0, 3] == 0
    assert cut[20, 20].tolist() == [255, 255, 255, 255]
    assert tuple(cut[20, 4, :3]) == RED


def test_a_picture_that_fills_its_square_is_kept_whole() -> None:
    assert cut_out(Image.new("RGB", (20, 10), RED)).size == (20, 10)
    assert cut_out(Image.new("RGB", (20, 10), "white")).size == (20, 10), "nothing to see is no error"


@pytest.mark.parametrize("arrangement", ["grid", "brick", "drop", "tossed"])
def test_a_pattern_goes_on_beyond_its_borders(arrangement: str) -> None:
    tile = made(arrangement=arrangement, scale=1.0).astype(int)
    assert tile.shape == (128, 128, 3)
    for axis in (0, 1):
        inside = abs(np.diff(tile, axis=axis)).max(2).mean(1 - axis)
        seam = abs(tile.take(0, axis) - tile.take(-1, axis)).max(1).mean()
        assert seam <= inside.max(), "the border is no sharper than the things are"
    if (
        arrangement == "brick"
    ):  # one thing lies across the border, another in the middle: moved by half they change places
        lower = tile[64:]
        assert abs(np.roll(lower, 64, 1) - lower).max() <= 2


def test_an_icon_stands_on_a_plate_with_clear_corners() -> None:
    icon = made(kind="icon", ground="#224488")
    assert icon.shape == (128, 128, 4)
    assert icon[0, 0, 3] == 0
    assert icon[64, 8].tolist() == [0x22, 0x44, 0x88, 255]
    there = (icon[:, :, :3] == RED).all(2)
    assert abs(np.argwhere(there).mean(0) - 63.5).max() < 1, "in the middle, wherever it was painted"
    assert made(kind="icon", plate="none", ground="#224488")[64, 4, 3] == 0
    assert made(kind="icon", plate="square")[0, 0, 3] == 255


@pytest.mark.parametrize("size", [(300, 150), (150, 300)])
def test_a_cover_has_its_words_where_the_thing_is_not(size: tuple[int, int]) -> None:
    shape = {"kind": "cover", "width": size[0], "height": size[1], "ground": "#f0f0e0"}
    plain, told = made(**shape), made(**shape, title="Fresh rings", subtitle="every day")
    changed = np.argwhere((plain != told).any(2))
    red = np.argwhere((plain == RED).all(2))
    assert len(changed) > 100
    axis = 1 if size[0] > size[1] else 0
    assert (changed[:, axis].max() < red[:, axis].min()) if axis else (changed[:, 0].min() > red[:, 0].max())
    inks = told[tuple(changed.T)]
    assert max(contrast(tuple(ink), (0xF0, 0xF0, 0xE0)) for ink in inks) >= 4.5


@CJK
def test_chinese_titles_are_set_and_broken_anywhere() -> None:
    shape = {"kind": "cover", "width": 300, "height": 150}
    assert (made(**shape, title="每天新鲜的水果从早到晚") != made(**shape, title="每天")).any()


@CJK
def test_latin_letters_beside_chinese_ones_are_letters_and_not_boxes() -> None:
    shape = {"kind": "cover", "width": 300, "height": 150}
    mixed = design.Lettering("KI 水果", 20)
    assert mixed.getlength("KI") == design.font_for("", 20).getlength("KI")
    assert mixed.getlength("KI 水果") == mixed.getlength("KI ") + mixed.getlength("水果")
    assert (made(**shape, title="KI 水果") != made(**shape, title="IK 水果")).any(), "boxes would be alike"


def test_without_a_font_for_the_words_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(design, "_FONTS", ())
    with pytest.raises(UsageError) as caught:
        made(kind="cover", title="水果")
    assert "fonts-droid-fallback" in caught.value.hint


def test_the_ground_suits_the_thing() -> None:
    assert suiting(cut_out(ring()))[0] == min(suiting(cut_out(ring()))), "red stands on a tint without much of it"
    assert min(suiting(Image.new("RGBA", (8, 8), (90, 90, 90, 255)))) > 200, "grey on something light"
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


CHANGES: dict[str, dict[str, Any]] = {
    "kind": {"kind": "icon"}, "width": {"width": 96}, "height": {"height": 64}, "ground": {"ground": "navy"},
    "plate": {"plate": "circle"}, "arrangement": {"arrangement": "grid"}, "scale": {"scale": 0.3},
    "title": {"title": "One"}, "subtitle": {"subtitle": "Two"}, "font": {"font": "none.ttf"},
}  # fmt: skip


@pytest.mark.parametrize("key", list(Design.model_fields))
def test_every_option_changes_what_comes(key: str) -> None:
    base = {"plate": {"kind": "icon"}, "title": {"kind": "cover"}, "subtitle": {"kind": "cover"},
            "font": {"kind": "cover", "title": "One"}}.get(key, {})  # fmt: skip
    if key == "font":
        with pytest.raises(UsageError, match=r"none\.ttf"):
            made(**base, font="none.ttf")
        return
    before, after = made(**base), made(**base | CHANGES[key])
    assert before.shape != after.shape or (before != after).any()


@pytest.mark.parametrize(("wrong", "why"), [
    ({"ground": "no colour"}, "no colour"), ({"kind": "cover", "title": "word " * 24, "width": 32}, "do not go into"),
])  # fmt: skip
def test_what_cannot_be_is_said(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        made(**wrong)
