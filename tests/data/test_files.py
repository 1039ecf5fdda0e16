"""What a path stands for, and that nothing harmful comes out of an archive."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from genwright.core import Bad, DataError
from genwright.data import files
from genwright.data.files import find_files, numbered_lines, open_file


def names(path, include=("*",)):
    return [found.name for found in find_files(path, include) if not isinstance(found, Bad)]


def content(path, include=("*",)):
    held = {}
    for found in find_files(path, include):
        if not isinstance(found, Bad):
            with found.open() as stream:
                held[found.name] = stream.read()
    return held


@pytest.fixture
def folder(tmp_path):
    for name in ("b.txt", "a.txt", "deep/c.txt", "deep/d.md"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "texts"


def test_a_file_a_folder_and_a_glob(folder):
    assert names(folder / "a.txt") == ["a.txt"]
    assert names(folder, ("*.txt",)) == ["a.txt", "b.txt", "deep/c.txt"]
    assert names(folder, ("deep/*",)) == ["deep/c.txt", "deep/d.md"]
    assert names(folder / "*" / "*.md") == ["deep/d.md"]


def test_archives_give_what_a_folder_would(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(folder, ".")
    expected = {name: name.encode() for name in ("a.txt", "b.txt", "deep/c.txt")}
    assert content(tmp_path / "x.whl", ("*.txt",)) == expected
    assert {n.removeprefix("./"): c for n, c in content(tmp_path / "x.tgz", ("*.txt",)).items()} == expected


@pytest.mark.parametrize(("name", "said"), [
    ("trian.jsonl", "Did you mean 'train.jsonl'"), ("no/such/folder/x.jsonl", "no folder"),
    ("*.nothing", "No file matches"),
])  # fmt: skip
def test_a_missing_file_names_its_nearest_neighbour(tmp_path, name, said):
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError) as caught:
        names(tmp_path / name)
    assert said in caught.value.message + caught.value.hint


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        open_file(tmp_path)
    with pytest.raises(DataError, match="No file in"):
        names(tmp_path, ("*.txt",))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_says_so(tmp_path):
    path = tmp_path / "secret.jsonl"
    path.write_text("{}")
    path.chmod(0)
    with pytest.raises(DataError, match="may not be read"):
        open_file(path)


def test_lines_are_numbered_and_a_long_one_is_passed_over_unheld():
    data = b"one\n" + b"x" * 5_000_000 + b"\nthree\n\nfive"
    lines = list(numbered_lines(io.BytesIO(data), limit=1000))
    assert lines == [(1, b"one"), (2, None), (3, b"three"), (4, b""), (5, b"five")]
    assert list(numbered_lines(io.BytesIO(b"x" * 5_000_000), limit=1000)) == [(1, None)]


# -- R26: bombs and slips --------------------------------------------------------------------------------------------


def drain(path):
    for found in find_files(path):
        if isinstance(found, files.File):
            with found.open() as stream:
                while stream.read(1 << 20):
                    pass


@pytest.mark.parametrize("kind", ["zip", "tgz", "gz"])
def test_a_bomb_is_refused_while_it_streams(tmp_path, kind):
    path, zeros = tmp_path / f"bomb.{kind}", bytes(30_000_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("zeros.txt", zeros)
    elif kind == "tgz":
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("zeros.txt")
            info.size = len(zeros)
            tar.addfile(info, io.BytesIO(zeros))
    else:
        path.write_bytes(gzip.compress(zeros))
    with pytest.raises(DataError, match="unpacks to more than"):
        drain(path)


def test_what_comes_out_of_one_archive_is_bounded_in_all(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 5_000)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in range(10):
            archive.writestr(f"{number}.txt", os.urandom(1_000))
    with pytest.raises(DataError, match="unpacks to more than"):
        drain(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_ten_thousand_members_are_refused(tmp_path, kind):
    path = tmp_path / f"many.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(10_000):
                archive.writestr(f"{number}.txt", b"")
    else:
        with tarfile.open(path, "w") as tar:
            for number in range(10_000):
                tar.addfile(tarfile.TarInfo(f"{number}.txt"))
    with pytest.raises(DataError, match="10,000 members"):
        drain(path)


UNSAFE = ["../up.txt", "/etc/passwd.txt", "a/../../b.txt", "..\\win.txt", "C:/x.txt", "con.txt", "aux", "LPT1.txt"]


def test_members_that_would_escape_are_passed_over_and_the_others_read(tmp_path):
    path = tmp_path / "slip.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in [*UNSAFE, "good.txt"]:
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    found = list(find_files(path))
    assert [f.name for f in found if isinstance(f, files.File)] == ["good.txt"]
    assert len([f for f in found if isinstance(f, Bad)]) == len(UNSAFE) + 1


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path):
    path = tmp_path / "slip.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("link.txt", tarfile.SYMTYPE), ("hard.txt", tarfile.LNKTYPE), ("dev.txt", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("../up.txt"))
        tar.addfile(tarfile.TarInfo("good.txt"))
    found = list(find_files(path))
    assert [f.name for f in found if isinstance(f, files.File)] == ["good.txt"]
    assert len(found) == 5


@pytest.mark.parametrize("name", ["x.zip", "x.tgz"])
def test_a_broken_archive_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not an archive" * 10)
    with pytest.raises(DataError, match="cannot be read as an archive"):
        drain(tmp_path / name)
