"""What a model must be able to do, and what is asked of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .content import Message, Part
from .data import Example
from .errors import UsageError
from .plugin import sentences

Kind = TypeVar("Kind", bound=BaseModel)


class Constraints(BaseModel):
    """What every answer must keep to. `choice`, `regex` and `json_schema` are enforced while decoding (grammar mask);
    the others are checked by the metric `constraints`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_words: int | None = Field(None, ge=0, description="Fewest words of an answer")
    max_words: int | None = Field(None, ge=1, description="Most words of an answer")
    must_include: tuple[str, ...] = Field((), description="Phrases that an answer must hold (case-insensitive)")
    must_not_include: tuple[str, ...] = Field((), description="Phrases that are never decoded nor accepted")
    choice: tuple[str, ...] = Field((), description="The answer is exactly one of these")
    regex: str | None = Field(None, description="The answer matches this regular expression from start to end")
    json_schema: dict[str, Any] | None = Field(None, description="The answer is JSON that validates against this")


class Request(BaseModel):
    """One thing asked of a model. Temperature 0 is greedy decoding."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    messages: tuple[Message, ...]
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0 keeps all")
    repetition_penalty: float = Field(1.0, gt=0)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    constraints: Constraints = Constraints()
    presence_penalty: float = Field(0.0, ge=-2, le=2, description="Taken off the logit of every token said before")
    frequency_penalty: float = Field(0.0, ge=-2, le=2, description="The same, once for each time it was said")
    logit_bias: dict[int, float] = Field({}, description="Added to the logits of these tokens; -100 bans, 100 forces")
    logprobs: int | None = Field(None, ge=0, le=20, description="How many alternatives to report; null reports none")
    options: dict[str, Any] = Field({}, description="What only some engines know, checked there (steps of a picture)")
    out: Path | None = Field(None, description="File for an answer that is no text; null is a temporary one")

    def options_as(self, kind: type[Kind]) -> Kind:
        """The options as an engine knows them. Raises UsageError with all that is wrong (did you mean …)."""
        try:
            return kind.model_validate(self.options)
        except ValidationError as error:
            wrong = "; ".join(f"{path}: {sentence}" if path else sentence for path, sentence in sentences(error, kind))
            raise UsageError(f"The options of the request are not right: {wrong}") from None

    def files(self, count: int, suffix: str) -> list[Path]:
        """Where the `count` files of an answer go: `out`, numbered when there are several. `suffix` is for an `out`
        without one. Temporary files are the caller's to remove. Raises UsageError when the folder cannot be made."""
        out = self.out or Path(tempfile.mkdtemp(prefix="genwright-")) / f"answer{suffix}"
        out = out if out.suffix else out.with_suffix(suffix)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{out.parent} cannot be made: {error.strerror}.", "Choose another place.") from None
        if count == 1:
            return [out]
        return [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1)]


class Model(Protocol):
    """Something that answers. Streaming is iterating: text arrives as deltas, part by part."""

    def generate(self, request: Request) -> Iterator[Part]: ...


@runtime_checkable
class Batched(Protocol):
    """A model that answers many requests faster together than one by one."""

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Yield (index of the request, answer) as they are ready; same answers as one by one when greedy."""
        ...


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of a reference answer: `nll` in nats summed over `tokens`; `chars` of the answer."""

    nll: float
    tokens: int
    chars: int


@runtime_checkable
class Scorer(Protocol):
    """A model that can say how likely a reference answer is."""

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]: ...


@runtime_checkable
class Measurer(Protocol):
    """A model that can say how far off it is on an example, where there is no likelihood (a denoiser). One that tells
    plain baselines beside itself has `study(examples)`, which is handed the training rows first."""

    def measure(self, examples: Sequence[Example]) -> Iterator[Mapping[str, float]]:
        """Errors of each example by name, always the same for the same weights; lower is better."""
        ...


@dataclass(frozen=True)
class Encoded:
    """An example as a learner sees it.

    `sequences` is one mapping of numpy arrays per sequence (two for a preference pair), at least
    `{"tokens": int32 (T,), "targets": int32 (T,)}` for text, where targets[i] is what to predict at position i and
    -100 means unsupervised. `size` is the number of slots it takes in a batch, `weight` what the loss is averaged
    over (supervised tokens, or pairs, or images). `cut` counts the tokens lost to truncation.
    """

    sequences: tuple[dict[str, Any], ...]
    size: int
    weight: float
    cut: int = 0


class Unlearnable(ValueError):
    """An example from which nothing can be learned, with the reason: it goes to the data report, not to training."""


@dataclass
class Loss:
    """A loss as a sum over `weight`, so that accumulation can divide once; `logs` are figures already averaged."""

    total: Any
    weight: float
    logs: dict[str, float] = field(default_factory=dict)


@runtime_checkable
class Learner(Protocol):
    """A model that can also be taught, by the one loop. `module` is a torch.nn.Module.

    A batch is whatever `collate` makes; the loop only hands it on. Text learners (engines causal_lm, encoder, seq2seq)
    also offer, for objectives and regularizers that need more than the loss:
    `logits(batch) -> (N, V)` at the N supervised positions, `targets(batch) -> (N,)`,
    `logprobs(batch) -> (S,)` summed per sequence, `embeddings() -> nn.Module`.
    """

    module: Any

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """`supervise`: "answer" (the last message), "assistant" (every assistant turn) or "all" (every token)."""
        ...

    def collate(self, items: Sequence[Encoded]) -> Any: ...

    def loss(self, batch: Any, *, label_smoothing: float = 0.0) -> Any:
        """The learner's own loss, SUMMED over the supervised targets: a scalar tensor with a graph."""
        ...

    def untuned(self) -> AbstractContextManager[None]:
        """Within it the module answers as before tuning (adapters off; for full tuning, the frozen copy)."""
        ...

    def save(self, folder: Path) -> None: ...
