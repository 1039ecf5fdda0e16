"""`genwright compose`, as a person at a terminal uses it."""

import io
import json
import sys
from xml.etree import ElementTree

import pytest

from genwright.cli.main import main
from genwright.core import find_card
from genwright.media.abc import read_tune
from genwright.media.sound import open_sound
from genwright.media.sound_label import read_label
from genwright.media.xmp import read_xmp
from tests.nn.tunes import KESH, model


@pytest.fixture(scope="module")
def tunes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tunes")
    model(1).save(folder)
    return str(folder)


def test_a_tune_is_written_as_notation(tunes, tmp_path, capsys):
    out = tmp_path / "a.abc"
    asked = ["compose", "a jig in D major", "-o", str(out), "--model", tunes, "--seed", "1", "--metre", "9/8"]
    assert main(asked) == 0
    assert "M:9/8" in capsys.readouterr().out
    tune = read_tune(out.read_text(encoding="utf-8"))
    assert (str(tune.key), tune.metre) == ("D major", "9/8")
    assert {path.suffix for path in tmp_path.iterdir()} >= {".abc", ".mid", ".musicxml"}
    (tmp_path / "kesh.abc").write_text(KESH, encoding="utf-8")
    more = ["--melody", str(tmp_path / "kesh.abc"), "--vary", "--keep", "1", "--json", "--quiet"]
    assert main(["compose", "-o", str(out), "--model", tunes, *more]) == 0
    found = json.loads(capsys.readouterr().out)["tunes"][0]
    assert read_tune(found["abc"]).events == read_tune(KESH).events


def test_words_that_say_nothing_of_a_tune_are_told(tunes, tmp_path, capsys):
    for words, told in (("😀", True), ("a jig", False)):
        assert main(["compose", words, "-o", str(tmp_path / "a.abc"), "--model", tunes, "--seed", "1"]) == 0
        assert ("any tune may come" in capsys.readouterr().err) == told


@pytest.mark.skipif(not find_card("soundfont-gm").is_here, reason="needs `genwright models pull soundfont-gm`")
def test_a_tune_is_heard(tunes, tmp_path, capsys):
    out = tmp_path / "b.ogg"
    assert (
        main(["compose", "a jig", "-o", str(out), "--model", tunes, "--seed", "1", "--tempo", "300", "--chords"]) == 0
    )
    assert open_sound(out).seconds > 1
    assert '"Label":"1"' in read_label(out)
    assert out.with_suffix(".mid").is_file()


def test_a_tune_is_engraved(tunes, tmp_path, capsys):
    pytest.importorskip("verovio")
    pytest.importorskip("resvg_py")
    asked = ["compose", "a jig", "--model", tunes, "--seed", "1", "-n", "2", "--json", "--quiet", "--engrave"]
    for suffix, pictures in ((".abc", (".svg", ".png")), (".svg", (".png",)), (".png", (".svg",))):
        assert main([*asked, "-o", str(tmp_path / f"a{suffix}"), "--title", "A\nX:9\nB"]) == 0
        found = json.loads(capsys.readouterr().out)["tunes"]
        assert [one["file"] for one in found] == [str(tmp_path / f"a-{number}{suffix}") for number in (1, 2)]
        assert found[1]["pictures"] == [str(tmp_path / f"a-2{kind}") for kind in pictures]
        for path in (tmp_path / f"a-2{kind}" for kind in (".svg", ".png")):
            label = json.loads(path.with_name(f"{path.name}.genwright.json").read_text(encoding="utf-8"))
            assert label["AIGC"]["Label"] == "1"
            assert "TC260:AIGC" in read_xmp(path), "inside too"
        assert (tmp_path / "a-2.musicxml").is_file()
    assert ElementTree.fromstring((tmp_path / "a-1.svg").read_text(encoding="utf-8")).tag.endswith("svg")


def test_without_the_engraver_nothing_is_written(tunes, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "verovio", None)
    for more in (["-o", str(tmp_path / "a.svg")], ["-o", str(tmp_path / "a.abc"), "--engrave"]):
        assert main(["compose", "a jig", "--model", tunes, *more]) == 2
        assert "pip install 'genwright[engrave]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.weights
@pytest.mark.skipif(not find_card("hibari").is_here, reason="needs `genwright models pull hibari`")
def test_lyrics_are_words_or_a_file_of_them(tunes, tmp_path, monkeypatch, capsys):
    pytest.importorskip("hibari")
    words = tmp_path / "words.txt"
    words.write_text("\ufeffA boat goes out.\nA boat comes in.\n", encoding="utf-8")
    asked = ["compose", "a waltz", "-o", str(tmp_path / "a.abc"), "--model", tunes, "--seed", "1", "--json", "--quiet"]
    found = []
    for given in (str(words), words.read_text(encoding="utf-8-sig"), "-"):
        monkeypatch.setattr("sys.stdin", io.StringIO(words.read_text(encoding="utf-8-sig")))
        assert main([*asked, "--lyrics", given, *([] if given == "-" else ["--speed", "1.5"])]) == 0
        found.append(json.loads(capsys.readouterr().out)["tunes"][0])
    assert [line["text"] for line in found[0]["lines"]] == ["A boat goes out.", "A boat comes in."]
    assert found[0]["abc"] == found[1]["abc"]
    assert found[2]["lines"][0]["end"] > found[0]["lines"][0]["end"], "it was said slower"
    assert "w: " in (tmp_path / "a.abc").read_text(encoding="utf-8")


@pytest.mark.parametrize(("more", "code", "words"), [
    ([" ", "-o", "a.abc"], 2, "nothing to compose"), (["a jig", "-o", "a.abc", "--key", "H"], 2, "is none"),
    (["a jig", "-o", "a.abc", "--melody", "none.abc"], 2, "cannot be read"),
    (["a jig", "-o", "a.abc", "--option", "steps=3"], 2, "steps"),
    (["a jig", "-o", "a.abc", "--lyrics", "none.txt"], 2, "none.txt cannot be read"),
    (["a jig", "-o", "a.abc", "--lyrics", "...\n[Chorus]"], 2, "hold no words"),
    (["a jig", "-o", "a.abc", "--lyrics", "la la", "--speaker", "elvis"], 2, "hibari"),
])  # fmt: skip
def test_what_cannot_be_done_is_told(tunes, more, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", *more, "--model", tunes]) == code
    assert words in capsys.readouterr().err
