"""Copied pictures: simulated copies are caught, what is new is not."""

import numpy as np
import pytest

from genwright.core import Example, Judged, Part, UsageError, assistant, choose, user
from genwright.media.picture import save_picture

RANDOM = np.random.default_rng


def blots(count, seed, side=32):
    """Soft coloured blots, uint8 (count, side, side, 3): each unlike the others, as pictures are."""
    random = RANDOM(seed)
    coarse = random.integers(0, 256, (count, 4, 4, 3)).astype(np.float32)
    return coarse.repeat(side // 4, 1).repeat(side // 4, 2).astype(np.uint8)


def noisy(images, seed, spread=6):
    noise = RANDOM(seed).normal(0, spread, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def files(folder, images):
    return [save_picture(image, folder / f"{number:04d}.png") for number, image in enumerate(images)]


def example(path):
    return Example((user("a blot"), assistant(Part(kind="image", path=path))))


def judged(made, true):
    return [Judged(example(t), assistant(Part(kind="image", path=m))) for m, t in zip(made, true, strict=True)]


def judge(name, pairs, train, settings=None, **context):
    given = {"bootstrap": 50, "train": [example(path) for path in train], **context}
    return choose("metrics", {"name": name, **(settings or {})})(pairs, **given)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return {
        "train": files(folder / "train", blots(300, 1)), "held_out": files(folder / "held_out", blots(200, 2)),
        "new": files(folder / "new", blots(200, 3)), "copies": files(folder / "copies", noisy(blots(300, 1), 4)[:60]),
        "mirrored": files(folder / "mirrored", noisy(blots(300, 1), 5)[:60, :, ::-1]),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["copies", "mirrored"])
def test_noisy_copies_are_all_caught(sets, kind):
    held_out = [example(path) for path in sets["held_out"]]
    score = judge("copied_pictures", judged(sets[kind], sets["held_out"][:60]), sets["train"], held_out=held_out)
    assert score.value == 1
    assert score.details["median_distance"] < score.details["threshold"] / 2


def test_what_is_new_scores_as_held_out_pictures_do(sets):
    held_out = [example(path) for path in sets["held_out"]]
    score = judge("copied_pictures", judged(sets["new"], sets["held_out"]), sets["train"], held_out=held_out)
    assert score.details["references"] == pytest.approx(0.05)
    assert score.low <= 0.05 <= score.high
    assert score.details["held_out"] == 200
    assert set(score.each) == {0.0, 1.0}


def test_half_copies_are_half(sets):
    made = sets["copies"][:30] + sets["new"][:30]
    score = judge("copied_pictures", judged(made, sets["held_out"][:60]), sets["train"])
    assert score.value == pytest.approx(0.5, abs=0.07)
    assert score.higher_is_better is False


def test_without_training_pictures_nothing_can_be_copied(sets):
    with pytest.raises(UsageError, match="No training row"):
        judge("copied_pictures", judged(sets["new"], sets["held_out"]), [])


def test_the_percentile_says_how_near_a_copy_is(sets):
    pairs = judged(sets["new"], sets["held_out"])
    assert judge("copied_pictures", pairs, sets["train"], {"percentile": 50}).value > 0.3


def test_the_nearest_answers_are_shown_beside_their_twins(sets):
    made = sets["copies"][:3] + sets["new"][:57]
    score = judge("copied_pictures", judged(made, sets["held_out"][:60]), sets["train"], {"shown": 3})
    assert {line[0].path for line in score.sheet} == set(made[:3])
    for copy, twin in score.sheet:
        assert twin.path == sets["train"][made.index(copy.path)]
        assert twin.text.endswith("a copy")
    assert judge("copied_pictures", judged(made, sets["held_out"][:60]), sets["train"], {"shown": 0}).sheet == ()
    assert score.beside == {"held-out pictures": score.details["references"]}
