"""GGUF files for tuning: dequantised once into a Hugging Face folder, which is kept in the store.

We read the file ourselves (a memory map, names and offsets checked), restore one tensor at a time with the `gguf`
package's numpy routines and write safetensors as we go: a few seconds for SmolLM2-135M, where transformers takes
twenty. Architectures that we do not know go through transformers.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from genwright.core import home
from genwright.core.errors import MissingExtra, ModelError
from genwright.core.things import SILENT, Tell
from genwright.nn.checkpoint import write_folder
from genwright.nn.weights import sha256_of

VERSION = "2"  # of the conversion: part of the folder's name, so that a mended one is made anew
LARGE = 1_000_000_000  # parameters beyond which weights are written as bfloat16
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_COMMON = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_GEMMA = _COMMON | {
    "post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
_GPT2 = {
    "token_embd": "transformer.wte", "position_embd": "transformer.wpe", "output_norm": "transformer.ln_f",
    "output": "lm_head", "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How an architecture's tensors are called and stored in transformers."""

    names: Mapping[str, str]
    blocks: str = "model.layers"
    pairs: bool = False  # queries and keys turn neighbouring pairs in llama.cpp, halves in transformers
    plus_one: bool = False  # norms are stored with one added
    transposed: tuple[str, ...] = ()


FAMILIES = {
    "llama": Family(_COMMON, pairs=True),
    "qwen2": Family(_COMMON),
    "qwen3": Family(_COMMON),
    "gemma": Family(_COMMON, plus_one=True),
    "gemma2": Family(_GEMMA, plus_one=True),
    "gemma3": Family(_GEMMA, plus_one=True),
    "gpt2": Family(_GPT2, "transformer.h", transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down")),
}


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in the file: `shape` as in torch, `kind` llama.cpp's number of its quantisation."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass
class File:
    """The keys and the tensor table of a GGUF file."""

    keys: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Stored] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", ""))

    def of(self, name: str, default: Any = None) -> Any:
        """A key of the architecture, e.g. `block_count`."""
        return self.keys.get(f"{self.architecture}.{name}", default)


def converted(path: Path, *, tell: Tell = SILENT) -> Path:
    """The Hugging Face folder of a GGUF file, in the store under the file's sha256; made when it is not there yet.

    Raises ModelError for a file that is cut short, lies about its tensors, or cannot be converted.
    """
    target = home.store() / "converted" / f"{sha256_of(path)}-{VERSION}"
    if (target / "config.json").is_file():
        return target
    tell.note(f"Converting {path.name} for tuning, once.")
    file = read_gguf(path)
    if file.keys.get("general.type") == "adapter":
        raise ModelError(f"{path} is an adapter, not a model.", "Give the model that it belongs to.")
    known = file.architecture in FAMILIES and not any("_exps" in name for name in file.tensors)
    numbers = sum(int(np.prod(t.shape)) for t in file.tensors.values())

    def fill(folder: Path) -> None:
        if known:
            _convert(file, path, folder, tell, large=numbers > LARGE)
        else:
            _through_transformers(path, folder)

    write_folder(target, fill, needed=numbers * (2 if numbers > LARGE else 4))
    return target


