"""`genwright speak` and `genwright transcribe`, as a person at a terminal uses them."""

import json

import numpy as np
import pytest

from genwright.cli.main import main
from genwright.core import find_card
from genwright.media.sound import open_sound, save_sound, sound_of
from genwright.media.sound_label import read_label
from genwright.verbs.subtitles import read_subtitles

pytestmark = pytest.mark.skipif(
    not (find_card("hibari").is_here and find_card("whisper-base").is_here),
    reason="needs `genwright models pull hibari` and `genwright models pull whisper-base`",
)


def test_what_is_spoken_is_written_down_again(tmp_path, capsys):
    sound = tmp_path / "a.mp3"
    assert main(["speak", "The quick brown fox. It jumps.", "-o", str(sound), "--seed", "1", "--speed", "0.9"]) == 0
    assert "a.mp3" in capsys.readouterr().out
    assert open_sound(sound).seconds > 1
    assert '"Label":"1"' in read_label(sound)
    assert main(["transcribe", str(sound)]) == 0
    assert "quick brown fox" in capsys.readouterr().out
    assert main(["transcribe", str(sound), "-o", str(tmp_path / "a.srt"), "--language", "en"]) == 0
    assert "fox" in read_subtitles((tmp_path / "a.srt").read_text(encoding="utf-8"))[0]["text"]
    capsys.readouterr()
    assert (
        main(["transcribe", str(sound), "--json", "--quiet", "--format", "json", "-o", str(tmp_path / "a.json")]) == 0
    )
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    hush = save_sound(sound_of(np.zeros(16_000), 16_000), tmp_path / "hush.wav")
    assert main(["transcribe", str(hush)]) == 0
    assert "Nobody speaks" in capsys.readouterr().err
    assert found["language"] == "en"
    assert found["segments"][0]["end"] > 0


@pytest.mark.parametrize(("command", "code", "words"), [
    (["speak", "🙂"], 2, "nothing to say"), (["speak", "Hi.", "-o", "a.wma"], 2, "cannot be written as .wma"),
    (["speak", "Hi.", "--model", "hibari", "--voice", "x"], 2, "no voice 'x'"),
    (["transcribe", "none.wav"], 3, "no file"), (["transcribe", __file__], 3, "no sound"),
])  # fmt: skip
def test_what_cannot_be_done_is_told(command, code, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(command) == code
    assert words in capsys.readouterr().err
