"""Weights: what may be read from disk, checked before a byte of it is believed.

A model folder is data from a stranger. Before any library opens it we look at every file name (no pickle), at its
configuration (no code of its own) and at the header of every safetensors file (sizes, offsets, names), so that a lie
in a header costs a sentence and not memory.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from genwright.core.card import find_card
from genwright.core.errors import ModelError
from genwright.core.packed import PACKED, is_packed

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".h5", ".msgpack", ".joblib")
MANIFEST = "genwright.json"
PIPELINE = "model_index.json"  # of a folder whose components have folders of their own
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32,
         "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "C64": 64, "F4": 4}  # fmt: skip
_LARGEST_HEADER = 100_000_000  # bytes; the format's own limit
_LARGEST_CONFIG = 10_000_000  # bytes of a JSON file that describes a model
_known_files: set[tuple[Path, str]] = set()
_TO_CONVERT = (
    "Convert it once where you trust it: `model.save_pretrained(folder, safe_serialization=True)`; "
    "or look for a safetensors or GGUF version."
)


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Everything that can be checked without a library; returns the parsed config.json (or adapter_config.json).

    Raises ModelError for a folder without safetensors, with pickled weights only, with `auto_map` (code of its own),
    with an index that points outside the folder, or with a broken safetensors file.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}.", "Give a folder in Hugging Face layout, or a GGUF file.")
    if (folder / PIPELINE).is_file():
        return _check_pipeline(folder)
    name = "adapter_config.json" if (folder / "adapter_config.json").is_file() else "config.json"
    config = read_json(folder / name)
    for described in ("config.json", "adapter_config.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / described).is_file():
            refuse_own_code(read_json(folder / described), folder / described)
    files = weight_files(folder)
    for path in files:
        check_safetensors(path)
    return config


def _check_pipeline(folder: Path) -> dict[str, Any]:
    """The same for a pipeline: each component's folder; returns the parsed model_index.json."""
    for described in (folder / PIPELINE, *sorted(folder.glob("*/*config.json"))):
        refuse_own_code(read_json(described), described)
    for path in weight_files(folder):
        check_safetensors(path)
    return read_json(folder / PIPELINE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder (of a pipeline: of its components' folders), in order.

    Raises ModelError when there are only pickles, or none.
    """
    if (folder / PIPELINE).is_file():
        parts = {file.parent for file in folder.glob("*/*") if file.suffix in (".safetensors", *PICKLES)}
        if parts:
            return [file for part in sorted(parts) for file in weight_files(part)]
    for index in sorted(folder.glob("*.safetensors.index.json")):
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ModelError(f"{index} has no weight_map.", "Fetch the model again.")
        for name in sorted(set(shards.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                raise ModelError(f"{index} points to {name!r}, which is not a file of this folder.", "Do not use it.")
            if not (folder / name).is_file():
                raise ModelError(f"{folder} lacks the file {name} that its index names.", "Fetch the model again.")
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PICKLES)
    if pickled:
        raise refuse_pickle(folder / pickled[0])
    raise ModelError(f"{folder} holds no weights.", "A model folder has config.json, a tokenizer and *.safetensors.")


def refuse_pickle(path: Path) -> ModelError:
    """The error for a file whose loading would run code."""
    return ModelError(f"{path} is in a format that can run code when it is loaded; it was not opened.", _TO_CONVERT)


def refuse_own_code(config: Any, path: Path) -> None:
    """Raise ModelError when a configuration asks for Python code of its own, at any depth."""
    if isinstance(config, dict):
        if config.get("auto_map") or config.get("trust_remote_code"):
            raise ModelError(
                f"{path} asks to run Python code that came with the model (auto_map); it was not run.",
                "Use a model whose architecture transformers knows, or its converted version.",
            )
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            refuse_own_code(value, path)


def check_safetensors(path: Path) -> dict[str, Any]:
    """Read and check the header of a safetensors file without loading a tensor; returns name -> entry.

    Raises ModelError, naming the file, when the header is too long, not JSON, has a name twice, a dtype that does not
    exist, shapes that do not match the bytes, offsets that overlap, leave holes or run past the end of the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise _broken(path, "it is shorter than 8 bytes")
        (length,) = struct.unpack("<Q", start)
        if length > min(_LARGEST_HEADER, size - 8):
            raise _broken(path, f"its header claims {length} bytes and the file has {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"its header cannot be read ({error})") from None
    if not isinstance(header, dict):
        raise _broken(path, "its header is not a table of tensors")
    header.pop("__metadata__", None)
    spans = sorted(_span(path, name, entry) for name, entry in header.items())
    end = 0
    for first, last, name in spans:
        if first != end:
            raise _broken(
                path, f"the tensor {name!r} {'overlaps another' if first < end else 'leaves a hole before it'}"
            )
        end = last
    if end != size - 8 - length:
        raise _broken(path, f"it holds {size - 8 - length} bytes of tensors where its header promises {end}")
    return header


def parameters_in(files: Iterable[Path]) -> int:
    """How many numbers some checked safetensors files hold."""
    count = 0
    for path in files:
        for entry in check_safetensors(path).values():
            numbers = 1
            for side in entry["shape"]:
                numbers *= side
            count += numbers
    return count


def load_into(module: Any, path: Path) -> None:
    """Put the tensors of a safetensors file into a torch module, in float32. Raises ModelError when they do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The weights in {path} do not fit the config.json beside them: {' '.join(str(error).split())[:300]}",
            "Restore the folder.",
        ) from None


def weights_digest(path: Path) -> str:
    """sha256 (hex) of a weights file; for a folder that of its one file of weights, or of the list of several."""
    if path.is_file():
        return sha256_of(path)
    if is_packed(path):
        return sha256_of(path / PACKED)
    digests = [sha256_of(file) for file in weight_files(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_folder(name: str) -> Path:
    """Where the files of a card lie, each looked at for its sha256 once a process. Raises ModelError when one is not
    here or another."""
    card = find_card(name)
    for file in card.files:
        path = card.folder / file.name
        if not path.is_file():
            raise ModelError(f"{card.title} has not been fetched.", f"Run `genwright models pull {card.name}`.")
        if (path, file.sha256) not in _known_files:
            if sha256_of(path) != file.sha256:
                raise ModelError(f"{path} has been altered.", f"Fetch it again: `genwright models pull {card.name}`.")
            _known_files.add((path, file.sha256))
    return card.folder


def read_json(path: Path, *, largest: int = _LARGEST_CONFIG) -> dict[str, Any]:
    """A JSON object that describes a model. Raises ModelError naming the file."""
    try:
        if path.stat().st_size > largest:
            raise ModelError(f"{path} is too large for a configuration.", "Fetch the model again.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} lacks {path.name}.", "Give a model folder in Hugging Face layout.") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}", "Fetch the model again.") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object.", "Fetch the model again.")
    return found


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """(first byte, one past the last byte, name) of a tensor whose entry is sound."""
    if not isinstance(entry, dict) or entry.get("dtype") not in _BITS:
        raise _broken(path, f"the tensor {name!r} has no known dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise _broken(path, f"the tensor {name!r} has no shape or no offsets")
    bits = _BITS[entry["dtype"]]
    for side in shape:
        bits *= side
    if bits > 1 << 60 or (bits + 7) // 8 != offsets[1] - offsets[0]:
        raise _broken(path, f"the tensor {name!r} claims the shape {shape} but {offsets[1] - offsets[0]} bytes")
    return offsets[0], offsets[1], name


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _broken(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} is not a sound safetensors file: {why}.", "Fetch it again; it may be cut short.")
