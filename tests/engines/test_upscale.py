"""Pictures made larger: tile by tile without seams, in the picture's own colours, alone or after painting."""

import numpy as np
import pytest

from genwright.core import DataError, ModelError, Part, Request, UsageError, find_card, user
from genwright.engines import upscale
from genwright.media import enlarge
from genwright.media.enlarge import Network, corrected, enlarged
from genwright.media.picture import open_picture, save_picture

pytest.importorskip("ncnn")
Image = pytest.importorskip("PIL.Image")
BILINEAR = "7767517\n2 2\nInput data 0 1 data\nInterp up 1 1 data output 0=2 1=4.0 2=4.0\n"
here = pytest.mark.skipif(not find_card("upscale-fast").is_here, reason="genwright models pull upscale-fast")


@pytest.fixture
def folder(tmp_path):
    """A network in ncnn's form, without weights: bilinear interpolation."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "network.param").write_text(BILINEAR)
    (tmp_path / "net" / "network.ncnn").write_bytes(b"")
    return tmp_path / "net"


def smooth(width, height, mode="RGB"):
    y, x = np.mgrid[:height, :width]
    planes = [128 + 100 * np.sin(x / 7 + k) * np.cos(y / 9) for k in range(len(mode))]
    return Image.fromarray(np.stack(planes, 2).astype(np.uint8))


def ask(model, *paths, out=None, **options):
    parts = [Part("image", path=path) for path in paths]
    return list(model.generate(Request(messages=(user("", *parts),), options=options, out=out)))


@pytest.mark.parametrize("size", [(50, 37), (16, 16), (3, 70), (1, 1)])
def test_tiles_show_no_seam_and_sizes_are_right(folder, size):
    picture, network = smooth(*size), Network(folder)
    whole, tiled = (enlarged(picture, network, tile=tile, colours=False) for tile in (1000, 16))
    assert whole.size == (4 * size[0], 4 * size[1])
    difference = np.abs(np.asarray(whole).astype(int) - np.asarray(tiled))
    assert difference.max() <= 1


def test_made_small_again_it_is_the_picture_that_was_given():
    small = np.asarray(smooth(20, 20), np.float32) / 255
    large = np.kron(small, np.ones((4, 4, 1), np.float32)) * 0.9 + 0.03  # a network that shifts colours
    again = corrected(large, small).reshape(20, 4, 20, 4, 3).mean((1, 3))
    before = np.abs(large.reshape(20, 4, 20, 4, 3).mean((1, 3)) - small).mean()
    assert np.abs(again - small).mean() < 0.1 * before


def test_transparency_is_made_larger_too(folder):
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (5, 5, 15, 15))
    made = np.asarray(enlarged(picture, Network(folder)))
    assert made.shape == (80, 80, 4)
    assert made[40, 40].tolist() == [255, 0, 0, 255]
    assert made[2, 2, 3] == 0
    edge = made[40, 18:23]
    assert (edge[edge[:, 3] > 60][:, 1] < 40).all(), "red to the edge, without a white rim"


def test_it_answers_with_one_larger_picture_and_tells_how_far_it_is(folder, tmp_path):
    path = save_picture(smooth(40, 20), tmp_path / "a.png")
    model = upscale.load(folder, upscale.Settings(tile=16))
    parts = ask(model, path, out=tmp_path / "b.png")
    assert [part.meta["progress"] for part in parts if "progress" in part.meta] == [1, 2, 3, 4, 5, 6]
    assert open_picture(tmp_path / "b.png").size == (160, 80)
    assert parts[-1].meta == {"finish_reason": "stop"}
    ask(model, path, out=tmp_path / "c.webp", factor=2.5)
    assert open_picture(tmp_path / "c.webp").size == (100, 50)


def test_options_turn_something(folder, tmp_path):
    path = save_picture(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)), tmp_path / "a.png"
    )
    made = [
        np.asarray(open_picture(ask(upscale.load(folder, upscale.Settings(**one)), path)[-2].path)).astype(int)
        for one in ({}, {"colours": False}, {"threads": 2})
    ]
    assert (made[0] != made[1]).any()
    assert (made[0] == made[2]).all()


def test_what_is_asked_wrongly_is_said(folder, tmp_path, monkeypatch):
    model = upscale.load(folder, upscale.Settings())
    path = save_picture(smooth(40, 20), tmp_path / "a.png")
    with pytest.raises(UsageError, match="there are 2"):
        ask(model, path, path)
    with pytest.raises(UsageError, match="there are 0"):
        ask(model)
    with pytest.raises(UsageError, match="Did you mean 'factor'"):
        ask(model, path, facter=2)
    with pytest.raises(DataError, match="no picture"):
        (tmp_path / "b.png").write_bytes(b"hello")
        ask(model, tmp_path / "b.png")
    monkeypatch.setattr(enlarge, "LARGEST", 10_000)
    with pytest.raises(UsageError, match="more than 10,000 pixels"):
        ask(model, path)
    with pytest.raises(UsageError, match="needs a network"):
        upscale.load(None, upscale.Settings())
    (folder / "network.param").write_text("hello")
    with pytest.raises(ModelError, match="cannot be read"):
        Network(folder)
    (folder / "network.param").unlink()
    with pytest.raises(ModelError, match="is not there"):
        Network(folder)


def test_a_network_that_was_not_fetched_is_said_before_anything_is_painted(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="has not been fetched"):
        enlarge.network_of("fast")


@pytest.mark.weights
@here
def test_edges_are_truer_than_lanczos():
    """A disc whose true picture at 256 pixels is known."""
    y, x = np.mgrid[:256, :256]
    disc = np.where(np.hypot(x - 120, y - 131) < 80, 30, 235).astype(np.uint8)
    truth = Image.fromarray(np.stack([disc] * 3, 2))
    small = truth.resize((64, 64), Image.Resampling.BOX)
    ways = enlarged(small, enlarge.network_of("fast")), small.resize((256, 256), Image.Resampling.LANCZOS)
    network, lanczos = (np.abs(np.asarray(made).astype(int) - np.asarray(truth)).mean() for made in ways)
    assert network < 0.8 * lanczos
