"""Prompt: learned embeddings put before every input (Lester et al. 2021)."""

from __future__ import annotations

from pydantic import Field

from genwright.core import Learner
from genwright.core import Settings as Options
from genwright.tuning.adapters import DEFAULT_TEXT, bare, is_adapted, set_method, text_ids, wrap
from genwright.tuning.prompts import FRAGILE, check_decoder


class Settings(Options):
    """Options of this method."""

    tokens: int = Field(16, ge=1, description="How many virtual tokens")
    init_text: str = Field(
        DEFAULT_TEXT, description="They start as the embeddings of this text; empty starts them at random"
    )


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Freeze the model and learn `tokens` embeddings (arXiv 2104.08691).

    Raises UsageError for encoder–decoder models.
    """
    import torch
    from peft import PromptTuningConfig

    check_decoder(learner.module, "Prompt tuning")
    going_on = is_adapted(learner.module)
    wrap(learner, PromptTuningConfig(num_virtual_tokens=settings.tokens), "prompt", seed=seed)
    if settings.init_text and not going_on:
        module = learner.module
        table = bare(module).get_input_embeddings()
        ids = torch.tensor(text_ids(learner, settings.init_text, settings.tokens), device=table.weight.device)
        with torch.no_grad():
            module.prompt_encoder[module.active_adapter].embedding.weight.copy_(table(ids))
    set_method(learner, "prompt", FRAGILE)
    return learner
