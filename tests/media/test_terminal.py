"""A terminal shows a picture by what it says of itself, and stays silent where it cannot."""

import base64
import re

import pytest
from PIL import Image

from genwright.core import Part, shelves
from genwright.media.terminal import for_terminal, half_blocks


@pytest.fixture
def picture(tmp_path):
    made = Image.new("RGB", (8, 8), (255, 0, 0))
    made.paste((0, 0, 255), (0, 4, 8, 8))
    made.save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_half_blocks_are_two_pixels_a_character(picture):
    drawn = half_blocks(Image.open(picture), 8)
    lines = drawn.rstrip("\n").split("\n")
    assert [line.count("▀") for line in lines] == [8] * 4
    assert "38;2;255;0;0;48;2;255;0;0" in lines[0]
    assert "48;2;0;0;255" in lines[3]
    assert all(line.endswith("\x1b[0m") for line in lines)
    assert re.search(r"38;5;196;48;5;196m", half_blocks(Image.open(picture), 8, true=False))


@pytest.mark.parametrize(("environment", "begins"), [
    ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, "\x1b_Ga=T,f=100,m="),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "\x1b_Ga=T,f=100,m="),
    ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "\x1b]1337;File=inline=1;size="),
    ({"TERM": "screen-256color", "TERM_PROGRAM": "iTerm.app", "TMUX": "x"}, "\x1b[38;5;"),
    ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, "\x1b[38;2;"),
])  # fmt: skip
def test_each_terminal_gets_its_own_protocol(picture, environment, begins):
    assert for_terminal(picture, environment, 80).startswith(begins)


@pytest.mark.parametrize(
    "environment", [{}, {"TERM": "dumb"}, {"TERM": "vt100"}, {"TERM": "xterm-kitty", "NO_COLOR": ""}]
)
def test_a_terminal_that_cannot_gets_nothing(picture, environment):
    assert for_terminal(picture, environment, 80) == ""


def test_kittys_pieces_are_one_png(picture):
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    noise.save(picture)
    pieces = re.findall(
        r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", for_terminal(picture, {"TERM": "k", "KITTY_WINDOW_ID": "1"}, 80)
    )
    assert len(pieces) > 2
    assert all(len(piece) <= 4096 for piece in pieces)
    assert base64.b64decode("".join(pieces)).startswith(b"\x89PNG")


def test_the_modality_shows_it(picture):
    modality = shelves["modalities"].load("image").modality
    assert modality.terminal(Part("image", path=picture), {"TERM": "xterm-256color"}, 20).count("▀") == 20 * 10
    assert shelves["modalities"].load("text").modality.terminal(Part(text="x"), {"TERM": "xterm-256color"}, 20) == ""
