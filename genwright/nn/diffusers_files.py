"""Files of diffusers pipelines: opened when they are nothing but weights and settings, and what was learned on them.

A folder is a whole pipeline (`model_index.json` and a folder a component), an adapter or new words; the last two name
the base that they were learned on.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from genwright.core.errors import ModelError

from .checkpoint import write_safetensors
from .diffusers_learner import DiffusersPipeline
from .diffusers_painting import quiet
from .diffusers_words import NewWords
from .weights import MANIFEST, PIPELINE, check_model_folder, read_json, weights_digest

ADAPTER, WORDS, CONFIG = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors", "adapter_config.json"
_WORDS_KIND = "TEXTUAL_INVERSION"
_BROKEN = (ImportError, OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, SafetensorError)


def open_learner(folder: Path, *, dtype: torch.dtype, size: int | None = None) -> DiffusersPipeline:
    """A pipeline, or what was learned on one, from a folder. Raises ModelError for all that such a folder can hold."""
    facts = check_model_folder(folder)
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    size = size or manifest.get("size")
    if (folder / PIPELINE).is_file():
        learner = DiffusersPipeline(_pipeline(folder, facts, dtype), size=size)
    else:
        base = manifest.get("base") or {}
        learner = open_learner(_base(folder, base), dtype=dtype, size=size)
        try:
            if facts.get("peft_type") == _WORDS_KIND:
                learner.pipeline.load_textual_inversion(folder, weight_name=WORDS, use_safetensors=True)
            else:
                _load_adapter(learner, folder)
                learner.base_reference = {name: str(value) for name, value in base.items()}
        except _BROKEN as error:
            raise ModelError(
                f"What {folder} holds does not fit its pipeline: {_said(error)}", "Tune it again."
            ) from None
    learner.method = str(manifest.get("method", ""))
    return learner


def save_lora(learner: DiffusersPipeline, folder: Path) -> None:
    """LoRA as `pipeline.load_lora_weights(folder)` reads it, with PEFT's settings in the header (strength, layers)."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = learner.module.peft_config[learner.module.active_adapter]
    config.base_model_name_or_path = learner.base_reference.get("source") or learner.base_reference.get("path")
    config.save_pretrained(folder)
    header = {f"{learner.part}.{name}": value for name, value in read_json(folder / CONFIG).items()}
    found = get_peft_model_state_dict(learner.module, save_embedding_layers=False)
    state = {f"{learner.part}.{n.removeprefix('base_model.model.')}": t.cpu().contiguous() for n, t in found.items()}
    more = {"format": "pt", "lora_adapter_metadata": json.dumps(header, sort_keys=True)}
    save_file(state, folder / ADAPTER, metadata=more)


def save_words(words: NewWords, folder: Path) -> None:
    """The embeddings of the new word as `pipeline.load_textual_inversion(folder)` reads them, (k, d) under its name."""
    rows = words.rows.weight.detach().cpu().contiguous()
    write_safetensors(folder / WORDS, {words.token: rows})
    facts = {"peft_type": _WORDS_KIND, "token": words.token, "vectors": len(rows)}
    (folder / CONFIG).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _base(folder: Path, base: dict[str, Any]) -> Path:
    """Where the pipeline lies that something was learned on. Raises ModelError when it is gone or altered."""
    place = Path(str(base.get("path") or "nowhere"))
    if not place.is_dir():
        raise ModelError(
            f"The pipeline that {folder} was learned on is not at {base.get('path') or 'any known place'}.",
            "Put its folder there, or tune again.",
        )
    if base.get("sha256") and weights_digest(place) != base["sha256"]:
        raise ModelError(
            f"{place} is not the pipeline that {folder} was learned on: its sha256 differs.",
            "Restore that pipeline, or tune again.",
        )
    return place


def _load_adapter(learner: DiffusersPipeline, folder: Path) -> None:
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    found = load_file(folder / ADAPTER)
    with quiet():
        learner.module = get_peft_model(learner.module, PeftConfig.from_pretrained(str(folder)))
    state = {f"base_model.model.{name.removeprefix(learner.part + '.')}": tensor for name, tensor in found.items()}
    left: Any = set_peft_model_state_dict(learner.module, state)
    if left.unexpected_keys:
        raise ValueError(f"there is no layer {left.unexpected_keys[0]}")
    learner.module.requires_grad_(False).eval()


def _pipeline(folder: Path, index: dict[str, Any], dtype: torch.dtype) -> Any:
    """The pipeline, of classes that diffusers and transformers know. Raises ModelError."""
    import diffusers
    from diffusers.utils import logging

    from .pretrained import hush

    hush()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    parts = [part for part in index.values() if isinstance(part, list) and part and part[0]]
    odd = [str(part[0]) for part in parts if not _is_known(part[0])]
    kind: Any = getattr(diffusers, str(index.get("_class_name")), None)
    if odd or not hasattr(kind, "from_pretrained") or not issubclass(kind, diffusers.DiffusionPipeline):
        raise ModelError(
            f"{folder} asks for {odd[0] if odd else index.get('_class_name')!r}, which diffusers does not know; code "
            "that comes with a model is not run.",
            "Use a pipeline of diffusers' own.",
        )
    if "prompt" not in inspect.signature(kind.__call__).parameters:
        raise ModelError(f"A {kind.__name__} reads no words.", "Use a pipeline that paints from words.")
    try:
        with quiet():
            pipeline = kind.from_pretrained(
                str(folder), torch_dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
    except _BROKEN as error:
        raise ModelError(f"The pipeline in {folder} cannot be opened: {_said(error)}", "Fetch it again.") from None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _is_known(library: Any) -> bool:
    import diffusers.pipelines

    return library in ("diffusers", "transformers") or hasattr(diffusers.pipelines, str(library))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
