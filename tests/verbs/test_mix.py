"""What is mixed of generated sound says so, inside, beside and in the ledger; what is not, does not."""

import json
import os

import numpy as np
import pytest

from genwright.cli.main import main
from genwright.core import DataError, Part, Provenance, UsageError
from genwright.media.sound import WRITES, open_sound, save_sound, sound_of
from genwright.media.sound_label import read_label
from genwright.trust.ledger import Ledger, verify
from genwright.trust.marks import metadata
from genwright.verbs.mix import mix, source_of
from genwright.verbs.provenance import look_up

RATE = 24_000


def sound(path, hertz=300, seconds=1.0):
    return save_sound(sound_of(0.2 * np.sin(hertz * 6.283 * np.arange(round(RATE * seconds)) / RATE), RATE), path)


def generated(path, label=1, producer=metadata.UNREGISTERED, model="hibari", **more):
    part = Part("audio", path=sound(path, **more), meta={"label": label})
    metadata.apply(part, Provenance(model=model, request_id="gw-1"), metadata.Settings(producer=producer))
    return path


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger.jsonl")


@pytest.mark.parametrize("suffix", sorted(WRITES))
def test_a_mix_that_holds_generated_sound_is_labelled_in_every_format(suffix, tmp_path, ledger):
    voice, bed = generated(tmp_path / "voice.wav"), sound(tmp_path / "music.flac", seconds=3)
    found = mix([voice], tmp_path / "out" / f"mix{suffix}", bed=bed, ledger=ledger)
    out = tmp_path / "out" / f"mix{suffix}"
    label = json.loads(read_label(out))
    assert label["Label"] == "1"
    assert label["ProduceID"] not in ("", "gw-1")  # its own
    assert [source["label"] for source in found["sources"]] == ["1", ""]
    beside = json.loads((tmp_path / "out" / f"mix{suffix}.genwright.json").read_text(encoding="utf-8"))
    assert [source["file"] for source in beside["sources"]] == ["voice.wav", "music.flac"]
    (answer,) = look_up(out, ledger=ledger)["answers"]
    assert (answer["model"], answer["request_id"]) == ("hibari", label["ProduceID"])
    assert beside["sha256"] == look_up(out)["sha256"]
    assert verify(ledger.path).ok
    assert found["loudness"] == pytest.approx(-16, abs=0.5)
    assert sorted(os.listdir(out.parent)) == [out.name, f"{out.name}.genwright.json"]


def test_a_mix_of_recordings_carries_no_label(tmp_path, ledger):
    out = tmp_path / "mix.wav"
    generated(out)
    found = mix([sound(tmp_path / "a.wav"), sound(tmp_path / "b.wav")], out, pause=1, ledger=ledger)
    assert (found["label"], read_label(out), list(ledger.rows())) == ("", "", [])
    assert not out.with_name("mix.wav.genwright.json").exists()  # that was of the old file
    assert found["seconds"] == pytest.approx(3)


def test_the_surest_label_and_the_common_producer_are_kept(tmp_path, ledger):
    code = "001191350100M000100Y43ABCDE"
    one, two = generated(tmp_path / "a.wav", 3, code), generated(tmp_path / "b.mp3", 2, code, "kokoro")
    mix([one, two], tmp_path / "mix.flac", ledger=ledger)
    label = json.loads(read_label(tmp_path / "mix.flac"))
    assert (label["Label"], label["ContentProducer"]) == ("2", code)
    (row,) = ledger.rows()
    assert row["model"] == "hibari + kokoro"
    assert len(row["sources"]) == 2


def test_a_file_that_lost_its_label_is_known_by_the_ledger_and_by_what_lies_beside_it(tmp_path, ledger):
    path = sound(tmp_path / "a.wav")
    digest = look_up(path)["sha256"]
    assert source_of(path, ledger).label == ""
    ledger.append("answer", request_id="gw-7", model="hibari", outcome="complete", provenance={"model": "hibari"},
                  answer={"sha256": "", "chars": 0, "files": [digest]})  # fmt: skip
    assert (source_of(path, ledger).label, source_of(path, ledger).model) == ("1", "hibari")


def test_the_command_mixes_and_bad_input_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    voice, out = str(generated(tmp_path / "a.wav")), str(tmp_path / "mix.mp3")
    bed = str(sound(tmp_path / "bed.ogg", seconds=2))
    assert main(["mix", voice, voice, "--bed", bed, "--duck", "6", "--option", "lead=0.5", "-o", out, "--quiet"]) == 0
    assert "labelled" in capsys.readouterr().out
    assert open_sound(tmp_path / "mix.mp3").seconds == pytest.approx(0.5 + 2.5 + 3, abs=0.1)
    for more, code, words in (
        ([str(tmp_path / "none.wav")], 3, "no file"), ([voice, "--duck", "-1"], 2, "duck"),
        ([voice, "--option", "dukc=3"], 2, "duck"), ([voice, "-o", str(tmp_path / "a.wma")], 2, "written as .wma"),
        ([voice, "-o", "/proc/none/a.wav"], 2, "cannot be written"), ([__file__], 3, "no sound"),
    ):  # fmt: skip
        assert main(["mix", *more, "--quiet"]) == code, more
        assert words in capsys.readouterr().err


def test_nothing_is_left_of_a_mix_that_failed(tmp_path, ledger):
    with pytest.raises(UsageError, match="nothing to mix"):
        mix([], tmp_path / "out" / "mix.wav", ledger=ledger)
    with pytest.raises(DataError):
        mix([tmp_path / "none.wav"], tmp_path / "out" / "mix.wav", ledger=ledger)
    with pytest.raises(UsageError):
        mix([sound(tmp_path / "a.wav")], tmp_path / "out" / "mix.xyz", ledger=ledger)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
