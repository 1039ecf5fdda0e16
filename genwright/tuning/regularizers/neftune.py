"""NEFTune: noise on the embeddings while training, so that answers are learned less by heart (Jain et al. 2023)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from genwright.core import Loss
from genwright.core import Settings as Options
from genwright.tuning.nudges import nudged, owners_of, segments_of
from genwright.tuning.steps import Step


class Settings(Options):
    """Options of the noise."""

    alpha: float = Field(5.0, ge=0, description="Strength of the noise; the paper uses 5 to 15")


def regularize(step: Step, learner: Any, settings: Settings, *, context: Any) -> Step:
    """Add uniform noise in ±α/√(L·d) to embeddings of size d, L the length of each sequence (arXiv 2310.05914)."""
    if not settings.alpha:
        return step
    import torch

    def noisy(batch: Any) -> Loss:
        def change(rows: Any, call: int) -> Any:
            lengths = segments_of(batch, rows)
            sizes = torch.tensor(lengths, device=rows.device, dtype=rows.dtype)[owners_of(lengths, rows)].unsqueeze(-1)
            return rows + torch.empty_like(rows).uniform_(-1, 1) * settings.alpha / torch.sqrt(sizes * rows.shape[-1])

        with nudged(learner, change):
            return step(batch)

    return noisy
