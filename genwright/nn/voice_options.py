"""Options of what speaks: light, so that listing the shelf loads nothing."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from genwright.core.plugin import Settings

PACKAGED = {"en": "hibari", "zh": "kokoro-82m"}  # the card that speaks a language when none is named
NAMED = "kokoro-82m"  # the card whose voices have names
_BLEND = re.compile(r"[a-z]+(_[a-z]+)?(:\d+(\.\d+)?)?")


def usual_card(text: str, voice: str | None) -> str:
    """The card that speaks a text: the one whose voices have names where one is named, else that of its language."""
    chinese = any("\u3400" <= letter <= "\u9fff" for letter in text)
    return NAMED if voice else PACKAGED["zh" if chinese else "en"]


class SpeechOptions(Settings):
    """What a request to a voice may ask for."""

    voice: str | None = Field(
        None, description="A voice's name, or several with weights: af_heart:0.7+af_bella:0.3; null suits the language"
    )
    speed: float = Field(1.0, ge=0.25, le=4.0, description="How fast: 2 is twice as fast")
    language: str = Field("auto", pattern="^(auto|en|zh)$", description="auto looks at the characters of each sentence")
    pause: float = Field(0.3, ge=0, le=5, description="Seconds of silence between sentences")
    normalise: bool = Field(True, description="Say numbers, dates, money, units and signs as words")
    partial: bool = Field(False, description="Send each sentence as a file of its own as soon as it is spoken")

    @field_validator("voice")
    @classmethod
    def _blend(cls, voice: str | None) -> str | None:
        if voice is not None and not all(_BLEND.fullmatch(one) for one in voice.split("+")):
            raise ValueError(f"{voice!r} is neither a voice nor a blend like af_heart:0.7+af_bella:0.3")
        return voice

    def blend(self) -> dict[str, float]:
        """{voice: share}, shares adding to 1; empty without a voice.

        >>> SpeechOptions(voice="af_heart:3+af_bella").blend()
        {'af_heart': 0.75, 'af_bella': 0.25}
        """
        pairs = [one.partition(":") for one in (self.voice or "").split("+") if one]
        weights = {name: float(weight or 1) for name, _, weight in pairs}
        total = sum(weights.values()) or 1.0
        return {name: weight / total for name, weight in weights.items()}
