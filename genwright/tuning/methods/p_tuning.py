"""P-tuning: virtual tokens made by a small trained network (Liu et al. 2021)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from genwright.core import Learner
from genwright.core import Settings as Options
from genwright.tuning.adapters import set_method, wrap
from genwright.tuning.prompts import FRAGILE, check_decoder


class Settings(Options):
    """Options of this method."""

    tokens: int = Field(16, ge=1, description="How many virtual tokens")
    network: Literal["mlp", "lstm"] = Field("mlp", description="The network that makes them; dropped when saved")
    hidden_size: int | None = Field(None, ge=1, description="Inner size of the network; null is the model's")
    layers: int = Field(2, ge=1, description="Layers of the LSTM")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout between the layers of the LSTM, in training")

    @model_validator(mode="after")
    def _of_the_lstm(self) -> Any:
        odd = [name for name in ("layers", "dropout") if name in self.model_fields_set and self.network != "lstm"]
        if odd:
            raise ValueError(f"{' and '.join(odd)} belong to the LSTM; set network: lstm")
        return self


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Freeze the model and learn the network (arXiv 2103.10385). Raises UsageError for encoder–decoder models."""
    from peft import PromptEncoderConfig

    check_decoder(learner.module, "P-tuning")
    config = PromptEncoderConfig(
        num_virtual_tokens=settings.tokens,
        encoder_reparameterization_type=settings.network.upper(),
        encoder_hidden_size=settings.hidden_size,  # type: ignore[arg-type]
        encoder_num_layers=settings.layers,
        encoder_dropout=settings.dropout,
    )
    wrap(learner, config, "p_tuning", seed=seed)
    set_method(learner, "p_tuning", FRAGILE)
    return learner
