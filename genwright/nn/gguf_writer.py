"""GGUF files: a text model's weights, tokenizer and chat template in the one file that llama.cpp runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core import SILENT, MissingExtra, ModelError, Tell

QUANTIZATIONS = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
SKIPPED = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")


@dataclass(frozen=True)
class Family:
    """How the weights of a transformers `model_type` become those of a llama.cpp architecture."""

    arch: str
    rotates_pairs: bool = False  # llama.cpp's Llama turns neighbouring pairs, transformers' turns halves
    norm_plus_one: bool = False  # Gemma stores its norms' weights minus one
    transposed: tuple[str, ...] = ()  # GPT-2 stores these linear layers as (in, out)


FAMILIES = {
    "llama": Family("llama", rotates_pairs=True),
    "mistral": Family("llama", rotates_pairs=True),
    "qwen2": Family("qwen2"),
    "qwen3": Family("qwen3"),
    "gemma3_text": Family("gemma3", norm_plus_one=True),
    "gpt2": Family("gpt2", transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight")),
}


def write_gguf(
    path: Path, state: Mapping[str, Any], config: Any, tokenizer: Any, *, quantization: str = "q8_0",
    facts: Mapping[str, str] | None = None, eot_token_id: int | None = None, tell: Tell = SILENT,
) -> Path:  # fmt: skip
    """Write a causal LM of `transformers` (its state dict, config and fast tokenizer) as one GGUF file.

    `facts` are `general.*` strings (name, license, description …). Tensors are converted one at a time, so the memory
    taken beyond `state` is one tensor's. Raises ModelError for an architecture or a tokenizer that llama.cpp would
    read differently.
    """
    gguf = need_gguf()
    family = family_of(config)
    writer = gguf.GGUFWriter(path, family.arch)
    for key, value in (facts or {}).items():
        writer.add_string(f"general.{key}", value)
    writer.add_file_type(_file_type(quantization))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, config, family)
    write_tokenizer(writer, tokenizer, config.vocab_size, eot_token_id=eot_token_id)
    tensors = list(_tensors(state, config, family))
    for tensor in tensors:
        kind = _kind(tensor, quantization)
        shape = gguf.quant_shape_to_byte_shape(tensor.shape, kind) if _in_blocks(kind) else tensor.shape
        dtype = np.dtype(np.uint8) if _in_blocks(kind) else np.dtype(np.float16 if kind.name == "F16" else np.float32)
        writer.add_tensor_info(tensor.name, shape, dtype, int(np.prod(shape)) * dtype.itemsize, kind)
    write_tensors(writer, [(_quantized, (tensor, quantization)) for tensor in tensors], tell)
    return path


def write_tensors(writer: Any, makers: list[tuple[Callable[..., Any], tuple[Any, ...]]], tell: Tell) -> None:
    """Header, keys and then each tensor as its maker returns it."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    tell.stage("writing GGUF", len(makers))
    for make, given in makers:
        writer.write_tensor_data(make(*given))
        tell.advance()
    writer.close()


def write_lora_gguf(path: Path, state: Mapping[str, Any], adapter: Mapping[str, Any], config: Any) -> Path:
    """Write a PEFT LoRA adapter (its weights and adapter_config) as a GGUF adapter for the base of that `config`.

    Raises ModelError for what llama.cpp's adapters cannot hold: DoRA, biases, trained embeddings, saved modules.
    """
    gguf = need_gguf()
    family = family_of(config)
    if adapter.get("peft_type") != "LORA" or adapter.get("use_dora"):
        kind = "DoRA" if adapter.get("use_dora") else adapter.get("peft_type")
        raise ModelError(
            f"A GGUF adapter can only hold LoRA, not {kind}.",
            "Export the merged model: `formats: [gguf]` without `adapter: true`.",
        )
    if adapter.get("rank_pattern") or adapter.get("alpha_pattern"):
        raise ModelError("A GGUF adapter has one rank and one alpha; this one varies them.", "Export it merged.")
    rank, alpha = int(adapter["r"]), float(adapter["lora_alpha"])
    if adapter.get("use_rslora"):
        alpha *= math.sqrt(rank)  # llama.cpp scales by alpha / rank
    writer = gguf.GGUFWriter(path, family.arch)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for key, value in state.items():
        bare = key.removeprefix("base_model.model.")
        if ".lora_A." in bare:
            module, half = bare.partition(".lora_A.")[0], "lora_a"
        elif ".lora_B." in bare:
            module, half = bare.partition(".lora_B.")[0], "lora_b"
        else:
            raise ModelError(f"A GGUF adapter cannot hold {key}.", "Export the merged model instead.")
        value = value.float()
        if half == "lora_b" and family.rotates_pairs:
            value = _permuted(value, f"{module}.weight", config)
        writer.add_tensor(f"{_gguf_name(f'{module}.weight', config, family)}.{half}", value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def requantize(source: Path, path: Path, quantization: str = "q8_0", *, tell: Tell = SILENT) -> Path:
    """Copy a GGUF file with its quantised matrices in another quantisation; everything else is as it was."""
    gguf = need_gguf()
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, field_of(reader, "general.architecture"))
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind = entry.types[0]
        inner = entry.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, entry.contents(), kind, inner)
    writer.add_file_type(_file_type(quantization))
    makers: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        kind = tensor.tensor_type
        if _in_blocks(kind):
            kind = _wanted(shape, quantization)
        byte_shape = gguf.quant_shape_to_byte_shape(shape, kind) if _in_blocks(kind) else shape
        dtype = np.dtype(np.uint8) if _in_blocks(kind) else np.dtype(np.float16 if kind.name == "F16" else np.float32)
        writer.add_tensor_info(tensor.name, byte_shape, dtype, int(np.prod(byte_shape)) * dtype.itemsize, kind)
        makers.append((_requantized, (tensor, kind)))
    write_tensors(writer, makers, tell)
    return path


