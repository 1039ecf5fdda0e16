"""GGUF files, answered by llama.cpp, or by OpenVINO where it is installed and can."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from genwright import core
from genwright.core import Example, Likelihood, Message, ModelError, Part, Request, Unlearnable, UsageError
from genwright.nn.gguf_header import Header, read_header
from genwright.nn.gguf_tokenizer import GgufTokenizer
from genwright.nn.parallel import answer_many
from genwright.nn.text import Tokens, chat_tokens, make_ready, plain_tokens, prompt_tokens

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_HAN}]|[^\s{_HAN}]+")


class Adapter(core.Settings):
    """A LoRA adapter in GGUF, loaded onto the model."""

    path: core.FilePath = Field(description="File that `export` with `adapter: true` wrote")
    scale: float = Field(1.0, description="How strongly it works; 0 is off")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        return {"path": given} if isinstance(given, (str, Path)) else given


class Settings(core.Settings):
    runner: Literal["auto", "llama.cpp", "openvino"] = Field(
        "auto", description="Who computes; auto is OpenVINO where it is installed and takes this file, else llama.cpp"
    )
    context: int = Field(
        4096, ge=256, description="Tokens of a prompt with its answer, at most what the model was made for"
    )
    parallel: int = Field(4, ge=1, le=64, description="Answers that are decoded together")
    threads: int | None = Field(None, ge=1, description="CPU threads; null is all cores, for llama.cpp all but one")
    adapters: tuple[Adapter, ...] = Field((), description="LoRA adapters in GGUF, applied together")


class Runner(Protocol):
    """The seam: llama.cpp and OpenVINO offer the same few things, each in a process of its own."""

    context: int

    @property
    def pieces(self) -> Sequence[bytes]: ...

    def tokenize(self, text: str, *, special: bool) -> list[int]: ...
    def detokenize(self, tokens: Sequence[int]) -> str: ...
    def answer(
        self, tokens: Sequence[int], request: Request, *, seed: int, adapters: Sequence[float] = ()
    ) -> Generator[Part]: ...
    def score(self, prompt: Sequence[int], answer: Sequence[int], *, adapters: Sequence[float] = ()) -> float: ...
    def scores(
        self, prompt: Sequence[int], answer: Sequence[int], *, top: int = 0, adapters: Sequence[float] = ()
    ) -> list[dict[str, Any]]: ...
    @property
    def alive(self) -> bool: ...
    def close(self) -> None: ...


def load(source: Path | None, settings: Settings, *, seed: int = 0) -> GgufModel:
    """Start a runner on a GGUF file, or on the one GGUF file of a folder.

    Raises ModelError when the file or an adapter is not sound or they do not belong together, UsageError when the
    named runner cannot do what the settings ask.
    """
    path = _file(source)
    header = read_header(path)
    if header.is_adapter:
        raise ModelError(f"{path} is an adapter, not a model.", "Load its base and give this file under `adapters`.")
    for adapter in settings.adapters:
        _check_adapter(adapter.path, header)
    runner, note = _start(path, header, settings)
    scales = tuple(adapter.scale for adapter in settings.adapters)
    model = GgufModel(runner, make_ready(GgufTokenizer(runner, header)), settings, scales, itertools.count(seed))
    model.notes = [note] if note else []
    return model


class GgufModel:
    """A GGUF file that answers. Requests of several threads are decoded together."""

    def __init__(
        self, runner: Runner, tokenizer: Any, settings: Settings, scales: tuple[float, ...], seeds: Iterator[int]
    ):
        self.runner, self.tokenizer, self.settings, self.scales = runner, tokenizer, settings, scales
        self.parallel = settings.parallel
        self._seeds = seeds
        self.notes: list[str] = []

    def using(self, scales: Sequence[float]) -> GgufModel:
        """The same weights with the loaded adapters, in their order, at these strengths; 0 is off.

        Raises UsageError when there are more or fewer adapters.
        """
        if len(scales) != len(self.settings.adapters):
            raise UsageError(f"{len(self.settings.adapters)} adapters are loaded, {len(scales)} strengths are given.")
        return GgufModel(self.runner, self.tokenizer, self.settings, tuple(scales), self._seeds)

    def generate(self, request: Request) -> Generator[Part]:
        """Text deltas, then an empty part whose meta has `finish_reason`, `prompt_tokens`, `completion_tokens` and,
        where the prompt was too long, `cut`; closing the iterator stops the decoding. Where `logprobs` are asked for,
        the meta of a delta has those of its tokens, by the model alone: before penalties, biases and heat.

        A request whose last message is the assistant's is gone on with. Constraints are enforced while decoding,
        but for `must_include`, which cannot be. Raises UsageError for those that exclude each other.
        """
        seed = next(self._seeds) if request.seed is None else request.seed
        prompt = self.prompt(request.messages)
        if odd := [token for token in request.logit_bias if not 0 <= token < self.tokenizer.vocab_size]:
            raise UsageError(f"There is no token {odd[0]}: the vocabulary ends at {self.tokenizer.vocab_size - 1}.",
                             "Correct `logit_bias`.")  # fmt: skip
        with closing(self.runner.answer(prompt.ids, request, seed=seed, adapters=self.scales)) as parts:
            for part in _up_to(request.constraints.max_words, parts):
                yield replace(part, meta={**part.meta, "cut": prompt.cut}) if part.meta and prompt.cut else part

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers as they are ready, `settings.parallel` at a time; closing the iterator stops those under way."""
        yield from answer_many(self.generate, requests, seeds=self._seeds, at_once=self.settings.parallel)

    def likelihood(self, examples: Sequence[Example]) -> Iterator[Likelihood]:
        """What the model makes of each reference answer and the token that ends it, as in training.

        Raises UsageError for an example without an answer.
        """
        for number, example in enumerate(examples):
            try:
                prompt, answer = self.encode(example)
            except Unlearnable as error:
                raise UsageError(f"Example {number} has no likelihood: {error}.", "Leave it out.") from None
            nll = -self.runner.score(prompt, answer, adapters=self.scales)
            yield Likelihood(nll, len(answer), len(example.answer.text))

    def token_scores(self, text: str, top: int = 0) -> list[dict[str, Any]]:
        """What the model makes of each token of a plain text: {"token", "bytes", "logprob", "top"}, the first without
        a log-probability, for nothing stands before it. Raises UsageError for a text longer than the context."""
        ids = prompt_tokens(self.tokenizer, [core.assistant(text)]).ids
        lead = 1 if ids[:1] == [self.tokenizer.bos_token_id] else 0  # what the tokenizer puts before every text
        if len(ids) >= self.runner.context:
            raise UsageError(f"The text has {len(ids)} tokens; the context holds {self.runner.context}.",
                             "Shorten it, or load the model with a larger `context`.")  # fmt: skip
        if not ids[lead:]:
            return []
        first = self.runner.pieces[ids[lead]]
        begun = {"token": first.decode("utf-8", "replace"), "bytes": list(first), "logprob": None, "top": []}
        rest = ids[lead + 1 :]
        return [begun, *self.runner.scores(ids[: lead + 1], rest, top=top, adapters=self.scales)] if rest else [begun]

    def prompt(self, messages: Sequence[Message]) -> Tokens:
        """What the model sees before it answers, cut from its start to what the context holds."""
        if not messages:
            raise UsageError("There is nothing to answer: the request has no message.")
        if odd := [part.kind for message in messages for part in message.parts if part.kind != "text"]:
            raise UsageError(f"This model reads text, not {odd[0]}.", "Leave it out, or choose another model.")
        tokens = prompt_tokens(self.tokenizer, messages, room=max(1, self.runner.context - 1))
        return tokens if tokens.ids else replace(tokens, ids=[self._first()])

    def encode(self, example: Example) -> tuple[list[int], list[int]]:
        """(prompt, answer) as tokens: the answer with what ends a turn, or a plain text behind its first token."""
        room = self.runner.context - 1
        if len(example.messages) == 1 and example.answer.role == "assistant":
            ids = plain_tokens(self.tokenizer, example.answer.text)[:room]
            return ids[:1], ids[1:]
        tokens = chat_tokens(self.tokenizer, example.messages, supervise="answer", max_length=room)
        begins = tokens.learned.index(True)
        return tokens.ids[:begins], tokens.ids[begins:]

    def _first(self) -> int:
        """What an empty text begins with."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0

    @property
    def alive(self) -> bool:
        """Whether the runner's process runs; once it does not, every answer is a ModelError."""
        return self.runner.alive

    def close(self) -> None:
        """End the runner's process and give its memory back."""
        self.runner.close()


