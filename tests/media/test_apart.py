"""Pictures from strangers are decoded apart (R28): the same pictures, the same errors; what breaks it is replaced."""

import dataclasses
import io
import os
import signal

import numpy as np
import pytest
from PIL import Image

from genwright.core import DataError
from genwright.media import apart
from genwright.media.apart import look_given, open_given
from genwright.media.picture import Limits, TooLarge, open_picture

pytest.importorskip("resource")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8))


def file_of(image, form="PNG", **more):
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


KINDS = {
    **{form: file_of(NOISE, form) for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")},
    "transparent": file_of(NOISE.convert("RGBA").rotate(30, fillcolor=(0, 0, 0, 0))),
    "palette": file_of(NOISE.quantize(16)),
    "palette, transparent": file_of(NOISE.quantize(16), transparency=3),
    "grey": file_of(NOISE.convert("L")),
    "16 bits": file_of(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)),
    "CMYK": file_of(NOISE.convert("CMYK"), "JPEG"),
    "profile": file_of(NOISE, icc_profile=pytest.importorskip("PIL.ImageCms").ImageCmsProfile(
        pytest.importorskip("PIL.ImageCms").createProfile("sRGB")).tobytes()),
    "upright": file_of(NOISE, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "LZW": file_of(NOISE, "TIFF", compression="tiff_lzw"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_the_same_as_when_it_is_decoded_here(kind):
    here, there = open_picture(KINDS[kind]), open_given(KINDS[kind])
    assert (here.mode, here.size, here.tobytes()) == (there.mode, there.size, there.tobytes())
    facts = look_given(KINDS[kind])
    assert (facts["width"], facts["height"], facts["mode"]) == (*here.size, here.mode)


WRONG = {
    "no picture": b"hello",
    "empty": b"",
    "cut off": KINDS["PNG"][:700],
    "moving": file_of(NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(9)]),
    "too many pixels": file_of(Image.new("1", (6000, 6000))),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_error_is_the_same_too(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(WRONG[kind])
    for source in (WRONG[kind], tmp_path / "a.png", tmp_path / "none.png"):
        with pytest.raises(DataError) as here:
            open_picture(source)
        with pytest.raises(DataError) as there:
            open_given(source)
        assert type(there.value) is type(here.value)
        assert (there.value.message, there.value.hint) == (here.value.message, here.value.hint)
    with pytest.raises(TooLarge, match=r"5 are read"):
        look_given(KINDS["PNG"], limits=Limits(bytes=5))


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="4" cy="4" r="3" fill="red"/></svg>'


def test_drawings_are_drawn_apart():
    assert open_given(SVG, drawn=40).tobytes() == open_picture(SVG, drawn=40).tobytes()
    assert look_given(SVG)["suffix"] == ".svg"
    with pytest.raises(DataError, match="no SVG"):
        open_given(b"<?xml version='1.0'?><p/>")


def test_one_worker_answers_all_and_is_replaced_when_it_dies(monkeypatch):
    open_given(KINDS["PNG"])
    first = apart._Worker.one.process.pid
    look_given(KINDS["JPEG"])
    assert apart._Worker.one.process.pid == first
    os.kill(first, signal.SIGKILL)
    apart._Worker.one.process.wait()
    assert open_given(KINDS["PNG"]).size == (40, 30)
    assert apart._Worker.one.process.pid != first


@pytest.fixture
def bounded(monkeypatch):
    """A worker within other bounds, for one test."""

    def bound(**less):
        monkeypatch.setattr(apart, "BOUNDS", dataclasses.replace(apart.Bounds(), **less))
        monkeypatch.setattr(apart._Worker, "one", None)

    yield bound
    if apart._Worker.one:
        apart._Worker.one.close()


def test_a_picture_that_takes_more_memory_than_it_may_is_refused_and_the_next_is_opened(bounded):
    bounded(memory=60_000_000)
    large = file_of(Image.new("RGB", (4800, 4800)))
    with pytest.raises(DataError, match=r"does not fit into memory|broke the process"):
        open_given(large)
    assert open_given(KINDS["PNG"]).size == (40, 30)


def test_a_picture_that_takes_too_long_is_refused_and_the_next_is_opened(bounded):
    open_given(KINDS["PNG"])
    bounded(seconds=0.0)
    with pytest.raises(DataError, match="took too long"):
        open_given(KINDS["PNG"])
    bounded()
    assert open_given(KINDS["PNG"]).size == (40, 30)


def test_seconds_of_cpu_end_the_worker(bounded):
    bounded(cpu=0)
    with pytest.raises(DataError, match="took too long"):
        for _ in range(40):
            open_given(_slow(), drawn=4000)


def _slow():
    inside = "".join(f'<circle cx="{i % 90}" cy="{i % 70}" r="60" opacity="0.1"/>' for i in range(3000))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 99 99">{inside}</svg>'.encode()


def test_the_worker_opens_no_file(tmp_path):
    """Asked to read a file of the machine (which no caller does), it cannot."""
    import subprocess
    import sys

    code = (
        "from genwright.media import apart; apart._warm(); apart._limit(10**9)\n"
        f"try: open({str(tmp_path)!r} + '/x', 'w')\nexcept OSError as error: print(error.errno)"
    )
    path = {"PYTHONPATH": os.pathsep.join(filter(None, __import__("sys").path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path, check=True)
    assert done.stdout.strip() == "24", "EMFILE"


def test_where_no_process_can_be_started_pictures_are_opened_here(bounded, monkeypatch):
    bounded()
    monkeypatch.setattr(apart.sys, "executable", "/nowhere/python")
    assert open_given(KINDS["PNG"]).size == (40, 30)
    with pytest.raises(DataError, match="no picture"):
        open_given(b"hello")


def test_without_limits_of_the_system_pictures_are_opened_here(monkeypatch):
    monkeypatch.setattr(apart, "_can", lambda: False)
    monkeypatch.setattr(apart, "_Worker", None)
    assert open_given(KINDS["PNG"]).size == (40, 30)
    assert look_given(KINDS["PNG"])["suffix"] == ".png"
    assert open_given(SVG, drawn=8).size == (8, 8)
