"""A Whisper in CTranslate2's form, as it is packaged to answer quickly, becomes transformers' network to be taught.

The numbers are the same; what differs are their names, that queries, keys and values lie in one matrix, and that the
shapes are the configuration. It is done in memory at each opening (whisper-base: 74 million numbers, below a second).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genwright.core.errors import ModelError
from genwright.core.packed import PACKED

from .ctranslate2_file import PackedModel, broken, check_whisper, read_ctranslate2
from .weights import read_json

_CONVERT = "Convert the model with --copy_files tokenizer.json, or put Whisper's tokenizer.json beside it."
_GELU = 3  # CTranslate2's number of it
_NORM = {"gamma": "weight", "beta": "bias"}
_BLOCK = {"self_attention/layer_norm": "self_attn_layer_norm", "self_attention/linear_1": "self_attn.out_proj",
          "attention/layer_norm": "encoder_attn_layer_norm", "attention/linear_0": "encoder_attn.q_proj",
          "attention/linear_2": "encoder_attn.out_proj", "ffn/layer_norm": "final_layer_norm", "ffn/linear_0": "fc1",
          "ffn/linear_1": "fc2"}  # fmt: skip
_JOINED = {"self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
           "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj")}  # fmt: skip


def packaged_whisper(folder: Path, tokenizer: Any, dtype: torch.dtype = torch.float32) -> Any:
    """transformers' WhisperForConditionalGeneration with the numbers of `folder`/model.bin; `tokenizer` says which
    tokens are which.

    Raises ModelError for a file that is broken, no Whisper, or does not fit its tokenizer.
    """
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    packed = read_ctranslate2(folder / PACKED)
    check_whisper(packed)
    keys = _config(packed)
    if len(tokenizer) > keys["vocab_size"]:
        raise broken(packed.path, f"it has {keys['vocab_size']:,} words and the tokenizer {len(tokenizer):,}")
    tensors = {name: torch.from_numpy(array).to(dtype) for name, array in _tensors(packed, keys)}
    begin, end = tokenizer.get_vocab().get("<|startoftranscript|>"), tokenizer.eos_token_id
    if begin is None or end is None:
        raise ModelError(f"The tokenizer in {folder} is not Whisper's: it has no <|startoftranscript|>.", _CONVERT)
    ends = {"decoder_start_token_id": begin, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    try:
        config = WhisperConfig(**keys, **ends, suppress_tokens=None, begin_suppress_tokens=None, dtype=dtype)
        with torch.device("meta"):  # nothing is drawn, nothing allocated: the file's numbers take the places
            module = WhisperForConditionalGeneration(config)
        tensors["proj_out.weight"] = tensors["model.decoder.embed_tokens.weight"]
        module.load_state_dict(tensors, assign=True)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError, AssertionError) as error:
        raise broken(packed.path, " ".join(str(error).split())[:300]) from None
    module.tie_weights()
    _say_how_to_generate(module, tokenizer, read_json(folder / "config.json"))
    return module.eval()


def _config(packed: PackedModel) -> dict[str, Any]:
    """What WhisperConfig wants to know, out of the shapes."""
    if packed.number("decoder/activation") != _GELU or packed.number("decoder/pre_norm") != 1:
        raise broken(packed.path, "its blocks are not built as Whisper's")
    sides = {name: variable.numbers.shape for name, variable in packed.variables.items()}
    keys: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        layers = 0
        while f"{side}/layer_{layers}/ffn/linear_0/weight" in sides:
            layers += 1
        if not layers:
            raise broken(packed.path, f"it has no layers of the {side}")
        keys[f"{side}_layers"] = layers
        keys[f"{side}_ffn_dim"] = sides[f"{side}/layer_0/ffn/linear_0/weight"][0]
        keys[f"{side}_attention_heads"] = packed.number(f"{side}/num_heads")
    try:
        keys["vocab_size"], keys["d_model"] = sides["decoder/embeddings/weight"]
        keys["num_mel_bins"] = sides["encoder/conv1/weight"][1]
        keys["max_source_positions"] = sides["encoder/position_encodings/encodings"][0]
        keys["max_target_positions"] = sides["decoder/position_encodings/encodings"][0]
    except (KeyError, ValueError, IndexError):
        raise broken(packed.path, "its embeddings, positions or convolutions are missing") from None
    return keys


def _tensors(packed: PackedModel, keys: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight by the name that transformers gives it, in float32."""
    for side in ("encoder", "decoder"):
        yield f"model.{side}.embed_positions.weight", packed.weight(f"{side}/position_encodings/encodings")
        for mark, end in _NORM.items():
            yield f"model.{side}.layer_norm.{end}", packed.weight(f"{side}/layer_norm/{mark}")
        for number in range(keys[f"{side}_layers"]):
            yield from _block(packed, f"{side}/layer_{number}", f"model.{side}.layers.{number}")
    for name in ("conv1", "conv2"):
        for end in ("weight", "bias"):
            yield f"model.encoder.{name}.{end}", packed.weight(f"encoder/{name}/{end}")
    words, head = (packed.variables.get(f"decoder/{name}/weight") for name in ("embeddings", "projection"))
    if words is None or head is None or not (words is head or np.array_equal(words.numbers, head.numbers)):
        raise broken(packed.path, "its head is not its table of words, as in every Whisper")
    yield "model.decoder.embed_tokens.weight", packed.weight("decoder/embeddings/weight")


