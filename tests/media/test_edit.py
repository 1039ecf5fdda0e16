"""A picture that is given: what must stay stays bit for bit, and what does not fit is said."""

import numpy as np
import pytest
from PIL import Image

from genwright.core import Part, UsageError, user
from genwright.media.edit import canvas_of, finished


def picture(path, size=(30, 20), mode="RGB", seed=0):
    bands = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)
    return path


def mask_of(path, free, *, transparent=False):
    if transparent:
        pixels = np.dstack([np.zeros((*free.shape, 3), np.uint8), np.where(free, 0, 255).astype(np.uint8)])
    else:
        pixels = np.where(free, 255, 0).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def asked(picture, mask=None, words="a hat"):
    parts = [Part("image", path=picture), *([Part("image", "mask", mask)] if mask else [])]
    return [user(words, *parts)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("transparent", [True, False])
def test_outside_the_mask_nothing_changes(tmp_path, mode, transparent):
    free = np.zeros((20, 30), bool)
    free[5:12, 8:21] = True
    given = picture(tmp_path / "p.png", mode=mode)
    (canvas,) = canvas_of(asked(given, mask_of(tmp_path / "m.png", free, transparent=transparent)))
    painted = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    before, after = np.asarray(Image.open(given)), np.asarray(canvas.filled(painted))
    assert after.shape == before.shape
    assert (after[~free] == before[~free]).all()
    assert (after[free][:, :3] != before[free][:, :3]).mean() > 0.9
    assert mode == "RGB" or (after[free][:, 3] == 255).all()


def test_a_model_sees_a_square_with_white_around(tmp_path):
    (canvas,) = canvas_of(asked(picture(tmp_path / "p.png", (40, 20))))
    seen, free = canvas.small(16)
    assert seen.shape == (16, 16, 3)
    assert free.dtype == bool
    assert (seen[:2] > 250).all()
    assert (seen[7:9] < 250).any()
    assert not free[:2].any(), "what stands around the picture is not painted upon"
    assert canvas.is_free


def test_added_room_is_free_and_the_picture_stays(tmp_path):
    given = picture(tmp_path / "p.png")
    (canvas,) = canvas_of(asked(given), (4, 3, 2, 1))
    after = np.asarray(canvas.filled(np.zeros((8, 8, 3), np.uint8)))
    assert after.shape == (24, 36, 3)
    assert (after[3:23, 4:34] == np.asarray(Image.open(given))).all()
    assert (after[:3] == 0).all()
    assert not canvas.is_free


def test_what_does_not_fit_is_said(tmp_path):
    given, free = picture(tmp_path / "p.png"), np.ones((20, 30), bool)
    with pytest.raises(UsageError, match=r"differ in size: 30×21 and 30×20"):
        canvas_of(asked(given, mask_of(tmp_path / "m.png", np.ones((21, 30), bool))))
    with pytest.raises(UsageError, match="no change anywhere"):
        canvas_of(asked(given, mask_of(tmp_path / "m.png", ~free)))
    with pytest.raises(UsageError, match="needs one picture, and there are 0"):
        canvas_of([user("a hat")], (1, 0, 0, 0))
    with pytest.raises(UsageError, match="needs one picture, and there are 0"):
        canvas_of([user(Part("image", "mask", given))])
    with pytest.raises(UsageError, match="At most two"):
        canvas_of([user(*[Part("image", path=given)] * 3)])
    with pytest.raises(UsageError, match="more than 24,000,000 pixels"):
        canvas_of(asked(given), (4096, 4096, 4096, 4096))


def test_another_size_is_made_on_request():
    painted = np.zeros((8, 8, 3), np.uint8)
    assert finished(painted, None).size == finished(painted, 8).size == (8, 8)
    assert finished(painted, 20).size == (20, 20)
