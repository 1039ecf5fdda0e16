"""Full: every weight of the model is trained."""

from __future__ import annotations

from genwright.core import Learner, Settings
from genwright.tuning.adapters import merged, set_method


def attach(learner: Learner, settings: Settings, *, seed: int = 0) -> Learner:
    """Let every parameter learn. An adapter that the model came with is merged into its weights first."""
    merged(learner).requires_grad_(True)
    set_method(learner, "full")
    return learner