def _block(packed: PackedModel, place: str, name: str) -> Iterator[tuple[str, np.ndarray]]:
    for part, called in _BLOCK.items():
        if part.startswith("attention/") and place.startswith("encoder/"):
            continue
        for mark, end in (_NORM if part.endswith("layer_norm") else {"weight": "weight", "bias": "bias"}).items():
            yield f"{name}.{called}.{end}", packed.weight(f"{place}/{part}/{mark}")
    for part, names in _JOINED.items():
        if part.startswith("attention/") and place.startswith("encoder/"):
            continue
        for end in ("weight", "bias"):
            whole = packed.weight(f"{place}/{part}/{end}")
            for called, piece in zip(names, np.array_split(whole, len(names)), strict=True):
                if not (end == "bias" and called.endswith("k_proj")):  # adds the same to every key: nothing changes
                    yield f"{name}.{called}.{end}", np.ascontiguousarray(piece)


def _say_how_to_generate(module: Any, tokenizer: Any, config: dict[str, Any]) -> None:
    """What transformers' own generate() wants to know of a Whisper: languages, tasks, and words that are no speech."""
    known = tokenizer.get_added_vocab()
    told = {"max_length": module.config.max_target_positions, "no_timestamps_token_id": known.get("<|notimestamps|>"),
            "suppress_tokens": _whole(config.get("suppress_ids")), "return_timestamps": False,
            "begin_suppress_tokens": _whole(config.get("suppress_ids_begin"))}  # fmt: skip
    languages = set(_whole(config.get("lang_ids")) or ())
    told["is_multilingual"] = "<|transcribe|>" in known and len(languages) > 1
    if told["is_multilingual"]:
        told["lang_to_id"] = {token: number for token, number in known.items() if number in languages}
        told["task_to_id"] = {task: known.get(f"<|{task}|>") for task in ("transcribe", "translate")}
    heads = config.get("alignment_heads")
    if isinstance(heads, list) and all(_whole(pair) and len(pair) == 2 for pair in heads):
        told["alignment_heads"] = heads
    for name, value in told.items():
        if value is not None:
            setattr(module.generation_config, name, value)


def _whole(values: Any) -> list[int] | None:
    """A list of whole numbers as a stranger's config.json may hold it; None for anything else."""
    return values if isinstance(values, list) and all(type(value) is int for value in values) else None