def _up_to(words: int | None, parts: Iterator[Part]) -> Iterator[Part]:
    """End an answer before a word too many; Chinese characters and kana are words of their own, as in judging."""
    text = ""
    for part in parts:
        text += part.text
        found = list(islice(_WORD.finditer(text), words + 1)) if words else []
        if words and len(found) > words:
            end = found[words - 1].end() - (len(text) - len(part.text))
            yield from [Part(text=part.text[:end])] if end > 0 else []
            yield Part(meta={"finish_reason": "stop"})
            return
        yield part


def _file(source: Path | None) -> Path:
    if source is None:
        raise UsageError("The engine gguf needs a file.", "Name a .gguf file, or a card or run that has one.")
    if not source.is_dir():
        return source
    files = sorted(source.glob("*.gguf"))
    if len(files) != 1:
        raise UsageError(f"{source} holds {len(files)} GGUF files, not one.", "Name the file.")
    return files[0]


def _check_adapter(path: Path, base: Header) -> None:
    header = read_header(path)
    if not header.is_adapter:
        raise ModelError(f"{path} is not an adapter.", "Write one with the format gguf and `adapter: true`.")
    if header.architecture != base.architecture:
        raise ModelError(f"{path} is an adapter for {header.architecture!r}; the model is {base.architecture!r}.")


def _start(path: Path, header: Header, settings: Settings) -> tuple[Runner, str]:
    """The runner, and a note where `auto` could not take the faster one."""
    from genwright.nn.llama_cpp import LlamaCpp

    note = ""
    if settings.runner != "llama.cpp":
        problem = _why_not_openvino(header, settings)
        if not problem:
            from genwright.nn.openvino import OpenVino

            try:
                return OpenVino(
                    path, context=settings.context, parallel=settings.parallel, threads=settings.threads
                ), ""
            except ModelError as error:
                problem = error.message
        if settings.runner == "openvino":
            raise UsageError(
                f"OpenVINO cannot run {path.name}: {problem}", "Use `runner: auto` or `runner: llama.cpp`."
            )
        note = f"llama.cpp answers, not OpenVINO: {problem}"
    adapters = [(adapter.path, adapter.scale) for adapter in settings.adapters]
    return LlamaCpp(
        path, context=settings.context, parallel=settings.parallel, threads=settings.threads, adapters=adapters
    ), note


def _why_not_openvino(header: Header, settings: Settings) -> str:
    if settings.adapters:
        return "it ignores adapters of GGUF models; merge them first."
    if importlib.util.find_spec("openvino_genai") is None:
        return "it is not installed (pip install 'genwright[openvino]')."
    return ""