def read_gguf(path: Path) -> File:
    """Keys and tensor table, checked against the file's size; no tensor is read.

    Raises ModelError when the file is no GGUF of version 2 or 3, cut short, or its tensors overlap or leave the file.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            found, start = _read(file, size)
    except (struct.error, ValueError, KeyError, OverflowError) as error:
        raise ModelError(f"{path} is not a sound GGUF file: {error}.", "Fetch it again; it may be cut short.") from None
    end = 0
    for tensor in sorted(found.tensors.values(), key=lambda t: t.start):
        if tensor.start < end or start + tensor.start + tensor.size > size:
            raise ModelError(f"{path} is not a sound GGUF file: {tensor.name} is not inside it.", "Fetch it again.")
        end = tensor.start + tensor.size
    for name, tensor in found.tensors.items():
        found.tensors[name] = Stored(name, tensor.shape, tensor.kind, start + tensor.start, tensor.size)
    return found


def config_of(file: File) -> Any:
    """The transformers configuration that the keys describe."""
    from transformers import CONFIG_MAPPING

    of_kind: Any = CONFIG_MAPPING
    kind = {"gemma3": "gemma3_text"}.get(file.architecture, file.architecture)
    tokens = file.tensors["token_embd.weight"].shape
    heads = int(file.of("attention.head_count", 0))
    common: dict[str, Any] = {
        "vocab_size": tokens[0], "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": file.keys.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.keys.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.keys.get("tokenizer.ggml.padding_token_id"),
    }  # fmt: skip
    if kind == "gpt2":
        return of_kind[kind](
            **common, n_embd=tokens[1], n_layer=file.of("block_count"), n_head=heads,
            n_inner=file.of("feed_forward_length"), n_positions=file.of("context_length"),
            layer_norm_epsilon=file.of("attention.layer_norm_epsilon", 1e-5),
        )  # fmt: skip
    common |= {
        "hidden_size": tokens[1], "num_hidden_layers": file.of("block_count"), "num_attention_heads": heads,
        "num_key_value_heads": _one(file.of("attention.head_count_kv", heads)),
        "intermediate_size": _one(file.of("feed_forward_length")),
        "max_position_embeddings": file.of("context_length"),
        "rms_norm_eps": file.of("attention.layer_norm_rms_epsilon", 1e-6),
        "head_dim": file.of("attention.key_length") or tokens[1] // heads,
        "rope_parameters": _rope(file),
    }  # fmt: skip
    if kind == "qwen2":
        common.pop("head_dim")
    if kind == "llama":
        common["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if kind.startswith("gemma"):
        common |= _gemma(file, common)
    return of_kind[kind](**common)


# -- reading ---------------------------------------------------------------------------------------------------------


def _read(file: BinaryIO, size: int) -> tuple[File, int]:
    """The file's table and the byte at which its tensors begin."""
    if size < 24:
        raise ValueError("it is shorter than its head")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic, version, tensors, keys = struct.unpack_from("<4sIQQ", data, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r}, version {version}")
        if keys > 100_000 or tensors > 1_000_000:
            raise ValueError(f"it claims {keys} keys and {tensors} tensors")
        found, place = File(), 24
        for _ in range(keys):
            name, place = _string(data, place)
            (kind,) = struct.unpack_from("<I", data, place)
            if name in found.keys:
                raise ValueError(f"the key {name} stands twice")
            found.keys[name], place = _value(data, place + 4, kind)
        for _ in range(tensors):
            tensor, place = _tensor(data, place)
            if tensor.name in found.tensors:
                raise ValueError(f"the tensor {tensor.name} stands twice")
            found.tensors[tensor.name] = tensor
        step = int(found.keys.get("general.alignment", 32))
        if step < 1:
            raise ValueError("its alignment is not a size")
        return found, place + -place % step


def _value(data: mmap.mmap, place: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, place)
    if kind != _ARRAY:
        form = "<" + _NUMBERS[kind]
        return struct.unpack_from(form, data, place)[0], place + struct.calcsize(form)
    inner, count = struct.unpack_from("<IQ", data, place)
    place += 12
    if count > len(data):
        raise ValueError(f"an array claims {count} entries")
    if inner == _STRING:
        words = []
        for _ in range(count):
            word, place = _string(data, place)
            words.append(word)
        return words, place
    form = f"<{count}{_NUMBERS[inner]}"
    return list(struct.unpack_from(form, data, place)), place + struct.calcsize(form)


