"""Orders: what a route wants of a model, made into a request once it is known what that model can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genwright.core import Request

from .errors import Wrong

_PLACES = {"text": "/v1/chat/completions", "image": "/v1/images/generations", "audio": "/v1/audio/speech"}
_WORDS = {"text": "text", "image": "pictures", "audio": "sound"}


@dataclass(frozen=True)
class Order:
    """`gives` is the modality of the answer; `chars` of the question and `tokens` of the answer, as far as they can be
    told before, are what limits count with at first. `request` makes it from what the worker said of its model."""

    gives: str
    chars: int
    tokens: int
    request: Callable[[Mapping[str, Any]], Request]

    @classmethod
    def of(cls, asked: Request | Order) -> Order:
        """A plain request wants words."""
        if isinstance(asked, Order):
            return asked
        chars = sum(len(message.text) for message in asked.messages)
        return cls("text", chars, asked.max_new_tokens, lambda facts: asked)

    def made(self, model: str, facts: Mapping[str, Any]) -> Request:
        """Raises Wrong (400) for a model that gives something else, and for what it does not know."""
        gives = str(facts.get("gives") or self.gives)  # who makes vectors says so itself
        if gives != self.gives:
            place = f" Ask it at {_PLACES[gives]}." if gives in _PLACES else ""
            words = _WORDS.get(gives, gives), _WORDS.get(self.gives, self.gives)
            raise Wrong(400, f"{model} gives {words[0]}, not {words[1]}.{place}", param="model",
                        code="model_not_supported")  # fmt: skip
        return self.request(facts)
