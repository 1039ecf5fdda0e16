"""Icons that are files: named by their files, grouped by head word, bad ones set aside."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from genwright.core import Bad, DataError, Row, choose

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="black"><path d="M4 12h16"/></svg>'
)


def rows_of(path: Path, **how: Any) -> list[Row | Bad]:
    return list(choose("sources", {"source": "icon_files", "path": str(path), **how}, key="source")())


def packed(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, body in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))


def test_a_name_says_what_an_icon_shows_and_its_head_word_groups_it(tmp_path: Path) -> None:
    (tmp_path / "cat-off-outline.svg").write_text(SVG)
    (tmp_path / "readme.md").write_text("no icon")
    (row,) = rows_of(tmp_path, ends=["-outline"], style="mine", licence="MIT", attribution="me")
    assert isinstance(row, Row)
    assert row.fields["meta"] == {
        "concept": "cat off", "group": "icon cat", "captions": {"en": ["cat off"]},
        "style": "mine", "licence": "MIT", "attribution": "me",
    }  # fmt: skip
    assert row.fields["image"] == {"bytes": SVG.encode(), "path": "cat-off.svg"}


def test_of_a_package_only_the_named_part_is_read_and_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    packed(tmp_path / "set-1.0.tgz", {
        "package/icons/line/sun.svg": SVG.encode(), "package/icons/solid/sun.svg": SVG.encode(),
        "package/icons/line/moon.svg": b"\xff\xfe\xff", "package/index.js": b"",
    })  # fmt: skip
    found = rows_of(tmp_path, include=["package/icons/line/*.svg"])
    assert [one.fields["meta"]["concept"] for one in found if isinstance(one, Row)] == ["sun"]
    assert len([one for one in found if isinstance(one, Bad)]) == 1


def test_nothing_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        rows_of(tmp_path / "nowhere")
    with pytest.raises(DataError):
        rows_of(tmp_path)
