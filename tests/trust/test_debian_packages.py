"""Cards may fetch out of Debian packages: all that one holds, or a file of it, checked like any other."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest

from genwright.core import Card, ModelError
from genwright.trust.fetch import fetch

WORDS = b"digits/1: one\n"


def package(path, broken=False):
    """A .deb as dpkg-deb makes it: an ar archive of three members, each on an even byte."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        entry = tarfile.TarInfo("./usr/share/words.txt")
        entry.size = len(WORDS)
        archive.addfile(entry, io.BytesIO(WORDS))
    whole = b"!<arch>\n"
    for name, content in [("debian-binary", b"2.0\n\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())]:
        size = b"ten" if broken and name == "control.tar.xz" else str(len(content)).encode()
        head = name.encode().ljust(16) + b"0".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8) + size.ljust(10)
        whole += head + b"`\n" + content + b"\n" * (len(content) % 2)
    path.write_bytes(whole)
    return data.getvalue()


def card(source, content):
    digest = hashlib.sha256(content).hexdigest()
    return Card.model_validate({
        "name": "words", "kind": "dataset", "title": "Words", "licence": "MIT",
        "files": [{"name": "words.txt", "sha256": digest, "size": len(content), "sources": [source]}],
    })  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path / "home"))


def test_a_file_of_a_package_and_all_that_it_holds(tmp_path):
    archive = package(tmp_path / "a.deb")
    folder = fetch(card(f"file:{tmp_path / 'a.deb'}#usr/share/words.txt", WORDS))
    assert (folder / "words.txt").read_bytes() == WORDS
    whole = fetch(card(f"file:{tmp_path / 'a.deb'}#data.tar.xz", archive))
    assert (whole / "words.txt").read_bytes() == archive


@pytest.mark.parametrize(("member", "broken"), [("usr/share/other.txt", False), ("usr/share/words.txt", True)])
def test_a_package_that_does_not_hold_it_or_is_broken(tmp_path, member, broken):
    package(tmp_path / "a.deb", broken)
    with pytest.raises(ModelError, match=r"is not a sound archive|headers are broken"):
        fetch(card(f"file:{tmp_path / 'a.deb'}#{member}", WORDS))


def test_without_apt_it_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ModelError, match="apt-get is not installed"):
        fetch(card("deb:words==1.0#usr/share/words.txt", WORDS))
    with pytest.raises(ValueError, match="must name its version"):
        card("deb:words#usr/share/words.txt", WORDS)


def test_a_package_brought_by_hand_is_looked_into(tmp_path):
    package(tmp_path / "a.deb")
    folder = fetch(card("deb:words==1.0#usr/share/words.txt", WORDS), given=tmp_path / "a.deb")
    assert (folder / "words.txt").read_bytes() == WORDS
