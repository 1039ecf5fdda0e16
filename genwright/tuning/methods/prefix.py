"""Prefix: learned keys and values that every layer attends to before the first token (Li & Liang 2021)."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from genwright.core import Learner
from genwright.core import Settings as Options
from genwright.tuning.adapters import DEFAULT_TEXT, bare, is_adapted, set_method, task_type, text_ids, wrap
from genwright.tuning.prompts import FRAGILE, check_decoder


class Settings(Options):
    """Options of this method."""

    tokens: int = Field(16, ge=1, description="Length of the prefix")
    init_text: str = Field(
        DEFAULT_TEXT, description="The prefix starts as the keys and values of this text; empty starts it at random"
    )
    projection: bool = Field(False, description="Train the prefix through a two-layer network, dropped when saved")
    hidden_size: int | None = Field(None, ge=1, description="Inner size of that network; null is the model's")

    @model_validator(mode="after")
    def _of_the_network(self) -> Any:
        if self.hidden_size is not None and not self.projection:
            raise ValueError("hidden_size belongs to the network; set projection: true")
        return self


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Freeze the model and learn `tokens` keys and values a layer (arXiv 2101.00190).

    A random prefix disturbs a trained model, so it starts as what the model itself makes of `init_text`, with a
    projection too: the network's last layer is solved for that. Raises UsageError for encoder–decoder models.
    """
    from peft import PrefixTuningConfig

    check_decoder(learner.module, "Prefix tuning")
    going_on = is_adapted(learner.module)
    config = PrefixTuningConfig(
        num_virtual_tokens=settings.tokens,
        prefix_projection=settings.projection,
        encoder_hidden_size=settings.hidden_size,  # type: ignore[arg-type]
    )
    wrap(learner, config, "prefix", seed=seed)
    set_method(learner, "prefix", FRAGILE)
    if settings.init_text and not going_on:
        if task_type(learner.module) == "CAUSAL_LM":
            _start_from_text(learner, settings)
        else:
            set_method(learner, "prefix", "An encoder keeps no keys and values of a text: the prefix starts at random.")
    return learner


def _start_from_text(learner: Any, settings: Settings) -> None:
    import torch

    module = learner.module
    ids = torch.tensor([text_ids(learner, settings.init_text, settings.tokens)])
    inner = bare(module)
    was_training = module.training
    module.eval()
    with torch.no_grad():
        cache = inner(input_ids=ids.to(inner.device), use_cache=True).past_key_values
        # (P, layers · 2, heads, head_dim), the order in which PEFT unfolds a prefix
        wanted = torch.stack([x[0].transpose(0, 1) for layer in cache.layers for x in (layer.keys, layer.values)], 1)
        encoder = module.prompt_encoder[module.active_adapter]
        _aim(encoder, wanted.reshape(settings.tokens, -1).float())
    module.train(was_training)


def _aim(encoder: Any, wanted: Any) -> None:
    """Let the prefix encoder give `wanted` (P, layers · 2 · dim) to begin with."""
    import torch

    if not encoder.prefix_projection:
        encoder.embedding.weight.copy_(wanted)
        return
    first, squash, last = encoder.transform
    inner = squash(first(encoder.embedding.weight))
    rest = wanted - inner @ last.weight.T - last.bias
    last.weight += torch.linalg.lstsq(inner, rest, driver="gelsd").solution.T
