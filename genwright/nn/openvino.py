"""OpenVINO in a process of its own: many answers decoded together, for GGUF files that it reads rightly.

It reads few architectures and some quantisations badly, and what it misreads it misreads in silence. So a file is
brought to 8 bits first, and before the first answer it must score and spell a text as llama.cpp does. Grammars,
likelihoods and, where the two split a text differently, tokens are llama.cpp's, which is then started beside it.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from genwright.core import ModelError, Part, Request, UsageError
from genwright.core.home import store

from .gguf_header import Header, read_header
from .grammar import grammar_of
from .llama_cpp import LlamaCpp, default_threads, stop_process
from .weights import sha256_of

WORKER = Path(__file__).with_name("openvino_worker.py")
ARCHITECTURES = ("llama", "qwen2", "qwen3")
_READ_WELL = {"F32", "F16", "Q8_0"}  # Q4_1 read directly costs a fifth of the perplexity
_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>", "<|end_of_text|>")
_PROBE = "In 1987, the ferry's captain counted 214 birds — “naïve” ones; 你好 🎉.\n\n  He said:\tDon't go."
_FURTHEST = 0.2  # nats a token between its score of the probe and llama.cpp's


class OpenVino:
    """A GGUF file served by OpenVINO's continuous batching. Raises ModelError when it cannot be trusted with it."""

    def __init__(self, path: Path, *, context: int = 4096, parallel: int = 4, threads: int | None = None):
        header = read_header(path)
        if header.architecture not in ARCHITECTURES:
            raise ModelError(f"it does not read the architecture {header.architecture!r}.")
        trained = int(header.keys.get(f"{header.architecture}.context_length", context))
        self.path, self.context = path, min(context, trained)
        self._options: dict[str, Any] = {"context": context, "parallel": parallel, "threads": threads}
        self._ends = _end_tokens(header)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._other: LlamaCpp | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="gw-"))
        self._process = self._start(readable(path, header), parallel, threads or default_threads())
        self._end = weakref.finalize(self, stop_process, self._process, self._folder)
        threading.Thread(target=_hand_out, args=(self._process.stdout, self._waiting), daemon=True).start()
        self._compare()

    def _start(self, path: Path, parallel: int, threads: int) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("wb") as chatter:
            process = subprocess.Popen([sys.executable, "-P", str(WORKER)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=chatter, start_new_session=True)  # fmt: skip
        assert process.stdin
        assert process.stdout
        options = {"path": str(path), "parallel": parallel, "threads": threads}
        try:
            process.stdin.write(json.dumps(options).encode() + b"\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline() or b"{}")
        except BrokenPipeError:
            said = {}
        if "ready" not in said:
            stop_process(process, self._folder)
            why = re.sub(r"Exception from \S+\s*", "", str(said.get("error", "it stopped")))
            raise ModelError(f"it cannot load the file: {' '.join(why.split())[:300]}")
        return process

    def _compare(self) -> None:
        """Raises ModelError unless it scores and spells a text as llama.cpp does; its splitting is used if alike."""
        with LlamaCpp(self.path, context=256, parallel=1) as reference:
            tokens = reference.tokenize(_PROBE, special=True)
            right = reference.score(tokens[:1], tokens[1:])
        self._splits_alike = self._ask(do="tokenize", text=_PROBE)["tokens"] == tokens
        config = {"max_new_tokens": 1, "do_sample": False, "logprobs": 1, "echo": True}
        logprobs = self._ask(do="score", tokens=tokens, config=config).get("logprobs", [])
        far = abs(sum(logprobs[1 : len(tokens)]) - right) / len(tokens)
        spells = self.detokenize(tokens) == _PROBE
        if not spells or len(logprobs) < len(tokens) or not far < _FURTHEST:
            self.close()
            scores = f"scores a text otherwise than llama.cpp, by {far:.2g} nats a token"
            raise ModelError(f"it {scores if spells else 'misspells a text'}.")

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if not self._splits_alike:
            return self._llama().tokenize(text, special=special)
        tokens: list[int] = self._ask(do="tokenize", text=text)["tokens"]
        return tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        text: str = self._ask(do="detokenize", tokens=list(tokens))["text"]
        return text

    def answer(
        self, tokens: Sequence[int], request: Request, *, seed: int, adapters: Sequence[float] = ()
    ) -> Generator[Part]:
        """Text deltas, then why it ended. Answers under a grammar are llama.cpp's. Raises UsageError for adapters."""
        self._refuse(adapters)
        if grammar_of(request.constraints):
            yield from self._llama().answer(tokens, request, seed=seed)
            return
        room = max(1, min(request.max_new_tokens, self.context - len(tokens)))
        config: dict[str, Any] = {
            "max_new_tokens": room, "do_sample": request.temperature > 0, "rng_seed": seed % 2**63,
            "repetition_penalty": request.repetition_penalty, "stop_token_ids": self._ends,
        }  # fmt: skip
        if request.temperature > 0:
            config |= {"temperature": request.temperature, "top_p": request.top_p}
            config |= {"top_k": request.top_k} if request.top_k else {}
        with closing(self._stream(do="answer", tokens=list(tokens), config=config, stop=list(request.stop))) as events:
            for event in events:
                if event.get("text"):
                    yield Part(text=event["text"])
                if "end" in event:
                    yield Part(meta={"finish_reason": event["end"], "prompt_tokens": len(tokens),
                                     "completion_tokens": event["count"]})  # fmt: skip
                    return

    def score(self, prompt: Sequence[int], answer: Sequence[int], *, adapters: Sequence[float] = ()) -> float:
        """llama.cpp's score: with the prefix cache on, OpenVINO loses the log-probabilities of what is cached."""
        self._refuse(adapters)
        return self._llama().score(prompt, answer)

    def close(self) -> None:
        """End the processes and give their memory back; calling twice is fine."""
        self._end()
        if self._other:
            self._other.close()

    def _llama(self) -> LlamaCpp:
        with self._lock:
            if self._other is None:
                self._other = LlamaCpp(self.path, **self._options)
            return self._other

    def _refuse(self, adapters: Sequence[float]) -> None:
        if adapters:
            raise UsageError("OpenVINO ignores adapters of GGUF models.", "Use `runner: llama.cpp`, or merge them.")

    # -- JSON lines ---------------------------------------------------------------------------------------------------

    def _ask(self, **order: Any) -> dict[str, Any]:
        with closing(self._stream(**order)) as events:
            return next(events)

    def _stream(self, **order: Any) -> Generator[dict[str, Any]]:
        """What the process says of one order; closing it cancels."""
        number = next(self._numbers)
        mine: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting[number] = mine
        if not self._tell({"id": number, **order}):
            raise self._gone()
        ended = False
        try:
            while True:
                event = mine.get()
                ended = bool({"end", "error", "gone"} & set(event))
                if "gone" in event:
                    raise self._gone()
                if "error" in event:
                    raise ModelError(f"OpenVINO refused: {' '.join(event['error'].split())[:300]}")
                yield event
        finally:
            del self._waiting[number]
            if not ended and order["do"] == "answer":
                self._tell({"id": number, "do": "cancel"})

    def _tell(self, order: dict[str, Any]) -> bool:
        assert self._process.stdin
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _gone(self) -> ModelError:
        code = self._process.poll()
        what = "was closed" if not self._end.alive else f"ended with code {code}"
        return ModelError(f"The process that runs {self.path.name} {what}.", "Load the model again.")


def readable(path: Path, header: Header) -> Path:
    """The file itself, or its copy in 8 bits in the store, made once."""
    if set(header.kinds) <= _READ_WELL:
        return path
    from .gguf_writer import requantize

    made = store() / "converted" / f"{sha256_of(path)[:32]}-q8_0.gguf"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        partial = made.with_name(f".{made.name}.{os.getpid()}.tmp")
        try:
            requantize(path, partial)
            os.replace(partial, made)
        finally:
            partial.unlink(missing_ok=True)
    return made


def _end_tokens(header: Header) -> list[int]:
    """Tokens after which an answer is over, as llama.cpp finds them: named in the file, or by their usual words."""
    named = {header.keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    usual = {number for number, text in header.control.items() if text in _ENDS}
    return sorted({number for number in named | usual if number is not None})


def _hand_out(lines: Any, waiting: dict[int, queue.SimpleQueue[dict[str, Any]]]) -> None:
    """Give each line to whoever waits for it; when there are no more, tell all."""
    try:
        for line in lines:
            event = json.loads(line)
            mine = waiting.get(event["id"])
            if mine is not None:
                mine.put(event)
    except ValueError:  # closed under us
        pass
    for mine in list(waiting.values()):
        mine.put({"gone": True})