def family_of(config: Any) -> Family:
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"GGUF export knows {', '.join(FAMILIES)}; this model is {config.model_type!r}.",
            "Use the format `safetensors` or `merged`.",
        )
    return FAMILIES[config.model_type]


def need_gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise MissingExtra("gguf", "text") from None
    return gguf


def field_of(reader: Any, name: str, default: Any = None) -> Any:
    """A metadata value of a GGUF file that was opened by `gguf.GGUFReader`."""
    entry = reader.fields.get(name)
    return default if entry is None else entry.contents()


# -- shape ------------------------------------------------------------------------------------------------------------


def _write_shape(writer: Any, config: Any, family: Family) -> None:
    """The numbers of the architecture, from the config of `transformers`."""
    heads = config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if family.arch == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    if family.arch == "llama":
        writer.add_rope_dimension_count(head_size)
    _write_rope(writer, config)
    if family.arch == "gemma3":
        writer.add_sliding_window(config.sliding_window)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)
        _check_gemma_layers(config)
    elif getattr(config, "use_sliding_window", False) or (config.model_type == "mistral" and config.sliding_window):
        raise ModelError(
            "GGUF export knows no sliding window but Gemma's.", "Set `sliding_window` to null or export merged."
        )


def _write_rope(writer: Any, config: Any) -> None:
    gguf = need_gguf()
    rope = config.rope_parameters
    if "full_attention" in rope:  # Gemma: one for each kind of layer; llama.cpp takes 10000 for the sliding ones
        if float(rope["sliding_attention"]["rope_theta"]) != 10000.0:
            raise ModelError(
                "llama.cpp takes a rotary base of 10000 in Gemma's sliding layers; this model has another."
            )
        rope = rope["full_attention"]
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    kind = rope.get("rope_type", "default")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):  # llama3's factors are a tensor
        raise ModelError(f"GGUF export does not know the rotary scaling {kind!r}.", "Export safetensors instead.")


def _check_gemma_layers(config: Any) -> None:
    """llama.cpp takes every sixth layer of Gemma 3 as global, without asking the file."""
    wanted = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(config.num_hidden_layers)]
    if list(config.layer_types) != wanted:
        raise ModelError("llama.cpp expects every sixth layer of a Gemma 3 to be global; this model differs.")


# -- tensors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    make: Callable[[], Any]  # () -> float32 numpy array


