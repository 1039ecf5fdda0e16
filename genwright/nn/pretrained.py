"""Pretrained: what the three text engines share: opening a model from disk or from a configuration, and keeping one.

A learner holds a transformers module (perhaps inside PEFT) and its tokenizer. It is opened from a checked folder, a
GGUF file (converted once), a run's model (full or adapter), or made from a configuration with random weights.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genwright.core.errors import ModelError, UsageError
from genwright.core.packed import PACKED, is_packed
from genwright.core.plugin import did_you_mean
from genwright.core.things import SILENT, Tell
from genwright.nn.attention import bare, packed_hidden, use_packed_attention
from genwright.nn.options import ModelSettings, TrainTokenizer
from genwright.nn.packing import Packed
from genwright.nn.quantised import quantise_layers, quantised_as, restore_layers
from genwright.nn.text import make_ready, open_tokenizer
from genwright.nn.tokenizer_training import train_tokenizer
from genwright.nn.weights import MANIFEST, check_model_folder, parameters_in, read_json, weight_files, weights_digest

_NEW_HEADS = ("classifier", "head", "score", "pooler", "bert.pooler", "pre_classifier")
_OLDER_KEYS = {  # keys of older config.json files that the classes still read -> the key that they became
    "rope_theta": "rope_parameters", "rope_scaling": "rope_parameters", "rope_local_base_freq": "layer_types",
    "global_rope_theta": "layer_types", "local_rope_theta": "layer_types", "global_attn_every_n_layers": "layer_types",
    "sliding_window_pattern": "layer_types", "decoder_start_token_id": "is_encoder_decoder",
}  # fmt: skip
_LARGE = 1_000_000_000  # parameters beyond which `dtype: auto` keeps weights in bfloat16


class Pretrained:
    """A module with its tokenizer: what does not depend on whether it is a decoder, an encoder or both."""

    engine = ""

    def __init__(self, module: Any, tokenizer: Any, settings: Any):
        self.module, self.tokenizer, self.settings = module, tokenizer, settings
        self.base_reference: dict[str, str] = {}
        self.method = ""
        self.notes: list[str] = []
        self.context = context_length(module.config, tokenizer)
        self.max_length = self.context
        self._kept: Any = None
        self._fast: dict[int, tuple[Any, torch.dtype]] = {}  # modules that were sped up, and for which precision

    def set_max_length(self, length: int) -> None:
        """Tokens of a whole conversation in training; never more than the model has positions for."""
        self.max_length = min(length, self.context)

    def embeddings(self) -> nn.Module:
        """The module that looks up token embeddings."""
        found: nn.Module = bare(self.module).get_input_embeddings()
        return found

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    @property
    def part_to_compile(self) -> nn.Module:
        """What `train.compile` compiles: the body that packed rows go through, not the wrappers around it."""
        body: nn.Module = bare(self.module).base_model
        return body

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def keep_base(self) -> None:
        """Keep a frozen copy of the module as it is now, for `untuned`. An adapter needs none; the first copy stays."""
        import copy

        if self._kept is None and not hasattr(self.module, "disable_adapter"):
            with self._slow():
                self._kept = copy.deepcopy(self.module).requires_grad_(False).eval()

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Within it the module answers as before tuning: adapters off, or the copy made by `keep_base`.

        Raises ModelError for a module without adapter of which no copy was kept.
        """
        if hasattr(self.module, "disable_adapter"):
            with self.module.disable_adapter():
                yield
            return
        if self._kept is None:
            raise ModelError(
                "There is no copy of the model before tuning.",
                "Call keep_base() before the first step, or use an adapter.",
            )
        tuned, self.module = self.module, self._kept.to(self.device)
        try:
            yield
        finally:
            self.module = tuned

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration, tokenizer and template into an existing folder.

        An adapter is saved alone, with where its base lies; a base made from a configuration is saved beside it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.module, "disable_adapter"):
            self._save_adapter(folder)
        else:
            self.module.save_pretrained(folder, max_shard_size="4GB")
        self.tokenizer.save_pretrained(folder)
        facts = json.dumps(self.facts(), indent=2, ensure_ascii=False)
        (folder / MANIFEST).write_text(facts + "\n", encoding="utf-8")

    def facts(self) -> dict[str, Any]:
        """What genwright.json says of how to load the folder again."""
        facts = {"engine": self.engine, "method": self.method, "base": self.base_reference}
        how = quantised_as(self.module)
        return facts | ({"quantised": how} if how else {})

    def _save_adapter(self, folder: Path) -> None:
        if not self.base_reference.get("path"):
            base = folder / "base"
            with self.module.disable_adapter():
                _plain_copy(self.module).save_pretrained(base, max_shard_size="4GB")
            self.tokenizer.save_pretrained(base)
            self.base_reference = {"source": "", "path": "base", "sha256": weights_digest(base)}
        for config in self.module.peft_config.values():
            config.base_model_name_or_path = self.base_reference["path"]
        learned = {name for name, _ in self.module.named_parameters() if "embed" in name and "lora" in name}
        with quiet():
            self.module.save_pretrained(folder, safe_serialization=True, save_embedding_layers=bool(learned))
        (folder / "README.md").unlink(missing_ok=True)

    def merge(self) -> None:
        """Put what an adapter learned into the weights, in place; nothing to do without one.

        Raises UsageError for adapters that have no merged form (virtual tokens).
        """
        if not hasattr(self.module, "merge_and_unload"):
            if hasattr(self.module, "disable_adapter"):
                raise UsageError(
                    "Virtual tokens cannot be merged into weights.", "Export the adapter, or tune by LoRA."
                )
            return
        restore_layers(self.module)
        with self._slow():
            self.module = self.module.merge_and_unload()

    def _hidden(self, packed: Packed, module: Any = None) -> Tensor:
        """Last hidden states (T, d), by the fast way in the precision of the passes where the model has one."""
        module = self.module if module is None else module
        from genwright.nn.fused import speed_up

        kind = packed.tokens.device.type
        auto = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        dtype = auto or bare(module).get_input_embeddings().weight.dtype
        known = self._fast.get(id(module))
        if known is None or known[0] is not module or known[1] != dtype:
            speed_up(module, dtype)
            self._fast[id(module)] = (module, dtype)
        return packed_hidden(module, packed)

    @contextmanager
    def _slow(self) -> Iterator[None]:
        """Without what `speed_up` keeps beside the module."""
        from genwright.nn.fused import slow_down

        slow_down(self.module)
        self._fast.pop(id(self.module), None)
        yield

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Evaluation mode and no gradients, and the mode that it was in afterwards."""
        learning = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train(learning)


# -- opening ---------------------------------------------------------------------------------------------------------


def open_pretrained(
    kind: Callable[..., Any], source: Path | None, settings: ModelSettings, *, auto: str, seed: int,
    texts: Iterable[str] | None, tell: Tell = SILENT, framed: bool = False, **more: Any,
) -> Any:  # fmt: skip
    """A learner `kind(module, tokenizer, settings)` from a folder, a GGUF file or `settings.config`.

    `auto` names transformers' class ("AutoModelForCausalLM"); `more` goes to its configuration. Raises ModelError or
    UsageError with a sentence for everything that a stranger's folder can hold.
    """
    hush()
    if source is None:
        module, tokenizer = _random(settings, auto, seed=seed, texts=texts, framed=framed, more=more)
        return kind(module, tokenizer, settings)
    if settings.config:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    folder = model_folder(source, tell=tell)
    if is_packed(folder):
        return _unpacked(kind, folder, settings, auto, texts, framed)
    config = check_model_folder(folder)
    if "peft_type" in config or (folder / "adapter_config.json").is_file():
        return _adapted(kind, folder, settings, auto=auto, seed=seed, tell=tell, **more)
    tokenizer = _tokenizer(settings, folder, texts, framed)
    learner = kind(_weights(folder, settings, auto, seed, more), tokenizer, settings)
    if (folder / MANIFEST).is_file():
        learner.method = str(read_json(folder / MANIFEST).get("method", ""))
    return learner


def architectures(source: Path | None) -> list[str]:
    """The class names in a folder's config.json (an adapter's: in its base's); empty where there are none."""
    if source is None or not source.is_dir():
        return []
    if (source / "adapter_config.json").is_file():
        facts = read_json(source / MANIFEST) if (source / MANIFEST).is_file() else {}
        if facts.get("labels"):
            return ["ForSequenceClassification"]
        named = (facts.get("base") or {}).get("path")
        return architectures(source / named) if named else []
    found = read_json(source / "config.json").get("architectures") if (source / "config.json").is_file() else None
    return [str(name) for name in found] if isinstance(found, list) else []


