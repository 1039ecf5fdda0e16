"""IA3: a learned factor for keys, values and the inside of each feed-forward layer (Liu et al. 2022)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Learner, UsageError
from genwright.core import Settings as Options
from genwright.tuning.adapters import check_names, linear_names, wrap

_ATTENTION = (
    ("k_proj", "v_proj"), ("key", "value"), ("k_lin", "v_lin"), ("query_key_value",), ("qkv_proj",), ("Wqkv",),
    ("c_attn",), ("k", "v"),
)  # fmt: skip
_FEED_FORWARD = ("down_proj", "fc2", "mlp.c_proj", "output.dense", "lin2", "dense_4h_to_h", "mlp.Wo", "wo")


class Settings(Options):
    """Options of this method."""

    targets: list[str] | None = Field(None, description="Layers whose outputs are scaled; null is keys and values")
    feed_forward: list[str] | None = Field(
        None, description="Layers whose inputs are scaled; null is the second layer of each feed-forward block"
    )
    also: list[str] = Field([], description="Modules trained in full besides")


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Factors start at one; a few thousand numbers are trained (arXiv 2205.05638).

    Raises UsageError when the layers are named unlike any architecture we know and no names were given.
    """
    from peft import IA3Config

    inside = settings.feed_forward if settings.feed_forward is not None else _feed_forward(learner.module)
    outside = settings.targets if settings.targets is not None else _attention(learner.module)
    check_names(learner.module, outside, "targets")
    check_names(learner.module, inside, "feed_forward")
    check_names(learner.module, settings.also, "also", linear=False)
    config = IA3Config(
        target_modules=[*outside, *inside], feedforward_modules=inside, modules_to_save=settings.also or None
    )
    return wrap(learner, config, "ia3", seed=seed)


def _attention(module: Any) -> list[str]:
    known = linear_names(module)
    for names in _ATTENTION:
        if all(name in known for name in names):
            return list(names)
    raise UsageError("The key and value layers of this model are not known.", f"Name them with `targets`: {known}")


def _feed_forward(module: Any) -> list[str]:
    from genwright.tuning.adapters import bare

    every = [name for name, _ in bare(module).named_modules()]
    for name in _FEED_FORWARD:
        found = [full for full in every if full.endswith("." + name) and ".attention." not in full]
        if found and name == "output.dense":  # BERT's attention has an output.dense of its own
            return found
        if found:
            return [name]
    known = linear_names(module)
    raise UsageError("The feed-forward layers of this model are not known.", f"Name them with `feed_forward`: {known}")
