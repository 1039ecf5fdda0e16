"""The source of sounds: whatever way their words are told, each sound comes with its own."""

import io
import json
import zipfile

import numpy as np
import pytest

from genwright.core import Bad, DataError, Row, choose
from genwright.core.rows import read_row
from genwright.media.sound import encoded, sound_of

WAV = encoded(sound_of(np.zeros(800), 8000), ".wav")


def read(path, **options):
    return list(choose("sources", {"source": "audio_folder", "path": str(path), **options}, key="source")())


def filled(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


NEMO = json.dumps({"audio_filepath": "a.wav", "duration": 0.1, "text": "one"})
NAMED = json.dumps({"file_name": "a.wav", "transcription": "one"})


@pytest.mark.parametrize("files", [
    {"metadata.csv": "a|1|one\n", "wavs/a.wav": WAV}, {"manifest.json": NEMO + "\n", "a.wav": WAV},
    {"metadata.jsonl": NAMED + "\n", "a.wav": WAV}, {"metadata.csv": "file_name,text\na.wav,one\n", "a.wav": WAV},
    {"a.WAV": WAV, "a.txt": "one\n"}, {"one/a.wav": WAV},
])  # fmt: skip
def test_words_are_found_wherever_they_stand(files, tmp_path):
    (row,) = read(filled(tmp_path, files))
    assert isinstance(row, Row), row
    assert row.fields["text"] == "one"
    assert row.fields["audio"].read_bytes() == WAV


def test_what_is_missing_is_told(tmp_path):
    found = read(filled(tmp_path, {"metadata.csv": "a|one\nb|two\nbroken\n", "wavs/a.wav": WAV, "wavs/c.wav": WAV}))
    reasons = {row.where: row.reason for row in found if isinstance(row, Bad)}
    assert reasons["wavs/c.wav"] == "no words: there is no row of metadata for it"
    assert "no such sound" in reasons["wavs/b.wav"]
    assert "name|words" in reasons["metadata.csv:3"]
    with pytest.raises(DataError, match="no sounds"):
        read(filled(tmp_path / "none", {"a.txt": "x"}))


def test_a_name_may_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "x.wav").write_bytes(WAV)
    row = json.dumps({"audio_filepath": "../x.wav", "text": "one"})
    found = read(filled(tmp_path / "in", {"manifest.jsonl": row + "\n", "a.wav": WAV}))
    assert any(isinstance(one, Bad) and "leads out" in one.reason for one in found)


def test_an_archive_comes_with_its_bytes_and_the_speaker_is_kept(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.wav", WAV)
        archive.writestr("a.lab", "one")
    (tmp_path / "a.zip").write_bytes(packed.getvalue())
    (row,) = read(tmp_path / "a.zip", speaker="ann")
    assert row.fields == {"text": "one", "audio": WAV, "style": "ann"}


@pytest.mark.parametrize(("options", "count"), [({"include": ["*.ogg"]}, None), ({"transcripts": "none"}, 1)])
def test_options_are_heard(options, count, tmp_path):
    filled(tmp_path, {"a.wav": WAV, "a.txt": "one"})
    if count is None:
        with pytest.raises(DataError):
            read(tmp_path, **options)
    else:
        (row,) = read(tmp_path, **options)
        assert "text" not in row.fields


def test_a_row_teaches_to_speak_or_to_listen_as_the_task_wants(tmp_path):
    (row,) = read(filled(tmp_path, {"a.wav": WAV, "a.txt": "one"}))
    asked, told = read_row(row.fields, gives="audio")[0]
    assert (asked.text, told.parts[0].kind) == ("one", "audio")
    asked, told = read_row(row.fields, gives="text")[0]
    assert (asked.parts[0].kind, told.text) == ("audio", "one")