def model_folder(source: Path, *, tell: Tell = SILENT) -> Path:
    """The folder to read: a GGUF file is converted once and kept. Raises ModelError for any other file."""
    from genwright.nn.weights import PICKLES, refuse_pickle

    if source.is_dir():
        return source
    if not source.exists():
        raise ModelError(f"There is no model at {source}.", "Give a folder in Hugging Face layout, or a GGUF file.")
    if source.suffix == ".gguf":
        from genwright.nn.gguf_weights import converted

        return converted(source, tell=tell)
    if source.suffix.lower() in PICKLES:
        raise refuse_pickle(source)
    raise ModelError(
        f"{source} is a single file, and a model is a folder.", "Give the folder that holds it, with its config.json."
    )


def context_length(config: Any, tokenizer: Any) -> int:
    """How many positions the model has; what the tokenizer says, or 4096, where positions are relative."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            shift = 2 if text.model_type in ("roberta", "xlm-roberta", "camembert") else 0
            return found - shift
    told = getattr(tokenizer, "model_max_length", None) or 0
    return told if 0 < told < 1_000_000 else 4096


def hush() -> None:
    """Keep transformers' progress bars and notes off the screen: what matters reaches the person through us."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of PEFT that nobody can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws from `seed`; outside nothing was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def weight_dtype(settings: ModelSettings, parameters: int) -> torch.dtype:
    if settings.dtype == "auto":
        return torch.bfloat16 if parameters > _LARGE else torch.float32
    return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32


