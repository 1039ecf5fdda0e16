"""Options of a model of tunes: its shape, and what a request may ask for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from genwright.core.plugin import Settings
from genwright.media.abc import MODES
from genwright.media.score import BARS, METRES, REGIONS, RHYTHMS

from .voice_options import SpeechOptions

_TONICS = ("C", "C#", "Db", "D", "Eb", "E", "F", "F#", "Gb", "G", "Ab", "A", "Bb", "B")


class AbcConfig(Settings):
    """The shape of a network over the words of tunes."""

    width: int = Field(128, ge=16, description="Numbers of a word's vector")
    depth: int = Field(5, ge=1, description="Blocks")
    heads: int = Field(4, ge=1, description="Attention heads")
    mlp: float = Field(4.0, ge=1, description="Width of a block's inner layer, as a multiple")
    longest: int = Field(512, ge=32, le=4096, description="Words of a tune, those that say what it is among them")

    @model_validator(mode="after")
    def _fits(self) -> AbcConfig:
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads")
        return self


class TuneOptions(Settings):
    """What a request to a model of tunes may ask for; what is told here goes before the words of the prompt."""

    n: int = Field(1, ge=1, le=64, description="Tunes")
    temperature: float = Field(0.9, ge=0, le=4, description="How freely notes are drawn; 0 takes the likeliest")
    top_p: float = Field(0.95, gt=0, le=1, description="Notes are drawn from the likeliest that have this share")
    whole_bars: bool = Field(True, description="Write whole bars only; pickups and what they take are left")
    key: str = Field("", description=f"{', '.join(_TONICS)} and, if not major, a mode: {', '.join(MODES)}; D, E dorian")
    metre: str = Field("", description=f"{', '.join(METRES)}")
    rhythm: str = Field("", description=f"{', '.join(RHYTHMS[1:])}")
    region: str = Field("", description=f"{', '.join(REGIONS[1:])}")
    bars: int | None = Field(
        None, ge=4, le=64, description=f"How many bars are written, beside pickups; of {BARS} the nearest"
    )
    melody: str = Field("", max_length=40_000, description="A tune as ABC to go on from, or to vary")
    use: Literal["continue", "vary"] = Field("continue", description="What is done with the melody")
    keep: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the melody's bars that stay: null is all to go on from, half when varying",
    )
    title: str = Field("", max_length=120, description="What the tune is called")
    tempo: int | None = Field(
        None, ge=30, le=400, description="Quarters a minute; null is what the rhythm is played at"
    )
    instrument: int = Field(0, ge=0, le=127, description="General MIDI's number: 0 piano, 40 violin, 73 flute")
    chords: bool = Field(False, description="Accompany the tune with chords of its key")

    engrave: bool = Field(False, description="Put the score beside the file as a picture too, .svg and .png")
    lyrics: str | None = Field(
        None,
        max_length=4_000,
        description="Words that a voice speaks (it does not sing) over the tune, each line from a bar line on; an empty"
        " line begins a stanza",
    )
    speaker: Literal["hibari", "kokoro-82m"] | None = Field(
        None, description="The card that speaks the lyrics; null is chosen by voice and language"
    )
    voice: str | None = Field(None, description="A voice of it, or a blend: af_heart:0.7+af_bella:0.3")
    speed: float = Field(1.0, ge=0.5, le=2, description="How fast lyrics are spoken")
    fastest: float = Field(
        1.25, ge=1, le=2, description="How much faster than that a line may be said to fit into its bars"
    )
    duck: float = Field(12.0, ge=0, le=60, description="Decibels by which the tune goes down under the voice")

    @field_validator("voice")
    @classmethod
    def _named(cls, voice: str | None) -> str | None:
        return SpeechOptions(voice=voice).voice

    @field_validator("metre")
    @classmethod
    def _counted(cls, metre: str) -> str:
        if metre and metre not in METRES:
            raise ValueError(f"is none of {', '.join(METRES)}")
        return metre

    @field_validator("rhythm")
    @classmethod
    def _danced(cls, rhythm: str) -> str:
        if rhythm not in RHYTHMS:
            raise ValueError(f"is none of {', '.join(RHYTHMS[1:])}")
        return rhythm

    @field_validator("region")
    @classmethod
    def _placed(cls, region: str) -> str:
        if region not in REGIONS:
            raise ValueError(f"is none of {', '.join(REGIONS[1:])}")
        return region
