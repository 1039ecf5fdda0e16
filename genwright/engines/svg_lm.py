"""Icons from words, as SVG that can be edited: a small language model of strokes, which keeps to their grammar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from genwright.core import ModelError, UsageError
from genwright.core import Settings as Base
from genwright.nn.svg_options import SvgConfig


class Settings(Base):
    config: SvgConfig | None = Field(None, description="Random weights by this: {width: 128, depth: 5, heads: 4, …}")


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.svg_lm.SvgLM` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.svg_lm import SvgLM

    if source is None:
        if settings.config is None:
            raise UsageError("A model of drawings needs a source, or a config.", "E.g. config: {width: 128}.")
        return SvgLM(settings.config, seed=seed)
    if settings.config is not None:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    model = SvgLM(_shape_of(source), seed=seed)
    model.load(source)
    return model


def _shape_of(folder: Path) -> SvgConfig:
    from genwright.nn.weights import check_model_folder

    facts = check_model_folder(folder)
    try:
        if facts.get("model_type") != "svg_lm":
            raise ValueError("it is of another kind of model")
        return SvgConfig.model_validate({name: value for name, value in facts.items() if name != "model_type"})
    except (ValueError, ValidationError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no model of drawings: {' '.join(str(error).split())[:200]}",
            "Name a run of the engine svg_lm.",
        ) from None