def _weights(folder: Path, settings: ModelSettings, auto: str, seed: int, more: dict[str, Any]) -> Any:
    import transformers
    from safetensors import SafetensorError

    dtype = weight_dtype(settings, parameters_in(weight_files(folder)))
    try:
        with seeded(seed):
            config = transformers.AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True, **more
            )
            module, report = getattr(transformers, auto).from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
                local_files_only=True, output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The model in {folder} cannot be loaded: {' '.join(str(error).split())[:300]}",
            "Check that config.json and the weights belong together.",
        ) from None
    _all_there(folder, report)
    module.config._name_or_path = ""  # else the path on this machine would be saved with the model
    return _take_packed(module)


def _unpacked(kind: Callable[..., Any], folder: Path, settings: ModelSettings, auto: str, texts: Iterable[str] | None,
              framed: bool) -> Any:  # fmt: skip
    """A learner out of a model in CTranslate2's form, converted in memory; it knows its base by that file's sha256."""
    from genwright.nn.whisper_weights import packaged_whisper

    if auto != "AutoModelForSpeechSeq2Seq":
        raise ModelError(
            f"{folder} holds a model in CTranslate2's form, of which only a Whisper can be taught, by task transcribe.",
            "Give the safetensors or GGUF form of the model.",
        )
    tokenizer = _tokenizer(settings, folder / "tokenizer.json", texts, framed)
    dtype = weight_dtype(settings, (folder / PACKED).stat().st_size // 2)  # float16 is the usual form
    learner = kind(packaged_whisper(folder, tokenizer, dtype), tokenizer, settings)
    learner.base_reference = {"sha256": weights_digest(folder)}
    return learner


def _all_there(folder: Path, report: Any) -> None:
    """Weights that are missing would be random numbers: only a new head for a new task may be."""
    missing = [name for name in report["missing_keys"] if not name.startswith(_NEW_HEADS)]
    odd = [*missing, *(str(m[0]) for m in report["mismatched_keys"])]
    if odd:
        raise ModelError(
            f"The weights in {folder} lack {len(odd)} of the model's tensors, {odd[0]} among them.",
            "Check that config.json and the weights belong together.",
        )


def _random(
    settings: ModelSettings, auto: str, *, seed: int, texts: Iterable[str] | None, framed: bool, more: dict[str, Any]
) -> tuple[Any, Any]:
    import transformers

    keys = dict(settings.config)
    kind = keys.pop("model_type", None)
    if not kind:
        raise UsageError("A model needs a source, or a config with a model_type.", "E.g. config: {model_type: llama}.")
    tokenizer = _tokenizer(settings, None, texts, framed)
    known = transformers.CONFIG_MAPPING
    if kind not in known:
        raise UsageError(f"No model_type {kind!r}. {did_you_mean(str(kind), known.keys())}")
    of_kind = known[kind]
    allowed = {*of_kind().to_dict(), *getattr(of_kind, "attribute_map", {})}
    allowed |= {old for old, new in _OLDER_KEYS.items() if new in allowed}
    for key in keys:
        if key not in allowed:
            raise UsageError(f"config.{key}: a {kind} has no such key. {did_you_mean(key, allowed)}")
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    keys = {"vocab_size": len(tokenizer)} | tokens | keys
    if keys["vocab_size"] < len(tokenizer):
        raise UsageError(
            f"config.vocab_size is {keys['vocab_size']} but the tokenizer has {len(tokenizer)} tokens.", "Leave it out."
        )
    try:
        config = of_kind(**keys, **more)
        if config.is_encoder_decoder:  # the classes' own defaults belong to their first vocabularies
            config.decoder_start_token_id = keys.get("decoder_start_token_id", tokenizer.pad_token_id)
            config.forced_eos_token_id = keys.get("forced_eos_token_id")
        with seeded(seed):
            module = getattr(transformers, auto).from_config(config, dtype=weight_dtype(settings, 0))
    except (ValueError, TypeError, KeyError, RuntimeError, AssertionError, ZeroDivisionError, AttributeError) as error:
        raise UsageError(
            f"No model can be made of this config: {' '.join(str(error).split())[:300]}",
            "Compare it with a config.json.",
        ) from None
    return _take_packed(module), tokenizer


def _take_packed(module: Any) -> Any:
    """Let rows be packed where the architecture allows it; encoder-decoders are batched otherwise."""
    if not getattr(module.config, "is_encoder_decoder", False):
        use_packed_attention(module)
    return module.eval()


def _tokenizer(settings: ModelSettings, folder: Path | None, texts: Iterable[str] | None, framed: bool) -> Any:
    chosen = settings.tokenizer
    if isinstance(chosen, TrainTokenizer):
        if texts is None:
            raise UsageError(
                "A tokenizer is trained on texts, and none were given.", "Name a tokenizer to load instead."
            )
        return train_tokenizer(chosen.train, chosen.vocab_size, texts, framed=framed)
    if chosen is not None:
        place = model_folder(chosen) if chosen.suffix == ".gguf" else chosen
        return open_tokenizer(place)
    if folder is None:
        raise UsageError(
            "A model with random weights needs a tokenizer.", "E.g. tokenizer: {train: bpe, vocab_size: 8000}."
        )
    return make_ready(open_tokenizer(folder))


def _adapted(kind: Callable[..., Any], folder: Path, settings: ModelSettings, *, auto: str, seed: int, tell: Tell,
             **more: Any) -> Any:  # fmt: skip
    """A run's adapter on the base that it was trained on."""
    from peft import PeftModel
    from safetensors import SafetensorError

    facts = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    base = facts.get("base") or {}
    named = base.get("path") or read_json(folder / "adapter_config.json").get("base_model_name_or_path") or ""
    place = (folder / named) if named else None
    if place is None or not place.exists():
        raise ModelError(
            f"The base of the adapter in {folder} is not at {named or 'any known place'}.",
            f"Fetch it again: `genwright models pull {base.get('source') or 'NAME'}`; or put its folder there.",
        )
    if base.get("sha256") and weights_digest(place) != base["sha256"]:
        raise ModelError(
            f"{place} is not the base that the adapter in {folder} was trained on: its sha256 differs.",
            "Restore that base, or tune again.",
        )
    learner = open_pretrained(kind, place, settings, auto=auto, seed=seed, texts=None, tell=tell, **more)
    learner.merge()
    if facts.get("labels") and hasattr(learner, "set_labels"):
        learner.set_labels(facts["labels"])
    if facts.get("quantised"):
        quantise_layers(learner.module, **facts["quantised"])
    if (folder / "tokenizer_config.json").is_file():
        learner.tokenizer = make_ready(open_tokenizer(folder))
    try:
        with quiet(), seeded(seed):
            learner.module = PeftModel.from_pretrained(
                learner.module, str(folder), torch_device="cpu", use_safetensors=True
            ).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, SafetensorError) as error:
        raise ModelError(
            f"The adapter in {folder} does not fit its base: {' '.join(str(error).split())[:300]}", "Tune it again."
        ) from None
    learner.base_reference = {
        "source": str(base.get("source", "")),
        "path": str(named),
        "sha256": str(base.get("sha256", "")),
    }
    if not Path(named).is_absolute():
        learner.base_reference["path"] = str(place.resolve())
    learner.method = str(facts.get("method", "adapter"))
    return learner


def _plain_copy(module: Any) -> Any:
    """The transformers model under an adapter, as it was: same weights, no adapter layers."""
    import copy

    if not hasattr(module, "unload"):
        return module.get_base_model()
    plain = copy.deepcopy(module).unload()
    restore_layers(plain)
    return plain


def first_positions(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Index of the first token of every segment, (S,)."""
    ends = torch.tensor([0, *lengths[:-1]], device=device)
    return ends.cumsum(0)
