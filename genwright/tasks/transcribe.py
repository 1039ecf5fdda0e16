"""Write down what is said in a sound."""

from typing import Any

from pydantic import Field

from genwright import core
from genwright.core import Task


class Settings(core.Settings):
    options: dict[str, Any] = Field(
        {}, description="Options of requests that name none: {language: zh, timestamps: true}"
    )


task = Task("audio", "text", engine="whisper", objective="seq2seq", metrics=("wer", "cer"))