def _tensors(state: Mapping[str, Any], config: Any, family: Family) -> Iterator[_Tensor]:
    for key, value in state.items():
        if key.endswith(SKIPPED) or (key == "lm_head.weight" and config.tie_word_embeddings):
            continue
        turned = key.endswith(family.transposed) and value.ndim == 2 if family.transposed else False
        shape = tuple(reversed(value.shape)) if turned else tuple(value.shape)
        yield _Tensor(_gguf_name(key, config, family), shape, _Maker(key, value, config, family, turned))
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "llama3":
        factors = _llama3_factors(
            rope, getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        yield _Tensor("rope_freqs.weight", factors.shape, lambda: factors)


@dataclass(frozen=True)
class _Maker:
    key: str
    value: Any
    config: Any
    family: Family
    turned: bool

    def __call__(self) -> Any:
        value = self.value.detach().float().cpu()
        if self.turned:
            value = value.T
        if self.family.rotates_pairs:
            value = _permuted(value, self.key, self.config)
        if self.family.norm_plus_one and self.key.endswith("norm.weight"):
            value = value + 1
        return np.ascontiguousarray(value.numpy())


def _permuted(value: Any, key: str, config: Any) -> Any:
    """Rows of the query and key projections, from "halves" to "pairs" within each head."""
    module = key.rpartition(".")[0]
    if not module.endswith(("q_proj", "k_proj")):
        return value
    heads = config.num_attention_heads if module.endswith("q_proj") else config.num_key_value_heads
    rows = value.shape[0] // heads // 2
    return value.reshape(heads, 2, rows, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)


def _gguf_name(key: str, config: Any, family: Family) -> str:
    gguf = need_gguf()
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch)
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    name: str | None = names.get_name(key, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise ModelError(f"GGUF has no place for the weight {key}.", "Export safetensors instead.")
    return name


def _llama3_factors(rope: Mapping[str, Any], head_size: int) -> Any:
    """Llama 3.1's stretched rotary frequencies, as divisors of the plain ones."""
    frequencies = 1.0 / float(rope["rope_theta"]) ** (np.arange(0, head_size, 2, dtype=np.float64) / head_size)
    factor, low, high = (float(rope[k]) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    old = float(rope["original_max_position_embeddings"])
    waves = 2 * math.pi / frequencies
    smooth = np.clip((old / waves - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)


def _kind(tensor: _Tensor, quantization: str) -> Any:
    if tensor.name == "position_embd.weight":
        return need_gguf().GGMLQuantizationType.F32
    return _wanted(tensor.shape, quantization, keep=tensor.name in ("token_embd.weight", "output.weight"))


def _wanted(shape: tuple[int, ...], quantization: str, *, keep: bool = False) -> Any:
    """Vectors stay f32; the (often tied) vocabulary matrix keeps 8 bits, for it costs most; odd widths keep 16."""
    kinds = need_gguf().GGMLQuantizationType
    if len(shape) < 2 or quantization == "f32":
        return kinds.F32
    if quantization.startswith("q") and shape[-1] % 32:
        return kinds.F16
    return kinds.Q8_0 if keep and quantization.startswith("q") else kinds[quantization.upper()]


def _in_blocks(kind: Any) -> bool:
    return kind.name not in ("F32", "F16")


def _quantized(tensor: _Tensor, quantization: str) -> Any:
    return _packed(tensor.make(), _kind(tensor, quantization))


def _requantized(tensor: Any, kind: Any) -> Any:
    if tensor.tensor_type == kind:
        return tensor.data
    return _packed(need_gguf().dequantize(tensor.data, tensor.tensor_type), kind)


def _packed(values: Any, kind: Any) -> Any:
    return need_gguf().quantize(np.asarray(values, np.float32), kind)


def _file_type(quantization: str) -> int:
    kinds = need_gguf().LlamaFileType
    name = {"f32": "ALL_F32"}.get(quantization, f"MOSTLY_{quantization.upper()}")
    return int(kinds[name])


# -- tokenizer --------------------------------------------------------------------------------------------------------

_QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")  # fmt: skip
_SPLITS = {_QWEN2: "qwen2", _QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|"): "llama-bpe"}


def write_tokenizer(writer: Any, tokenizer: Any, rows: int, *, eot_token_id: int | None = None) -> None:
    """The vocabulary (as many tokens as the embedding has rows), merges, special ids and the chat template."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    model = data["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"GGUF export knows BPE tokenizers; this one is {model['type']}.", "Export safetensors instead."
        )
    if len(tokenizer) > rows:
        raise ModelError(f"The tokenizer has {len(tokenizer)} tokens but the model only {rows} embeddings.")
    tokens, kinds = _tokens(data, rows)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if model.get("byte_fallback"):
        _write_sentencepiece(writer, data, tokens, kinds, merges)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_pre_tokenizer(data))
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    if eot_token_id is not None and eot_token_id != tokenizer.eos_token_id:
        writer.add_eot_token_id(eot_token_id)
    probe = tokenizer("a").input_ids
    writer.add_add_bos_token(bool(probe) and probe[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(len(probe) > 1 and probe[-1] == tokenizer.eos_token_id)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template:
        writer.add_chat_template(template)


def _tokens(data: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    kinds = need_gguf().TokenType
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [int(kinds.UNUSED)] * rows
    for token, number in data["model"]["vocab"].items():
        tokens[number] = token
        types[number] = int(kinds.NORMAL)
    for added in data["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = int(kinds.CONTROL if added["special"] else kinds.USER_DEFINED)
    return tokens, types


def _write_sentencepiece(
    writer: Any, data: Mapping[str, Any], tokens: list[str], kinds: list[int], merges: list[str]
) -> None:
    """SentencePiece's BPE: llama.cpp merges by score, so a token's score is the rank of the merge that makes it."""
    of_kind = need_gguf().TokenType
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1) if merge.count(" ") == 1 else merge, number)
    for number, token in enumerate(tokens):
        if len(token) == 6 and token.startswith("<0x") and kinds[number] == of_kind.NORMAL:
            kinds[number] = int(of_kind.BYTE)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(rank.get(token, len(merges))) for token in tokens])
    writer.add_token_types(kinds)
    text = json.dumps([data.get("normalizer"), data.get("pre_tokenizer")])
    writer.add_add_space_prefix(
        '"Prepend"' in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text
    )


def _pre_tokenizer(data: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the tokenizer splits words, or a ModelError: a wrong one would tokenise differently."""
    if data.get("normalizer") and data["normalizer"].get("type") != "NFC":
        raise ModelError(
            f"llama.cpp has no normaliser {data['normalizer'].get('type')!r}.", "Export safetensors instead."
        )
    steps = data["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    kinds = [step.get("type") for step in steps]
    if kinds[-1] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1].get("use_regex", True):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
            pattern = steps[0]["pattern"].get("Regex", "")
            if pattern in _SPLITS and steps[0]["behavior"] == "Isolated":
                return _SPLITS[pattern]
    raise ModelError(
        f"llama.cpp has no word splitter like this tokenizer's ({' + '.join(map(str, kinds))}).",
        "Export safetensors instead.",
    )
