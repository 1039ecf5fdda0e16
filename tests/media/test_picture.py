"""Pictures from outside are opened within limits (R28), written whole and drawn the same everywhere."""

import io
import json
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from genwright.core import DataError
from genwright.media import picture
from genwright.media.picture import (
    XMP,
    Limits,
    TooLarge,
    as_array,
    contact_sheet,
    encoded,
    open_picture,
    picture_facts,
    rasterise,
    rgb,
    save_picture,
    thumbnail,
)


def file_of(image, form="PNG", **more):
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def noise(width=40, height=30, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def png_that_claims(width, height, rows=b""):
    """A PNG whose header claims a size; `rows` are its unpacked lines."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed = zlib.compress(rows or bytes(width // 8 + 1) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (40_000, 40_000), (24_000_001, 1)])
def test_a_bomb_is_refused_by_its_header_before_anything_is_decoded(width, height, monkeypatch):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    bomb = png_that_claims(width, height, b"\0")
    with warnings.catch_warnings(), pytest.raises(TooLarge, match="pixels") as caught:
        warnings.simplefilter("error")
        open_picture(bomb)
    assert caught.value.status == 413
    assert caught.value.hint


def test_limits_of_pixels_and_bytes_are_those_that_are_asked_for():
    data = file_of(noise())
    assert open_picture(data, limits=Limits(pixels=1200)).size == (40, 30)
    with pytest.raises(TooLarge, match=r"40 × 30 pixels; 1,199 are read"):
        open_picture(data, limits=Limits(pixels=1199))
    with pytest.raises(TooLarge, match="bytes"):
        open_picture(data, limits=Limits(bytes=len(data) - 1))


def test_a_large_file_is_refused_without_being_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(TooLarge, match="1,000,000,000,000 bytes"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_that_breaks_off_or_is_damaged_is_a_clear_error(form):
    data = file_of(noise(200, 200), form)
    for cut in (10, len(data) // 2):
        with pytest.raises(DataError, match=r"no picture|cut off"):
            open_picture(data[:cut])
    chance = np.random.default_rng(1)
    for _ in range(60):  # whatever is flipped, it opens or is named; nothing else escapes
        bad = bytearray(data)
        for place in chance.integers(0, min(len(bad), 400), 4):
            bad[place] = chance.integers(256)
        with suppress(DataError):
            open_picture(bytes(bad))


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"<sv", b"%PDF-1.4", b"\xff\xd8\xff", b"BM"])
def test_what_is_no_picture_is_named(data, tmp_path):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="no picture"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="cannot be read"):
        open_picture(tmp_path / "none.png")


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_moving_pictures_are_refused_or_give_their_first_frame(form):
    frames = [noise(seed=seed) for seed in range(3)]
    data = file_of(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    with pytest.raises(DataError, match="moving"):
        open_picture(data)
    first = np.asarray(open_picture(data, limits=Limits(first_frame=True))).astype(int)
    assert abs(first - np.asarray(frames[0])).mean() < 12  # a GIF has 256 colours


# -- what is opened ----------------------------------------------------------------------------------------------------


def test_16_bit_greys_are_scaled_not_cut_off():
    deep = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16))
    for form in ("PNG", "TIFF"):
        opened = np.asarray(open_picture(file_of(deep, form)))
        assert opened.shape == (16, 16, 3)
        assert opened[0, 0, 0] == 0
        assert opened[-1, -1, 0] == 255
        assert abs(opened[8, 0, 0].astype(int) - 128) <= 1


def test_samples_without_a_range_are_refused():
    with pytest.raises(DataError, match="32-bit"):
        open_picture(file_of(Image.new("F", (4, 4), 0.5), "TIFF"))


def test_cmyk_palettes_and_greys_become_rgb():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.allclose(np.asarray(open_picture(file_of(red, "JPEG"))), (255, 0, 0), atol=3)
    assert open_picture(file_of(Image.new("P", (4, 4)))).mode == "RGB"
    assert open_picture(file_of(Image.new("1", (4, 4), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_transparency_is_kept_where_there_is_any_and_laid_on_a_background():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_picture(file_of(clear)).mode == "RGBA"
    assert rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    assert rgb(clear, "black").getpixel((0, 0)) == (0, 0, 0)
    assert open_picture(file_of(Image.new("RGBA", (4, 4), (1, 2, 3, 255)))).mode == "RGB"
    by_palette = file_of(Image.new("P", (4, 4), 0), "PNG", transparency=0)
    assert open_picture(by_palette).getpixel((0, 0))[3] == 0


def test_a_camera_s_turn_is_undone_and_its_notes_are_dropped():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    opened = open_picture(file_of(noise(40, 20), "JPEG", exif=exif))
    assert opened.size == (20, 40)
    assert not opened.info


def test_colours_are_converted_from_the_picture_s_own_profile():
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * 20, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12], profile[red + 4 : red + 12],
    )  # fmt: skip
    data = file_of(Image.new("RGB", (4, 4), (255, 0, 0)), icc_profile=bytes(profile))
    found = open_picture(data).getpixel((0, 0))
    assert found[1] > 200 > 100 > found[0]  # its red is our green
    assert open_picture(file_of(noise(), icc_profile=b"nonsense")).size == (40, 30)


def test_facts_come_from_the_header_alone(monkeypatch):
    data = file_of(noise(), "JPEG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    assert picture_facts(data) == {"width": 40, "height": 30, "suffix": ".jpg"}


# -- what a network sees -----------------------------------------------------------------------------------------------


def test_an_array_is_padded_with_white_or_loses_its_edges():
    wide = Image.new("RGB", (40, 20), (255, 0, 0))
    padded = as_array(file_of(wide), 16)
    assert padded.shape == (16, 16, 3)
    assert padded.dtype == np.uint8
    assert (padded[0] == 255).all()
    assert (padded[8] == (255, 0, 0)).all()
    assert (as_array(file_of(wide), 16, fit="crop") == (255, 0, 0)).all()
    same = noise(16, 16)
    assert (as_array(file_of(same), 16) == np.asarray(same)).all()


def test_thumbnails_of_near_copies_lie_near_each_other():
    one, other = noise(64, 64, 1).resize((16, 16)).resize((64, 64)), noise(64, 64, 2).resize((16, 16)).resize((64, 64))
    noisy = np.clip(np.asarray(one) + np.random.default_rng(0).normal(0, 6, (64, 64, 3)), 0, 255).astype(np.uint8)
    assert np.linalg.norm(thumbnail(one) - thumbnail(Image.fromarray(noisy))) < 0.3
    assert np.linalg.norm(thumbnail(one) - thumbnail(other)) > 0.6


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_metadata_is_read_back_and_the_same_pixels_give_the_same_bytes(tmp_path, suffix):
    told = {"prompt": "a cat — 猫", XMP: "<x:xmpmeta>…</x:xmpmeta>"}
    path = save_picture(np.asarray(noise()), tmp_path / "in" / f"a{suffix}", metadata=told)
    assert path.read_bytes() == encoded(noise(), suffix, metadata=told)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with Image.open(path) as image:
        image.load()
        if suffix == ".png":
            assert image.info["prompt"] == told["prompt"]
            assert image.info[XMP] == told[XMP]
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert json.loads(comment[8:]) == {"prompt": told["prompt"]}
            assert image.info["xmp"].decode() == told[XMP]


def test_quality_and_suffix_are_minded(tmp_path):
    assert len(encoded(noise(), ".jpg", quality=30)) < len(encoded(noise(), ".jpg"))
    with pytest.raises(DataError, match=r"not written as \.gif"):
        save_picture(noise(), tmp_path / "a.gif")


def test_a_sheet_holds_every_picture_with_its_caption(tmp_path):
    path = contact_sheet(
        [noise(), None, noise(seed=2)], ["a cat", "nothing", "一只非常可爱的猫 " * 3], tmp_path / "sheet.png", columns=2
    )
    with Image.open(path) as sheet:
        field = np.asarray(sheet.convert("RGB"))
    assert len(np.unique(field[10:90, 10:90].reshape(-1, 3), axis=0)) > 100
    assert contact_sheet([], [], tmp_path / "empty.png").is_file()


# -- SVG ---------------------------------------------------------------------------------------------------------------

NAMES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def test_a_drawing_fills_a_square_and_stays_clear_beside_it():
    drawn = np.asarray(
        rasterise(f'<svg {NAMES} width="20" height="10"><rect width="20" height="10" fill="red"/></svg>', 32)
    )
    assert drawn.shape == (32, 32, 4)
    assert tuple(drawn[16, 16]) == (255, 0, 0, 255)
    assert drawn[0, 0, 3] == 0


def test_a_drawing_reads_no_file_and_no_font(tmp_path):
    path = save_picture(Image.new("RGB", (8, 8), "red"), tmp_path / "a.png")
    links = (f'href="{path}"', f'href="file://{path}"', f'xlink:href="{path}"')
    for inside in (*(f'<image width="8" height="8" {link}/>' for link in links), '<text y="8" font-size="8">A</text>'):
        drawn = rasterise(f'<svg {NAMES} viewBox="0 0 8 8">{inside}</svg>', 8)
        assert drawn.getextrema()[3] == (0, 0)


def bomb(levels, link):
    nested = "".join(f'<g id="a{i}">{link(i - 1) * 10}</g>' for i in range(1, levels))
    return f'<svg {NAMES} viewBox="0 0 9 9"><g id="a0"><rect width="1" height="1"/></g>{nested}{link(levels - 1)}</svg>'


@pytest.mark.parametrize("svg", [
    bomb(9, lambda i: f'<use href="#a{i}"/>'),
    bomb(9, lambda i: f'<rect width="9" height="9" mask="url(#a{i})"/>'),
    bomb(9, lambda i: f'<rect width="9" height="9" style="clip-path: url( \'#a{i}\')"/>'),
    f"<svg {NAMES}>{'<g>' * 5000}{'</g>' * 5000}</svg>",
    f"<svg {NAMES}>{' ' * 3_000_000}</svg>",
])  # fmt: skip
def test_drawings_that_grow_without_bound_are_refused(svg):
    with pytest.raises(TooLarge):
        rasterise(svg, 16)


@pytest.mark.parametrize(
    "svg", ["", "<html/>", "not xml", '<!DOCTYPE a [<!ENTITY x "y">]><svg/>', f"<svg {NAMES}><g></svg>"]
)
def test_what_is_no_drawing_is_named(svg):
    with pytest.raises(DataError) as caught:
        rasterise(svg, 16)
    assert caught.value.hint


def test_a_drawing_that_names_itself_is_drawn_without_it():
    assert rasterise(f'<svg {NAMES} viewBox="0 0 9 9"><g id="a"><use href="#a"/></g></svg>', 9).size == (9, 9)


def test_the_library_s_panic_is_an_error_like_others(monkeypatch):
    import resvg_py

    class PanicException(BaseException):
        pass

    def panic(**_):
        raise PanicException("no size")

    monkeypatch.setattr(resvg_py, "svg_to_bytes", panic)
    with pytest.raises(DataError, match="no size"):
        rasterise(f"<svg {NAMES}/>", 9)
    assert picture.LIMITS.pixels == 24_000_000


def test_a_drawing_is_a_picture_like_others(tmp_path):
    svg = f'<?xml version="1.0"?><svg {NAMES} viewBox="0 0 8 8"><path d="M0 4h8" stroke="red" stroke-width="2"/></svg>'
    (tmp_path / "a.svg").write_text(svg, encoding="utf-8-sig")
    image = open_picture(tmp_path / "a.svg")
    assert (image.mode, image.size) == ("RGBA", (128, 128))
    assert open_picture(svg.replace("M0 4h8", "M-9 4h50M0 0h9M0 8h9").encode()).mode == "RGBA"
    assert picture_facts(tmp_path / "a.svg") == {"width": 128, "height": 128, "suffix": ".svg"}
    assert as_array(tmp_path / "a.svg", 16)[8, 8].tolist() == [255, 0, 0]
    with pytest.raises(DataError, match="no picture"):
        open_picture(tmp_path / "a.svg", limits=Limits(drawings=False))
    for data, why in (
        (b"<svg>\xff\xff", "UTF-8"),
        (b"<svg " + b" " * 3_000_000, "bytes"),
        (b"<?xml?><html/>", "no SVG"),
    ):
        with pytest.raises(DataError, match=why):
            open_picture(data)
