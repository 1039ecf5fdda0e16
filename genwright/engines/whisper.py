"""Speech written down: the packaged Whisper (ninety-nine languages, with times), or one that can be taught."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from genwright.core import SILENT, Tell, UsageError
from genwright.core.packed import PACKED
from genwright.nn.options import ModelSettings

known_by = PACKED  # a folder that holds CTranslate2's file is opened by this engine: of its networks we know Whisper


class Settings(ModelSettings):
    """Options of both; all but `threads` are of the one that can be taught."""

    threads: int = Field(0, ge=0, description="CPU threads of the packaged one; 0 leaves the runtime's choice")
    language: str = Field(
        "en",
        pattern=r"^[a-z]{2,3}$",
        description="Of rows and requests that name none, where the vocabulary has several",
    )
    window: float = Field(
        0,
        ge=0,
        le=30,
        description="Seconds that are heard at once; fewer cost less, 0 is what the network was made for",
    )
    hide_frames: int = Field(
        0, ge=0, description="In training, up to so many frames (10 ms) are hidden at two places of each sound"
    )
    hide_bands: int = Field(
        0, ge=0, description="In training, up to so many mel bands are hidden at two places of each sound"
    )
    tempo: float = Field(
        0, ge=0, le=0.5, description="In training, each sound is up to this share faster or slower, at its pitch"
    )
    throat: float = Field(
        0, ge=0, le=0.3, description="In training, all frequencies of a sound are up to this share higher or lower"
    )
    late: int = Field(0, ge=0, description="In training, each sound begins up to so many frames (10 ms) later")
    loudness: float = Field(
        0, ge=0, le=3, description="In training, each sound is up to so many bel louder or softer, and so much brighter"
    )
    ctc: float = Field(
        0,
        ge=0,
        lt=1,
        description="Share of the loss that a CTC head on the encoder has: it helps random weights to hear",
    )


def load(
    source: Path | None, settings: Settings, *, seed: int = 0, texts: Iterable[str] | None = None, tell: Tell = SILENT,
    purpose: str = "answer",
) -> Any:  # fmt: skip
    """A `nn.whisper_learner.Scribe` from a folder in transformers' layout, from a run, or with random weights by
    `settings.config`. From a folder in CTranslate2's form, as the card whisper-base is, a Scribe too when the `purpose`
    is "tune"; to "answer" its quick runtime, a `nn.whisper.Listener`.

    Raises UsageError without a source and a config, ModelError for another folder, MissingExtra without the libraries.
    """
    if source is None and not settings.config:
        raise UsageError(
            "There is no speech model to begin with.",
            "Name the card whisper-base, or give a config for random weights: {d_model: 192, encoder_layers: 4, …}.",
        )
    if source is None or purpose == "tune" or any(source.glob("*.safetensors")):
        from genwright.nn.whisper_learner import open_scribe

        return open_scribe(source, settings, seed=seed, texts=texts, tell=tell)
    from genwright.nn.whisper import Listener

    return Listener(source, settings.threads)
