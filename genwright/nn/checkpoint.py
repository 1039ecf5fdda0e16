"""Checkpoints: everything a killed run needs to go on bit-equal, on disk whole or not at all.

A folder is written beside its place under a hidden `.tmp` name, every file fsynced, the folder fsynced, then renamed
and the parent fsynced. Inside, `manifest.json` is written last; it names each file with its size and sha256. Tensors
are safetensors, everything else is JSON.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genwright.core.errors import GenwrightError, ModelError, UsageError

TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
_NAME = re.compile(r"^step-(\d{8})$")
_CHUNK = 1 << 24
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
           torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NotSaved(GenwrightError):
    """Something could not be written to disk; what was there before is whole. Exit 75: make room and try again."""

    exit_code = 75
    status = 507


@dataclass(frozen=True)
class Checkpoint:
    """`state` is plain data, `tensors` are on the CPU under dotted names, `name` is the folder's."""

    name: str
    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix.`, without it."""
        return {n[len(prefix) + 1 :]: t for n, t in self.tensors.items() if n.startswith(prefix + ".")}


def save(folder: Path, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor], *, keep: int) -> Path:
    """Write the checkpoint of `step` into `folder` and drop all but the `keep` newest.

    Raises NotSaved, with the space that is needed, when the disk is full or fails; older checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    if target.exists():
        return target  # only a whole one can stand here: broken ones are set aside when a run goes on
    needed = sum(t.numel() * t.element_size() for t in tensors.values()) + len(json.dumps(state)) + (1 << 16)
    write_folder(target, lambda place: _fill(place, step, state, tensors), needed=needed)
    with suppress(OSError):  # then more than `keep` stay, which loses nothing
        _prune(folder, keep)
    return target


def newest(folder: Path, skipped: Callable[[str, str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, or None when there has never been one.

    `skipped(name, reason)` hears of each broken one, which is set aside once an older one takes its place. Raises
    ModelError when all are broken: starting anew is for the user to decide.
    """
    found = sorted((p for p in folder.glob("step-*") if _NAME.match(p.name)), reverse=True)
    broken = [p.name for p in folder.glob("step-*.broken")]
    for path in found:
        try:
            checkpoint = read(path)
        except ModelError as error:
            skipped(path.name, error.message)
            broken.append(path.name)
            continue
        for name in broken:
            if not name.endswith(".broken"):
                _remove(folder / f"{name}.broken")
                os.rename(folder / name, folder / f"{name}.broken")
        return checkpoint
    if broken:
        raise ModelError(
            f"No checkpoint in {folder} is whole: {', '.join(sorted(broken))}.",
            f"Put a copy back, or delete {folder} to start this run anew.",
        )
    return None


def read(path: Path) -> Checkpoint:
    """Read one checkpoint, checking the size and the sha256 of each file. Raises ModelError with what is wrong."""
    for name, (size, digest) in _manifest(path).items():
        file = path / name
        try:
            found, changed = file.stat().st_size, file_sha256(file) != digest
        except FileNotFoundError:
            raise ModelError(f"{name} is missing") from None
        except OSError as error:
            raise ModelError(f"{name} cannot be read: {error.strerror}") from None
        if found != size:
            raise ModelError(f"{name} has {found} bytes, not {size}")
        if changed:
            raise ModelError(f"{name} has changed on disk: its sha256 is not {digest[:12]}…")
    from safetensors.torch import load_file

    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    return Checkpoint(path.name, state["step"], state, load_file(path / TENSORS))


def names(folder: Path) -> list[str]:
    """Checkpoints in `folder`, oldest first, whole or not."""
    return sorted(p.name for p in folder.glob("step-*") if _NAME.match(p.name))


def set_aside(folder: Path) -> Path:
    """Move a folder of checkpoints that belong to other inputs out of the way, keeping it."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    os.rename(folder, aside)
    return aside


def clean(folder: Path) -> None:
    """Remove what a killed write left behind: hidden `.tmp` folders and files, and a folder half replaced."""
    for left in [*folder.glob(".*.tmp"), *folder.glob(".*.replaced")]:
        _remove(left)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run's lock: two processes must not tune into one folder. Raises UsageError when it is held already."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".tune.lock").open("w") as lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # not on this system: the user must see to it
            pass
        except BlockingIOError:
            raise UsageError(
                f"Another process is tuning in {folder} at this moment.", "Wait for it, or use another folder."
            ) from None
        yield


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """A disk that is full under anything else that a run writes (events, curves) raises NotSaved too."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _not_saved(folder, 0, error) from error


def write_folder(target: Path, fill: Callable[[Path], None], *, needed: int = 0) -> None:
    """Let `fill` write a folder that appears at `target` whole or not at all, in place of what was there.

    Raises NotSaved when it cannot be written (`needed` bytes are named); then nothing has changed.
    """
    from safetensors import SafetensorError

    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _enough_room(target, needed)
        _remove(temporary)
        os.mkdir(temporary)
        fill(temporary)
        _sync_tree(temporary)
        _put_in_place(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise _not_saved(target, needed, error) from error
    except (RuntimeError, SafetensorError) as error:  # a library in another language wrote
        if "No space left" not in str(error) and "os error 28" not in str(error):
            raise
        raise _not_saved(target, needed, OSError(errno.ENOSPC, "No space left on device")) from error
    finally:
        _remove(temporary)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors in the safetensors format and fsync. Returns the sha256, taken while writing."""
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        place = {"data_offsets": [offset, offset + size]}
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), **place}
        offset += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)

    def pieces() -> Iterator[memoryview]:
        yield memoryview(len(head).to_bytes(8, "little") + head)
        for tensor in tensors.values():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            if flat.numel():
                yield flat.view(torch.uint8).numpy().data

    return _write(path, pieces())


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(place: Path, step: int, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    digests = {
        TENSORS: write_safetensors(place / TENSORS, tensors),
        STATE: _write_json(place / STATE, {"step": step, **state}),
    }
    files = {name: {"size": (place / name).stat().st_size, "sha256": digest} for name, digest in digests.items()}
    _write_json(place / MANIFEST, {"complete": True, "step": step, "files": files})


def _manifest(path: Path) -> dict[str, tuple[int, str]]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (int(file["size"]), str(file["sha256"])) for name, file in manifest["files"].items()}
        complete = manifest["complete"] is True and set(files) == {TENSORS, STATE}
    except FileNotFoundError:
        raise ModelError(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{MANIFEST} cannot be read: {error}") from None
    if not complete:
        raise ModelError(f"{MANIFEST} is not marked complete")
    return files


def _write_json(path: Path, value: Any) -> str:
    return _write(path, iter([memoryview(json.dumps(value).encode())]))


def _write(path: Path, pieces: Iterator[memoryview]) -> str:
    digest = hashlib.sha256()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for piece in pieces:
            digest.update(piece)
            while piece:
                piece = piece[os.write(handle, piece[:_CHUNK]) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return digest.hexdigest()


def _put_in_place(temporary: Path, target: Path) -> None:
    if not target.exists():
        os.rename(temporary, target)
        return
    replaced = target.with_name(f".{target.name}.{os.getpid()}.replaced")
    _remove(replaced)
    os.rename(target, replaced)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(replaced, target)
        raise
    _remove(replaced)


def _enough_room(target: Path, needed: int) -> None:
    """Better to say so before than to fill the disk and fail."""
    if needed and shutil.disk_usage(target.parent).free < needed:
        raise OSError(errno.ENOSPC, "No space left on device")


def _not_saved(target: Path, needed: int, error: OSError) -> NotSaved:
    if error.errno not in _FULL:
        return NotSaved(
            f"{target} could not be written: {error.strerror or error}.",
            "What was saved before is whole. Mend the disk or its permissions; the same command goes on from there.",
        )
    free = shutil.disk_usage(target.parent).free if target.parent.exists() else 0
    want = f"needs {needed / 1e6:.1f} MB" if needed else "needs more room"
    return NotSaved(
        f"The disk is full: {target} {want}, and {free / 1e6:.1f} MB are free.",
        "What was saved before is whole. Make room (or lower train.keep_checkpoints); the same command goes on.",
    )


def _sync_tree(folder: Path) -> None:
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(place) / name)
        _sync(Path(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _prune(folder: Path, keep: int) -> None:
    for name in names(folder)[:-keep]:
        # Renamed first, so that a kill while deleting never leaves a half checkpoint under a good name.
        doomed = folder / f".{name}.{os.getpid()}.tmp"
        os.rename(folder / name, doomed)
        _remove(doomed)
    newest_step = names(folder)[-1]
    for path in folder.glob("step-*.broken"):
        if path.name.removesuffix(".broken") <= newest_step:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
