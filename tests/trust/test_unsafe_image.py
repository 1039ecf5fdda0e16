"""The guard of pictures: harmless ones pass, what it cannot judge does not, and every option turns something."""

import numpy as np
import pytest

from genwright.core import DataError, ModelError, Part, find_card
from genwright.media.picture import save_picture
from genwright.trust.guards import keywords, unsafe_image
from genwright.trust.guards.keywords import check, undecided

here = pytest.mark.skipif(not find_card("opennsfw").is_here, reason="genwright models pull opennsfw")


@pytest.fixture
def picture(tmp_path):
    pytest.importorskip("PIL")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    return Part("image", path=save_picture(pixels, tmp_path / "a.png"))


def scored(monkeypatch, *scores):
    monkeypatch.setattr(unsafe_image, "likelihoods", lambda pictures: list(scores)[: len(pictures)])


def test_the_worst_picture_decides(picture, monkeypatch):
    scored(monkeypatch, 0.1, 0.85)
    verdict = unsafe_image.check([Part(text="words"), picture, picture], unsafe_image.Settings())
    assert verdict.action == "block"
    assert verdict.findings[0].rule == "pornography"
    assert "0.85" in verdict.reason
    assert unsafe_image.check([picture], unsafe_image.Settings()).action == "allow"
    assert unsafe_image.check([picture, picture], unsafe_image.Settings(threshold=0.9)).findings == ()
    noted = unsafe_image.check([picture, picture], unsafe_image.Settings(action="note"))
    assert (noted.action, len(noted.findings)) == ("allow", 1)


def test_words_pass_at_once_and_load_nothing(monkeypatch):
    monkeypatch.setattr(unsafe_image, "_session", None)
    assert unsafe_image.check([Part(text="a cat")], unsafe_image.Settings()).action == "allow"
    assert unsafe_image.undecided("a cat", unsafe_image.Settings()) == 5


def test_without_its_weights_it_says_how_to_get_them(picture, monkeypatch, tmp_path):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    with pytest.raises(ModelError) as caught:
        unsafe_image.check([picture], unsafe_image.Settings())
    assert "genwright models pull opennsfw" in caught.value.hint
    path = find_card("opennsfw").folder / "open-nsfw.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other weights")
    with pytest.raises(ModelError, match="altered"):
        unsafe_image.check([picture], unsafe_image.Settings())


@pytest.mark.weights
@here
def test_noise_is_harmless_and_what_is_no_picture_does_not_pass(picture, tmp_path):
    (score,) = unsafe_image.likelihoods([picture.path])
    assert 0 <= score < 0.2
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="no picture"):
        unsafe_image.check([Part("image", path=tmp_path / "b.png")], unsafe_image.Settings())


# -- prompts -----------------------------------------------------------------------------------------------------------

LISTED = keywords.Settings(lists=("sexual",))


@pytest.mark.parametrize(
    "prompt", ["a naked woman", "NSFW art", "n u d e girl", "p0rn", "裸体女人", "色 情图片", "a nudе man"]
)
def test_prompts_for_sexual_pictures_are_seen(prompt):
    verdict = check([Part(text=prompt)], LISTED)
    assert (verdict.action, verdict.findings[0].rule) == ("block", "sexual")


@pytest.mark.parametrize(
    "prompt",
    ["a naked mole rat", "visible to the naked eye", "nude lipstick on marble", "a rooster", "a red heart", "裸眼 3D",
     "露点温度", "a bottomless cup", "sex education poster", "Essex at dawn", "母乳喂养"],
)  # fmt: skip
def test_harmless_prompts_are_left_alone(prompt):
    assert check([Part(text=prompt)], LISTED).findings == ()


def test_a_phrase_that_is_spared_spares_only_itself(tmp_path):
    both = "naked to the naked eye"
    assert [both[f.start : f.end] for f in check([Part(text=both)], LISTED).findings] == ["naked"]
    own = keywords.Settings(words=("bomb",), spare=("bath bomb",))
    assert check([Part(text="a bath bomb")], own).findings == ()
    assert check([Part(text="a bomb")], own).action == "block"
    (tmp_path / "w.txt").write_text("bomb\nnot: bath bomb\n")
    assert check([Part(text="a bath bomb")], keywords.Settings(files=(tmp_path / "w.txt",))).findings == ()


def test_a_word_is_held_back_while_it_may_still_be_spared():
    assert undecided("it is naked", LISTED) <= len("it is ")
    assert undecided("it is naked ey", LISTED) <= len("it is ")


def test_a_list_that_does_not_ship_is_an_error():
    with pytest.raises(ValueError, match="Did you mean 'sexual'"):
        keywords.Settings(lists=("sexul",))
    with pytest.raises(ValueError, match="`lists`"):
        keywords.Settings()
