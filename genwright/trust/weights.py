"""Weights: which files may hold a model, and whether their headers tell the truth, before anything is allocated.

Only safetensors, GGUF and CTranslate2's model.bin are read. A pickle can run any code when it is opened, so it is
refused by its name.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.core.errors import ModelError
from genwright.core.packed import PACKED, is_packed

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".h5", ".keras", ".msgpack"})
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
         "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64,
         "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # fmt: skip
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself


def check_weights(path: Path) -> None:
    """Look at the header of one weights file. Raises ModelError when it is a pickle, broken or lies."""
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    if path.suffix in PICKLES:
        raise _pickle(path)
    if path.suffix == ".safetensors":
        _check_safetensors(path)
    elif path.suffix == ".gguf":
        _check_gguf(path)
    else:
        raise ModelError(f"{path} is no weights file that is read here.", "Weights are .safetensors or .gguf files.")


def weights_in(folder: Path) -> list[Path]:
    """The safetensors files of a model folder (of a pipeline: of its components' folders), checked; or its model.bin in
    CTranslate2's form.

    Raises ModelError when there are none, or only pickles.
    """
    if is_packed(folder):  # its one file is looked at by who opens it: nn/ctranslate2_file.py, or the runtime
        return [folder / PACKED]
    found = sorted(folder.glob("*/*.safetensors" if (folder / "model_index.json").is_file() else "*.safetensors"))
    if not found:
        pickled = sorted(p for p in folder.iterdir() if p.suffix in PICKLES)
        if pickled:
            raise _pickle(pickled[0])
        raise ModelError(f"{folder} holds no weights.", "A model folder holds config.json and .safetensors files.")
    for path in found:
        check_weights(path)
    return found


def _pickle(path: Path) -> ModelError:
    return ModelError(
        f"{path} is refused: it may be a pickle, which can run any code when it is opened.",
        "Use the safetensors or GGUF version of the model, or convert it on a machine that you can afford to lose.",
    )


def _check_safetensors(path: Path) -> None:
    """8 bytes of header length, JSON {name: {dtype, shape, data_offsets}}, then the tensors without gap or overlap."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise _broken(path, f"it has {size} bytes, fewer than any safetensors file")
        (length,) = struct.unpack("<Q", head)
        if length > min(_MAX_HEADER, size - 8):
            raise _broken(path, f"its header claims {length:,} bytes and the file has {size:,}")
        try:
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_no_twins)
        except (ValueError, RecursionError) as error:
            raise _broken(path, f"its header is not right: {error}") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is no mapping")
    header.pop("__metadata__", None)
    end = 0
    for begin, stop, name in sorted(_spans(path, header)):
        if begin != end:
            raise _broken(path, f"the tensor {name!r} begins at {begin:,} where {end:,} is expected (overlap or gap)")
        end = stop
    if 8 + length + end != size:
        raise _broken(path, f"its tensors end at byte {8 + length + end:,} but the file at {size:,}")


def _spans(path: Path, header: dict[str, Any]) -> Iterable[tuple[int, int, str]]:
    for name, tensor in header.items():
        try:
            bits, shape, (begin, stop) = _BITS[tensor["dtype"]], tensor["shape"], tensor["data_offsets"]
            right = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, stop))
        except (KeyError, TypeError, ValueError):
            raise _broken(path, f"the tensor {name!r} is described wrongly") from None
        count = 1
        for n in shape if right else ():
            count *= n
        if not right or (stop - begin) * 8 != count * bits:
            raise _broken(path, f"the tensor {name!r} does not have the size that its type and shape ask for")
        yield begin, stop, name


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _check_gguf(path: Path) -> None:
    """Magic, version, counts: each of the claimed tensors and keys takes at least 16 bytes of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise _broken(path, "it does not begin as a GGUF file does")
    version, tensors, keys = struct.unpack("<IQQ", head[4:])
    if version not in (2, 3):
        raise _broken(path, f"it is GGUF version {version}; versions 2 and 3 are read")
    if (tensors + keys) * 12 > size:
        raise _broken(path, f"it claims {tensors:,} tensors and {keys:,} keys in {size:,} bytes: it is cut or lies")


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is broken: {why}.", "Fetch it again (a card's file: `genwright models pull`).")
