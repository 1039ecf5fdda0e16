"""OpenVINO in a process of its own: many answers decoded together, for GGUF files that it reads rightly.

It reads few architectures and some quantisations badly, and what it misreads it misreads in silence. So a file is
brought to 8 bits first, and before the first answer it must score a text as llama.cpp does. What it made of the file,
and what that comparison found, is kept in the store, so that the next start takes a second or two. Grammars, biases,
likelihoods and alternatives are llama.cpp's, which is then started beside it.
"""

from __future__ import annotations

import importlib.metadata
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
from genwright.core.run import write_text

from .gguf_header import Header, read_header
from .gguf_splitter import splitter_of
from .gguf_words import Spoken, pieces_of
from .grammar import grammar_of
from .llama_cpp import LlamaCpp, stop_process
from .logprobs import begun_within
from .weights import sha256_of

WORKER = Path(__file__).with_name("openvino_worker.py")
CONVERTER = Path(__file__).with_name("openvino_convert.py")
_FORM = 2  # of what is kept; another number makes it anew
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
        self._stops = (
            {"stop_token_ids": self._ends, "eos_token_id": self._ends[0]} if self._ends else {"ignore_eos": True}
        )
        self.pieces = pieces_of(header)
        self._control = {number: token.encode("utf-8", "replace") for number, token in header.control.items()}
        self._numbers = itertools.count(1)
        self._telling, self._starting = threading.Lock(), threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._other: LlamaCpp | None = None
        try:
            place = converted(path, header)
        except OSError as error:
            raise ModelError(f"the store cannot be written: {error.strerror}.") from None
        self._folder = Path(tempfile.mkdtemp(prefix="gw-"))
        self._process = _started(place, self._folder, {"max_num_seqs": parallel}, threads or default_threads())
        self._end = weakref.finalize(self, stop_process, self._process, self._folder)
        threading.Thread(target=_hand_out, args=(self._process.stdout, self._waiting), daemon=True).start()
        facts = _noted(place) or self._compared(place)
        if why := facts["why"]:
            self.close()
            raise ModelError(why)
        self._split = splitter_of(header) if facts["splits_alike"] else None

    def _compared(self, place: Path) -> dict[str, Any]:
        """Whether it scores a text as llama.cpp does ("" or why not), and whether we split it alike; noted beside it.

        It must not have answered yet: with the prefix cache on, it loses the log-probabilities of what is cached.
        """
        with LlamaCpp(self.path, context=256, parallel=1) as reference:
            tokens = reference.tokenize(_PROBE, special=True)
            right = reference.score(tokens[:1], tokens[1:])
        config = {"max_new_tokens": 1, "do_sample": False, "logprobs": 1, "echo": True, **self._stops}
        with closing(self._stream(do="answer", tokens=tokens, config=config)) as events:
            chances = [chance for event in events for chance in event["chances"]]
        far = abs(sum(chances[1 : len(tokens)]) - right) / len(tokens)
        why = "" if self.detokenize(tokens) == _PROBE else "its vocabulary is not read rightly."
        if len(chances) < len(tokens) or not far < _FURTHEST:
            why = f"it scores a text otherwise than llama.cpp, by {far:.2g} nats a token."
        split = splitter_of(read_header(self.path))
        facts = {"why": why, "nats_apart": far, "splits_alike": split is not None and split(_PROBE) == tokens}
        write_text(place / "compared.json", json.dumps(facts))
        return facts

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        if self._split and special:
            return self._split(text)
        return self._llama().tokenize(text, special=special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        said = (self._control.get(token) or self.pieces[token] for token in tokens)
        return b"".join(said).decode("utf-8", "replace")

    def answer(
        self, tokens: Sequence[int], request: Request, *, seed: int, adapters: Sequence[float] = ()
    ) -> Generator[Part]:
        """Text deltas, then why it ended. What OpenVINO cannot do is answered by llama.cpp: grammars, biases, and
        log-probabilities but for those of the tokens of a plain greedy answer. Raises UsageError for adapters."""
        self._refuse(adapters)
        if _is_for_llama(request):
            yield from self._llama().answer(tokens, request, seed=seed)
            return
        room = max(1, min(request.max_new_tokens, self.context - len(tokens)))
        config: dict[str, Any] = {
            "max_new_tokens": room, "do_sample": request.temperature > 0, "rng_seed": seed % 2**63,
            "repetition_penalty": request.repetition_penalty, "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty, "logprobs": int(request.logprobs is not None),
            **self._stops,
        }  # fmt: skip
        if request.temperature > 0:
            config |= {"temperature": request.temperature, "top_p": request.top_p}
            config |= {"top_k": request.top_k} if request.top_k else {}
        spoken, count, waiting = Spoken(self.pieces, request.stop), 0, []
        with closing(self._stream(do="answer", tokens=list(tokens), config=config)) as events:
            for event in events:
                end, said = event["end"], [token for token in event["tokens"] if token not in self._ends]
                count += len(event["tokens"])
                waiting += self._entries(said, event["chances"])
                if text := spoken.add(said, final=bool(end)):
                    figures = begun_within(waiting, text) if spoken.ended else waiting
                    yield Part(text=text, meta=None if request.logprobs is None else {"logprobs": figures})
                    waiting = []
                if spoken.ended or end:
                    yield Part(meta={"finish_reason": "stop" if spoken.ended else end, "prompt_tokens": len(tokens),
                                     "completion_tokens": count})  # fmt: skip
                    return

    def _entries(self, tokens: Sequence[int], chances: Sequence[float]) -> list[dict[str, Any]]:
        said = ((self.pieces[token], chance) for token, chance in zip(tokens, chances, strict=False))
        return [{"token": piece.decode("utf-8", "replace"), "bytes": list(piece), "logprob": chance, "top": []}
                for piece, chance in said]  # fmt: skip

    def score(self, prompt: Sequence[int], answer: Sequence[int], *, adapters: Sequence[float] = ()) -> float:
        """llama.cpp's score: with the prefix cache on, OpenVINO loses the log-probabilities of what is cached."""
        self._refuse(adapters)
        return self._llama().score(prompt, answer)

    def scores(
        self, prompt: Sequence[int], answer: Sequence[int], *, top: int = 0, adapters: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        self._refuse(adapters)
        return self._llama().scores(prompt, answer, top=top)

    @property
    def alive(self) -> bool:
        """Whether its processes run."""
        return self._process.poll() is None and (self._other is None or self._other.alive)

    def close(self) -> None:
        """End the processes and give their memory back; calling twice is fine."""
        self._end()
        if self._other:
            self._other.close()

    def _llama(self) -> LlamaCpp:
        with self._starting:
            if self._other is None:
                self._other = LlamaCpp(self.path, **self._options)
            return self._other

    def _refuse(self, adapters: Sequence[float]) -> None:
        if adapters:
            raise UsageError("OpenVINO ignores adapters of GGUF models.", "Use `runner: llama.cpp`, or merge them.")

    # -- JSON lines ---------------------------------------------------------------------------------------------------

    def _stream(self, **order: Any) -> Generator[dict[str, Any]]:
        """What the process says of one order until its end; closing it cancels."""
        number = next(self._numbers)
        mine: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting[number] = mine
        if not self._tell({"id": number, **order}):
            raise self._gone()
        ended = False
        try:
            while not ended:
                event = mine.get()
                ended = bool(event.get("end") or {"error", "gone"} & event.keys())
                if "gone" in event:
                    raise self._gone()
                if "error" in event:
                    raise ModelError(f"OpenVINO refused: {' '.join(event['error'].split())[:300]}")
                yield event
        finally:
            del self._waiting[number]
            if not ended:
                self._tell({"id": number, "do": "cancel"})

    def _tell(self, order: dict[str, Any]) -> bool:
        assert self._process.stdin
        try:
            with self._telling:
                self._process.stdin.write(json.dumps(order).encode() + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def _gone(self) -> ModelError:
        code = self._process.poll()
        what = "was closed" if not self._end.alive else f"ended with code {code}"
        return ModelError(f"The process that runs {self.path.name} {what}.", "Load the model again.")


# -- what is kept of a file -------------------------------------------------------------------------------------------


def converted(path: Path, header: Header) -> Path:
    """The folder of OpenVINO's own form of a file, made once for each version of OpenVINO.

    Raises ModelError when OpenVINO cannot read the file, or has been found to misread it; OSError without room.
    """
    version = importlib.metadata.version("openvino-genai")
    digest = sha256_of(path)
    made = store() / "converted" / f"{digest}-openvino-{version}-{_FORM}"
    if why := (_noted(made) or {}).get("why"):
        raise ModelError(why)
    if made.is_dir():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{digest[:12]}-", dir=made.parent) as place:
        folder = Path(place) / "made"
        folder.mkdir()
        source = folder / "model.gguf"  # OpenVINO writes its form beside the file that it reads
        if set(header.kinds) <= _READ_WELL:
            source.symlink_to(path.resolve())
        else:
            from .gguf_writer import requantize

            requantize(path, source)
        stop_process(_started(source, Path(place) / "work", {}, default_threads(), worker=CONVERTER), Path(place) / "x")
        source.unlink()
        try:
            os.replace(folder, made)
        except OSError:  # another process was quicker
            if not made.is_dir():
                raise
    return made


def default_threads() -> int:
    """All cores: unlike llama.cpp's, its threads do not spin for each other when another process wants a core."""
    return len(os.sched_getaffinity(0))


def _noted(place: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((place / "compared.json").read_text())
    except FileNotFoundError:
        return None
    return found


def _started(path: Path, folder: Path, scheduler: dict[str, Any], threads: int, *, worker: Path = WORKER) -> Any:
    """The process, once it has loaded the file; its chatter goes into `folder`. Raises ModelError when it cannot."""
    folder.mkdir(exist_ok=True)
    options = {
        "path": str(path), "properties": {"INFERENCE_NUM_THREADS": threads},
        "scheduler": {"enable_prefix_caching": True, **scheduler},
    }  # fmt: skip
    with (folder / "log").open("wb") as chatter:
        process = subprocess.Popen([sys.executable, "-P", str(worker)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=chatter, start_new_session=True)  # fmt: skip
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(json.dumps(options).encode() + b"\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline() or b"{}")
    except BrokenPipeError:
        said = {}
    if "ready" not in said:
        stop_process(process, folder)
        why = re.sub(r"Exception from \S+\s*", "", str(said.get("error", "it stopped")))
        raise ModelError(f"it cannot load the file: {' '.join(why.split())[:300]}")
    return process


def _end_tokens(header: Header) -> list[int]:
    """Tokens after which an answer is over, as llama.cpp finds them: named in the file, or by their usual words."""
    named = {header.keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
    usual = {number for number, text in header.control.items() if text in _ENDS}
    return sorted({number for number in named | usual if number is not None})


def _is_for_llama(request: Request) -> bool:
    """OpenVINO has no biases, no alternatives and no such grammars; what it reports is after heat and penalties."""
    changed = request.temperature or request.presence_penalty or request.frequency_penalty
    reported = request.logprobs is not None and (request.logprobs or changed or request.repetition_penalty != 1)
    return bool(reported or request.logit_bias or grammar_of(request.constraints))


def _hand_out(lines: Any, waiting: dict[int, queue.SimpleQueue[dict[str, Any]]]) -> None:
    """Give what each line brings to whoever waits for it; when there are no more, tell all."""
    try:
        for line in lines:
            said = json.loads(line)
            for number, tokens, end, chances in said.get("news", ()):
                if mine := waiting.get(number):
                    mine.put({"tokens": tokens, "end": end, "chances": chances})
            if mine := waiting.get(said.get("id")):
                mine.put(said)
    except ValueError:  # closed under us
        pass
    for mine in list(waiting.values()):
        mine.put({"gone": True})
