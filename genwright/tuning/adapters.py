"""Adapters: how a learner's module is wrapped by PEFT, the same for every method that adds weights to a frozen base."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import Field

from genwright.core import Learner, Settings, UsageError, did_you_mean

DEFAULT_TEXT = "Read what is asked, then answer it carefully, correctly and in the manner of the examples."


class LoraSettings(Settings):
    """Options of every low-rank method (LoRA, DoRA, rsLoRA, QLoRA)."""

    rank: int = Field(16, ge=1, description="Inner size of the two added matrices")
    alpha: float | None = Field(
        None, gt=0, description="Strength: what is added is scaled by it; null is twice the rank"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the added matrices, in training")
    targets: str | list[str] = Field(
        "all-linear", description="Linear layers that get matrices: all-linear, or the ends of their names"
    )
    layers: list[int] | None = Field(None, description="Only in these blocks, counted from 0; null is all")
    also: list[str] = Field([], description="Modules trained in full besides, e.g. [embed_tokens, lm_head]")


def lora_config(learner: Learner, settings: LoraSettings, **more: Any) -> Any:
    """PEFT's configuration for a low-rank method. Raises UsageError for targets that the model does not have."""
    from peft import LoraConfig

    targets: str | list[str] = settings.targets
    if targets == "all":
        targets = "all-linear"
    if targets == "all-linear" and not hasattr(bare(learner.module), "get_input_embeddings"):
        targets = _linear_layers(learner.module)  # PEFT knows those of transformers' models only
    elif isinstance(targets, str) and targets != "all-linear":
        targets = [targets]
    if isinstance(targets, list):
        check_names(learner.module, targets, "targets")
    check_names(learner.module, settings.also, "also", linear=False)
    if settings.layers is not None:
        count = len(blocks(learner.module))
        if any(not 0 <= n < count for n in settings.layers):
            raise UsageError(f"`layers` names blocks up to {max(settings.layers)}, but the model has {count}.", _COUNT)
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha if settings.alpha is not None else 2 * settings.rank,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=targets,
        layers_to_transform=settings.layers,
        modules_to_save=settings.also or None,
        **more,
    )


_COUNT = "Blocks are counted from 0."


def wrap(learner: Learner, config: Any, method: str, *, seed: int) -> Learner:
    """Put the adapter of `config` around the learner's module: base frozen, adapter trainable, drawn from `seed`.

    A learner that was loaded from a run with an adapter of the same kind goes on with that adapter.
    Raises UsageError when it holds an adapter of another kind.
    """
    import torch
    from peft import get_peft_model

    config.task_type = task_type(learner.module)
    if config.is_prompt_learning and config.task_type is None:
        raise UsageError(f"{method} puts virtual tokens before text, and this model writes none.", "Use `lora`.")
    if is_adapted(learner.module):
        _go_on(learner.module, config)
    else:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            try:
                learner.module = get_peft_model(learner.module, config)
            except ValueError as error:
                raise UsageError(f"PEFT cannot put {method} on this model: {error}", _TARGETS) from error
    set_method(learner, method)
    return learner


_TARGETS = "Name the layers yourself with `targets`."


def set_method(learner: Any, method: str, *notes: str) -> None:
    """Say on the learner how it is tuned, and what the person should know of it (`notes` end up in the events)."""
    learner.method = method
    learner.notes = [*getattr(learner, "notes", []), *notes]


def is_adapted(module: Any) -> bool:
    """Whether PEFT is around the module already."""
    return hasattr(module, "peft_config") and hasattr(module, "get_base_model")


def merged(learner: Learner) -> Any:
    """The learner's module without PEFT, what the adapter learned merged into its weights.

    Raises UsageError for adapters that cannot be merged (virtual tokens).
    """
    module = learner.module
    if not is_adapted(module):
        return module
    if module.active_peft_config.is_prompt_learning:
        raise UsageError(
            f"The model to start from has a {module.active_peft_config.peft_type.value} adapter; it cannot be merged.",
            "Go on with the same method, or start from its base model.",
        )
    from genwright.nn.quantised import restore_layers

    restore_layers(module)
    learner.module = module.merge_and_unload()
    return learner.module


def bare(module: Any) -> Any:
    """The transformers model inside a PEFT wrapper, or the module itself."""
    return module.get_base_model() if is_adapted(module) else module


def task_type(module: Any) -> str | None:
    """PEFT's word for what the module does; None where it has none (masked language models)."""
    inner = bare(module)
    name = type(inner).__name__
    if getattr(getattr(inner, "config", None), "is_encoder_decoder", False):
        return "SEQ_2_SEQ_LM"
    if name.endswith("ForSequenceClassification"):
        return "SEQ_CLS"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return None


def blocks(module: Any) -> list[tuple[str, Any]]:
    """The repeated blocks of a transformer, (name, block) from first to last; an encoder's before a decoder's."""
    from torch import nn

    found: list[tuple[str, Any]] = []
    roots: list[str] = []
    for name, child in bare(module).named_modules():
        if isinstance(child, nn.ModuleList) and len(child) and not any(name.startswith(root + ".") for root in roots):
            roots.append(name)
            found += [(f"{name}.{number}", block) for number, block in enumerate(child)]
    return found


def _linear_layers(module: Any) -> list[str]:
    """The full names of the linear layers."""
    from torch import nn

    return [name for name, child in bare(module).named_modules() if isinstance(child, nn.Linear)]


def linear_names(module: Any) -> list[str]:
    """The distinct last names of the linear layers (Conv1D included), in order."""
    from torch import nn

    names = [
        name.rpartition(".")[2]
        for name, child in bare(module).named_modules()
        if isinstance(child, nn.Linear) or type(child).__name__ == "Conv1D"
    ]
    return list(dict.fromkeys(names))


def check_names(module: Any, wanted: Sequence[str], option: str, *, linear: bool = True) -> None:
    """Raise UsageError unless every wanted name is the end of some layer's name."""
    every = [name for name, _ in bare(module).named_modules() if name]
    known = linear_names(module) if linear else list(dict.fromkeys(name.rpartition(".")[2] for name in every))
    for name in wanted:
        if not any(full == name or full.endswith("." + name) for full in every):
            raise UsageError(f"`{option}` names {name!r}, which the model does not have.", did_you_mean(name, known))


def text_ids(learner: Any, text: str, count: int) -> list[int]:
    """Exactly `count` tokens of a text: repeated when it is shorter, cut when it is longer.

    Raises UsageError when the text has no tokens.
    """
    ids = learner.tokenizer(text, add_special_tokens=False)["input_ids"]
    if not ids:
        raise UsageError("`init_text` has no tokens.", "Give a sentence that tells the model what to do.")
    return [int(ids[i % len(ids)]) for i in range(count)]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of PEFT that nobody can act on: a name that transformers is about to drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _go_on(module: Any, config: Any) -> None:
    old = module.active_peft_config
    same = ("peft_type", "r", "num_virtual_tokens", "use_dora", "use_rslora", "prefix_projection")
    odd = [name for name in same if getattr(old, name, None) != getattr(config, name, None)]
    if odd:
        raise UsageError(
            f"The model to start from has a {old.peft_type.value} adapter that differs in {', '.join(odd)}.",
            "Use the same method and options, start from its base model, or export it merged and start from that.",
        )
    old.inference_mode = False
    name = module.active_adapter
    for path, parameter in module.named_parameters():
        ours = "prompt_encoder" in path if old.is_prompt_learning else f".{name}" in path and "base_layer" not in path
        parameter.requires_grad_(ours)