def _tensor(data: mmap.mmap, place: int) -> tuple[Stored, int]:
    import gguf

    name, place = _string(data, place)
    (dimensions,) = struct.unpack_from("<I", data, place)
    if dimensions > 4:
        raise ValueError(f"{name} has {dimensions} dimensions")
    shape = struct.unpack_from(f"<{dimensions}Q", data, place + 4)
    place += 4 + 8 * dimensions
    kind, start = struct.unpack_from("<IQ", data, place)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    numbers = 1
    for side in shape:
        numbers *= side
    if numbers > 1 << 40 or (shape and shape[0] % block):
        raise ValueError(f"{name} claims the shape {shape}")
    return Stored(name, tuple(int(s) for s in reversed(shape)), kind, start, numbers // block * size), place + 12


def _string(data: mmap.mmap, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, place)
    end = place + 8 + length
    if end > len(data):
        raise ValueError("it is cut short")
    return data[place + 8 : end].decode("utf-8", "replace"), end


# -- converting ------------------------------------------------------------------------------------------------------


def _convert(file: File, path: Path, folder: Path, tell: Tell, *, large: bool) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtra("gguf", "text") from None
    config = config_of(file)
    config.dtype = "bfloat16" if large else "float32"
    config.architectures = [_class_of(config)]
    tokenizer_of(file).save_pretrained(folder)
    names = [(tensor, *_named(file, tensor)) for tensor in file.tensors.values() if not _left_out(tensor.name)]
    _write_safetensors(folder / "model.safetensors", file, path, names, config, tell, large=large)
    config.save_pretrained(folder)  # last: its being there says that the folder is whole


def tokenizer_of(file: File) -> Any:
    """The tokenizer that the keys describe, with its chat template."""
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    said = {name: file.keys[f"tokenizer.{key}"] for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
            if f"tokenizer.{key}" in file.keys}  # fmt: skip
    try:
        made, _ = convert_gguf_tokenizer(file.architecture, said)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(
            f"The tokenizer of this GGUF file cannot be read: {error}.", "Use the model's folder."
        ) from None
    tokens = said["tokens"]
    named = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = file.keys.get(f"tokenizer.ggml.{key}_token_id", -1)
        if 0 <= number < len(tokens):
            named[f"{name}_token"] = tokens[number]
    bos = file.keys.get("tokenizer.ggml.add_bos_token", said.get("tokenizer_type") == "llama")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, add_bos_token=bool(bos) and "bos_token" in named,
        add_eos_token=bool(file.keys.get("tokenizer.ggml.add_eos_token", False)), clean_up_tokenization_spaces=False,
        **named,
    )  # fmt: skip
    tokenizer.chat_template = file.keys.get("tokenizer.chat_template")
    return tokenizer


def _named(file: File, tensor: Stored) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """A tensor's name in transformers, and what makes its numbers fit."""
    family = FAMILIES[file.architecture]
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", tensor.name)
    if match is None or match[2] not in family.names:
        raise ModelError(f"A {file.architecture} model with the tensor {tensor.name} is not known.", "Use its folder.")
    number, part, kind = match.groups()
    name = family.names[part] + "." + kind
    if number is not None:
        name = f"{family.blocks}.{number}.{name}"
    if family.pairs and part in ("attn_q", "attn_k"):
        heads = file.of("attention.head_count")
        return name, lambda x: _halves(
            x, heads if part == "attn_q" else _one(file.of("attention.head_count_kv", heads))
        )
    if family.plus_one and part.endswith("norm"):
        return name, lambda x: x - 1
    if part in family.transposed and kind == "weight":
        return name, lambda x: np.ascontiguousarray(x.T)
    return name, lambda x: x


