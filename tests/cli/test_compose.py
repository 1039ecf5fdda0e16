"""`genwright compose`, as a person at a terminal uses it."""

import json

import pytest

from genwright.cli.main import main
from genwright.core import find_card
from genwright.media.abc import read_tune
from genwright.media.sound import open_sound
from genwright.media.sound_label import read_label
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


@pytest.mark.skipif(not find_card("soundfont-gm").is_here, reason="needs `genwright models pull soundfont-gm`")
def test_a_tune_is_heard(tunes, tmp_path, capsys):
    out = tmp_path / "b.ogg"
    assert (
        main(["compose", "a jig", "-o", str(out), "--model", tunes, "--seed", "1", "--tempo", "300", "--chords"]) == 0
    )
    assert open_sound(out).seconds > 1
    assert '"Label":"1"' in read_label(out)
    assert out.with_suffix(".mid").is_file()


@pytest.mark.parametrize(("more", "code", "words"), [
    ([" ", "-o", "a.abc"], 2, "nothing to compose"), (["a jig", "-o", "a.abc", "--key", "H"], 2, "is none"),
    (["a jig", "-o", "a.abc", "--melody", "none.abc"], 2, "cannot be read"),
    (["a jig", "-o", "a.abc", "--option", "steps=3"], 2, "steps"),
])  # fmt: skip
def test_what_cannot_be_done_is_told(tunes, more, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compose", *more, "--model", tunes]) == code
    assert words in capsys.readouterr().err
