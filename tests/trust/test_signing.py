"""Signatures: read back, broken by any change, made with the user's own certificate or a given one, offline."""

import hashlib
import json
import stat
import wave

import pytest

from genwright.core import DataError, Part, Provenance, UsageError
from genwright.media.xmp import read_xmp
from genwright.trust import signing
from genwright.trust.marks import c2pa, metadata
from genwright.trust.sidecar import sidecar
from genwright.trust.signing import GENERATED, own_identity, read_signature

pytest.importorskip("c2pa")
FACTS = Provenance(model="m", data="d" * 64, checkpoint="c" * 64, request_id="gw-1", time="2026-01-01T00:00:00Z")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(path):
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(range(256)) * 20)
        return Part("audio", path=path)
    image = pytest.importorskip("PIL.Image")
    image.effect_mandelbrot((64, 48), (-2, -1.5, 1, 1.5), 9).convert("RGB").save(path)
    return Part("image", path=path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.wav"])
def test_a_signed_file_reads_back_keeps_its_label_and_no_byte_may_change(tmp_path, name):
    part = made(tmp_path / name)
    size = part.path.stat().st_size
    part = c2pa.apply(metadata.apply(part, FACTS, metadata.Settings()), FACTS, c2pa.Settings())
    assert part.meta == {"signature": "own"}
    found = read_signature(part.path)
    assert (found.state, found.made_by, found.source_type, found.faults) == ("own", "genwright", GENERATED, ())
    assert "identity not proven" in found.signer
    assert part.path.stat().st_size < size + 8000, "no thumbnail"
    if name != "a.wav":
        assert "<TC260:AIGC>" in read_xmp(part.path)
    beside = json.loads(sidecar(part.path).read_text())
    assert beside["sha256"] == hashlib.sha256(part.path.read_bytes()).hexdigest()
    assert list(beside) == ["file", "sha256", "AIGC", "provenance"]
    data = bytearray(part.path.read_bytes())
    data[-30] ^= 1
    part.path.write_bytes(data)
    assert read_signature(part.path).state == "invalid"


def test_signing_again_puts_one_manifest_in_place_of_the_other(tmp_path):
    part = made(tmp_path / "a.png")
    once = c2pa.apply(part, FACTS, c2pa.Settings()).path.stat().st_size
    twice = c2pa.apply(metadata.apply(part, FACTS, metadata.Settings()), FACTS, c2pa.Settings())
    assert read_signature(part.path).state == "own"
    assert twice.path.stat().st_size < once + 2500, "the label, not a second manifest"


def test_keys_are_nobody_elses_and_stay_the_same(tmp_path, home):
    first = own_identity()
    assert own_identity() == first
    for name in ("authority.key", "signer.key"):
        assert stat.S_IMODE((home / "state" / "signing" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "state" / "signing").stat().st_mode) == 0o700


def test_a_certificate_that_runs_out_is_renewed_by_the_same_authority(tmp_path, home, monkeypatch):
    part = made(tmp_path / "a.png")
    monkeypatch.setattr(signing, "_SIGNER_DAYS", 20)  # fewer than are left when it is renewed
    first = own_identity()
    c2pa.apply(part, FACTS, c2pa.Settings())
    monkeypatch.undo()
    monkeypatch.setenv("GENWRIGHT_HOME", str(home))
    assert own_identity().key != first.key
    assert read_signature(part.path).state == "own"


def test_a_file_signed_elsewhere_is_valid_and_no_more(tmp_path, home, monkeypatch):
    part = made(tmp_path / "a.png")
    c2pa.apply(part, FACTS, c2pa.Settings())
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "another"))
    assert read_signature(part.path).state == "valid"
    own_identity()
    assert read_signature(part.path).state == "valid"


def test_a_given_certificate_signs_and_must_fit_its_key(tmp_path, home):
    identity, signers = own_identity(), home / "state" / "signing"
    (tmp_path / "chain.pem").write_bytes(identity.chain)
    settings = c2pa.Settings(certificate=tmp_path / "chain.pem", key=signers / "signer.key")
    part = c2pa.apply(made(tmp_path / "a.png"), FACTS, settings)
    assert part.meta == {"signature": "own"}
    assert c2pa.warning(settings) == ""
    assert "not who made them" in c2pa.warning(c2pa.Settings())
    wrong = c2pa.Settings(certificate=tmp_path / "chain.pem", key=signers / "authority.key")
    with pytest.raises(UsageError, match="is not the key"):
        c2pa.apply(part, FACTS, wrong)
    not_a_signer = c2pa.Settings(certificate=signers / "authority.crt", key=signers / "authority.key")
    before = part.path.read_bytes()
    with pytest.raises((UsageError, DataError)):
        c2pa.apply(part, FACTS, not_a_signer)
    assert part.path.read_bytes() == before
    with pytest.raises(ValueError, match="or neither"):
        c2pa.Settings(key=signers / "signer.key")


def test_what_cannot_carry_a_signature_is_said_and_words_pass(tmp_path):
    words = Part(text="hello", path=tmp_path / "a.txt")
    assert c2pa.apply(words, FACTS, c2pa.Settings()) == words
    (tmp_path / "a.ogg").write_bytes(b"OggS")
    with pytest.raises(DataError, match=r"a\.ogg cannot carry a signature"):
        c2pa.apply(Part("audio", path=tmp_path / "a.ogg"), FACTS, c2pa.Settings())
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\ncut")
    with pytest.raises(DataError, match="cannot be signed"):
        c2pa.apply(Part("image", path=tmp_path / "a.png"), FACTS, c2pa.Settings())
    assert read_signature(tmp_path / "a.ogg").state == ""


def test_marks_come_in_their_order():
    from genwright.core import choose
    from genwright.verbs.generate import _comes_last

    marks = [choose("marks", name) for name in ("c2pa", "metadata", "visible")]
    assert [mark.name for mark in sorted(marks, key=_comes_last)] == ["visible", "metadata", "c2pa"]