def _halves(x: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from neighbouring pairs to two halves."""
    paired = x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(x.shape)


def _write_safetensors(
    target: Path, file: File, path: Path, names: list[tuple[Stored, str, Callable[[np.ndarray], np.ndarray]]],
    config: Any, tell: Tell, *, large: bool,
) -> None:  # fmt: skip
    """Header first, for sizes are known; then one tensor after another."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    _check_names({name: tensor.shape for tensor, name, _ in names}, config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place, width = 0, 2 if large else 4
    transposed = FAMILIES[file.architecture].transposed
    for tensor, name, _ in names:
        turned = any(f".{part}.weight" in tensor.name for part in transposed)
        shape = tensor.shape[::-1] if turned else tensor.shape
        size = int(np.prod(tensor.shape)) * width
        header[name] = {
            "dtype": "BF16" if large else "F32",
            "shape": list(shape),
            "data_offsets": [place, place + size],
        }
        place += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    data = np.memmap(path, mode="r", dtype=np.uint8)
    tell.stage("converting", len(names))
    with target.open("wb") as out:
        out.write(struct.pack("<Q", len(raw)) + raw)
        for tensor, _, change in names:
            blocks = data[tensor.start : tensor.start + tensor.size]
            if len(tensor.shape) > 1:
                blocks = blocks.reshape(*tensor.shape[:-1], -1)
            numbers = dequantize(blocks, GGMLQuantizationType(tensor.kind)).reshape(tensor.shape).astype(np.float32)
            numbers = np.ascontiguousarray(change(numbers))
            out.write(_bfloat16(numbers) if large else numbers.data)
            tell.advance()


def _bfloat16(numbers: np.ndarray) -> bytes:
    import torch

    return torch.from_numpy(numbers).to(torch.bfloat16).view(torch.int16).numpy().tobytes()


def _check_names(shapes: Mapping[str, tuple[int, ...]], config: Any) -> None:
    """The model that the configuration describes must have just these tensors: then nothing is left to chance."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    wanted = {name for name, _ in module.named_parameters()}
    wrong = sorted(wanted ^ set(shapes))
    if wrong:
        raise ModelError(
            f"The GGUF file and its architecture differ in {wrong[0]} ({len(wrong)} tensors).", "Use its folder."
        )


def _class_of(config: Any) -> str:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    return str(classes[type(config)].__name__)


def _left_out(name: str) -> bool:
    """Tables that transformers computes from the configuration."""
    return name.startswith("rope_freqs") or name.endswith((".rope_freqs.weight", ".attn_rot_embd.weight"))


def _rope(file: File) -> dict[str, Any]:
    base = float(file.of("rope.freq_base", 10_000.0))
    kind, factor = file.of("rope.scaling.type", "none"), file.of("rope.scaling.factor")
    plain = {"rope_type": "default", "rope_theta": base}
    if file.architecture == "gemma3":
        full = plain if kind == "none" else {"rope_type": kind, "rope_theta": base, "factor": factor}
        local = float(file.of("rope.freq_base_swa", 10_000.0))
        return {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    if "rope_freqs.weight" in file.tensors:
        raise ModelError(
            "This GGUF file scales its positions by a table (Llama 3.1 and later), which cannot be tuned from GGUF.",
            "Use the model's folder in Hugging Face layout.",
        )
    if kind == "none" or factor is None:
        return plain
    more = (
        {"original_max_position_embeddings": file.of("rope.scaling.original_context_length")} if kind == "yarn" else {}
    )
    return {"rope_type": kind, "rope_theta": base, "factor": factor, **more}


def _gemma(file: File, common: Mapping[str, Any]) -> dict[str, Any]:
    layers = int(common["num_hidden_layers"])
    per_head = common["hidden_size"] // common["num_attention_heads"]  # the 27B models scale by this one
    more: dict[str, Any] = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True}
    if file.architecture == "gemma":
        return more | {"hidden_act": "gelu_pytorch_tanh"}
    window = file.of("attention.sliding_window")
    if window:
        more["sliding_window"] = window
    if file.architecture == "gemma2":
        return more | {
            "attn_logit_softcapping": file.of("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": file.of("final_logit_softcapping", 30.0),
            "query_pre_attn_scalar": per_head if layers == 46 else common["head_dim"],
        }
    pattern = file.of("attention.sliding_window_pattern", 6)
    if isinstance(pattern, list):
        more["layer_types"] = ["sliding_attention" if local else "full_attention" for local in pattern]
    else:
        more["layer_types"] = [
            "full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)
        ]
    return more | {"query_pre_attn_scalar": per_head if layers == 62 else common["head_dim"]}


def _one(value: Any) -> Any:
    """Some keys hold one number for each layer; all must be the same."""
    if not isinstance(value, list):
        return value
    if len(set(value)) != 1:
        raise ModelError("This GGUF file's layers differ in size, which is not known.", "Use the model's folder.")
    return value[0]


def _through_transformers(path: Path, folder: Path) -> None:
    """The slow way, for architectures that only transformers knows."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    name = path.name
    try:
        read = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=name, dtype=torch.float32, local_files_only=True, trust_remote_code=False,
            quantization_config=GgufConfig(dequantize=True, gguf_file=name),
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(
            path.parent, gguf_file=name, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"{path.name} cannot be converted for tuning: {' '.join(str(error).split())[:300]}",
            "Use the model's folder in Hugging Face layout.",
        ) from None
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    plain = type(read)(read.config)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
