"""Pictures from words: a transformer over patches that learns flow matching in pixels, with styles and guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Settings as Base
from genwright.core import UsageError
from genwright.nn.flow_options import FlowConfig


class Settings(Base):
    config: FlowConfig | None = Field(
        None, description="Random weights by this: {size: 64, patch: 8, width: 256, depth: 8, …}"
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto", description="Precision of painting; auto is bfloat16 where the machine has it, else float32; or int8"
    )


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> Any:
    """A `nn.flow.FlowImage` from the folder of a finished run, or with random weights by `settings.config`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    from genwright.nn.device import choose_device, choose_dtype
    from genwright.nn.flow import FlowImage
    from genwright.nn.weights import check_model_folder

    dtype = choose_dtype(settings.dtype, choose_device("cpu"))
    if source is None:
        if settings.config is None:
            raise UsageError("A picture model needs a source, or a config.", "E.g. config: {size: 64, patch: 8}.")
        return FlowImage(settings.config, seed=seed, dtype=dtype)
    if settings.config is not None:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    config, styles = _shape_of(check_model_folder(source), source)
    model = FlowImage(config, styles, seed=seed, dtype=dtype)
    model.load(source)
    return model


def _shape_of(facts: dict[str, Any], folder: Path) -> tuple[FlowConfig, list[str]]:
    from pydantic import ValidationError

    from genwright.core import ModelError

    kept = {name: value for name, value in facts.items() if name not in ("model_type", "styles")}
    styles = facts.get("styles")
    try:
        if facts.get("model_type") != "flow_image" or not isinstance(styles, list):
            raise ValueError("it is of another kind of model")
        return FlowConfig.model_validate(kept), [str(style) for style in styles]
    except (ValueError, ValidationError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no picture model of ours: {' '.join(str(error).split())[:200]}",
            "Name a run of the engine flow_image.",
        ) from None
