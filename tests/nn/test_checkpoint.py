"""A checkpoint is whole or not there, whatever the disk does and whenever the power goes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from genwright.core import ModelError
from genwright.nn import checkpoint as disk

TENSORS = {
    "weights.a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "weights.b": torch.randn(7, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "random.cpu": torch.arange(9, dtype=torch.uint8),
    "one.number": torch.tensor(3.5),
    "none": torch.empty(0, 4),
    "turned": torch.arange(6.0).reshape(2, 3).T,
}


def save(folder: Path, step: int, keep: int = 3) -> Path:
    return disk.save(folder, step, {"at": step}, {**TENSORS, "step": torch.tensor(step)}, keep=keep)


def newest(folder: Path) -> tuple[disk.Checkpoint | None, dict[str, str]]:
    skipped: dict[str, str] = {}
    return disk.newest(folder, skipped.__setitem__), skipped


def test_what_is_saved_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    path = save(tmp_path, 40)
    found, skipped = newest(tmp_path)
    assert found
    assert not skipped
    assert (found.name, found.step, found.state) == ("step-00000040", 40, {"step": 40, "at": 40})
    assert {n: t.dtype for n, t in found.tensors.items()} == {n: t.dtype for n, t in TENSORS.items()} | {
        "step": torch.int64
    }
    assert all(torch.equal(found.tensors[n], t) for n, t in TENSORS.items())
    assert set(found.part("weights")) == {"a", "b"}
    assert set(load_file(path / disk.TENSORS)) == {*TENSORS, "step"}  # the official reader agrees
    manifest = json.loads((path / disk.MANIFEST).read_text())
    assert manifest["complete"] is True
    assert set(manifest["files"]) == {disk.TENSORS, disk.STATE}
    assert manifest["files"][disk.TENSORS]["sha256"] == disk.file_sha256(path / disk.TENSORS)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, keep=2)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-00000020", "step-00000030"]


def test_nothing_there_is_a_beginning(tmp_path: Path) -> None:
    assert newest(tmp_path) == (None, {})


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", [disk.TENSORS, disk.STATE, disk.MANIFEST])
@pytest.mark.parametrize("harm", [cut_short, flip_a_bit, delete])
def test_a_broken_one_is_skipped_by_name_with_its_reason(
    tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    harm(tmp_path / "step-00000020" / name)
    found, skipped = newest(tmp_path)
    assert found
    assert found.step == 10
    assert name in skipped["step-00000020"] or "manifest" in skipped["step-00000020"] or name == disk.MANIFEST
    assert (tmp_path / "step-00000020.broken").is_dir()  # kept to be looked at until its step is saved again
    save(tmp_path, 20)
    assert disk.names(tmp_path) == ["step-00000010", "step-00000020"]
    assert not (tmp_path / "step-00000020.broken").exists()


def test_the_reasons_are_told_apart(tmp_path: Path) -> None:
    reasons = {}
    for harm in (cut_short, flip_a_bit, delete):
        folder = tmp_path / harm.__name__
        save(folder, 10)
        save(folder, 20)
        harm(folder / "step-00000020" / disk.TENSORS)
        reasons[harm] = newest(folder)[1]["step-00000020"]
    assert "bytes, not" in reasons[cut_short]
    assert "has changed on disk" in reasons[flip_a_bit]
    assert "is missing" in reasons[delete]


def test_all_broken_is_refused_also_the_second_time(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    for name in disk.names(tmp_path):
        flip_a_bit(tmp_path / name / disk.TENSORS)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"step-00000010, step-00000020") as caught:
            newest(tmp_path)
        assert "delete" in caught.value.hint
    flip_a_bit(tmp_path / "step-00000010" / disk.TENSORS)  # back again
    found, _ = newest(tmp_path)
    assert found
    assert found.step == 10
    flip_a_bit(tmp_path / "step-00000010" / disk.TENSORS)
    with pytest.raises(ModelError):  # the one set aside does not make it look like a beginning
        newest(tmp_path)


def test_the_order_of_things_is_write_sync_rename_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R15: a folder must not be visible before all its bytes are on the disk."""
    told: list[tuple[str, str]] = []
    paths: dict[int, str] = {}

    def opened(path: Any, *how: Any, _open: Any = os.open, **more: Any) -> int:
        handle: int = _open(path, *how, **more)
        paths[handle] = Path(path).name
        return handle

    for name in ("write", "fsync"):
        inner = getattr(os, name)
        monkeypatch.setattr(os, name, lambda handle, *data, _do=inner, _name=name: (
            told.append((_name, paths.get(handle, "?"))), _do(handle, *data))[1])  # fmt: skip
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: (told.append(("rename", Path(b).name)), rename(a, b)))
    monkeypatch.setattr(os, "open", opened)
    save(tmp_path / "checkpoints", 7)
    moved = told.index(("rename", "step-00000007"))
    before, after = told[:moved], told[moved + 1 :]
    assert not [t for t in after if t[0] == "write"]
    assert after == [("fsync", "checkpoints")]
    for name in (disk.TENSORS, disk.STATE, disk.MANIFEST):
        last_write = max(i for i, t in enumerate(before) if t == ("write", name))
        assert ("fsync", name) in before[last_write:]
    assert before[-1][0] == "fsync"
    assert before[-1][1].endswith(".tmp")  # the folder itself
    first_of_manifest = before.index(("write", disk.MANIFEST))
    assert all(before.index(("fsync", name)) < first_of_manifest for name in (disk.TENSORS, disk.STATE))


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "mkdir", "open", "close"])
def test_a_fault_at_the_nth_call_never_corrupts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, reason: int
) -> None:
    """R18, the way SQLite does it: the n-th call fails, for every n until none does."""
    inner, n, done = getattr(os, call), 0, False
    while not done:
        n += 1
        folder = tmp_path / f"{call}-{n}"
        save(folder, 10, keep=1)
        calls = 0

        def faulty(*args: Any, _n: int = n, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == _n:
                if call == "close":
                    inner(*args)
                raise OSError(reason, os.strerror(reason))
            return inner(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, faulty)
            try:
                save(folder, 20, keep=1)
                told = None
            except disk.NotSaved as error:
                told = error
            done = calls < n
        disk.clean(folder)
        found, skipped = newest(folder)
        assert found
        assert not skipped
        assert found.step in (10, 20)
        assert all(torch.equal(found.tensors[name], t) for name, t in TENSORS.items())
        assert not list(folder.glob(".*.tmp"))
        if told is None:
            assert found.step == 20
        else:
            assert ("disk is full" in told.message) == (reason == errno.ENOSPC)
            save(folder, 20, keep=1)  # and it goes on
            assert newest(folder)[0].step == 20  # type: ignore[union-attr]
    assert n > 1


def test_a_half_written_disk_is_told_with_the_space_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: Any, _write: Any = os.write) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(disk.NotSaved, match=r"The disk is full: .*step-00000003 needs 0\.1 MB, and [\d.]+ MB are free"):
        save(tmp_path, 3)


def test_what_a_kill_leaves_is_cleaned_away(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (tmp_path / ".step-00000020.123.tmp").mkdir()
    (tmp_path / ".step-00000020.123.tmp" / "tensors.safetensors").write_bytes(b"half")
    disk.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010"]


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    disk.write_folder(target, lambda place: (place / "a").write_text("old") and None)
    disk.write_folder(target, lambda place: (place / "a").write_text("new") and None)
    assert (target / "a").read_text() == "new"

    def fails(place: Path) -> None:
        (place / "a").write_text("half")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        disk.write_folder(target, fails)
    rename, calls = os.rename, []

    def second_fails(a: Any, b: Any) -> None:
        calls.append(a)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        rename(a, b)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(disk.NotSaved, match="Input/output error"):
        disk.write_folder(target, lambda place: (place / "a").write_text("newer") and None)
    assert (target / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_library_that_fills_the_disk_is_understood(tmp_path: Path) -> None:
    def fails(place: Path) -> None:
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(disk.NotSaved, match="The disk is full"):
        disk.write_folder(tmp_path / "model", fails, needed=1000)
