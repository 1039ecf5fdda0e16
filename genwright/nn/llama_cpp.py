"""llama.cpp in a process of its own, spoken to over a private socket: tokens in, text out, closing is cancelling."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import weakref
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

from genwright.core import MissingExtra, ModelError, Part, Request, UsageError

from .gguf_header import read_header
from .gguf_words import pieces_of
from .grammar import grammar_of, only

WORKER = Path(__file__).with_name("llama_worker.py")
SECONDS_TO_LOAD = 600


def default_threads() -> int:
    """All cores but one: with every core taken, one other busy process makes llama.cpp three times slower."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


class LlamaCpp:
    """A GGUF file being served. `adapters` are (file, scale) pairs; `context` is in tokens, for each of `parallel`.

    Raises MissingExtra without xllamacpp, and ModelError when the file cannot be loaded.
    """

    def __init__(
        self, path: Path, *, context: int = 4096, parallel: int = 4, threads: int | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
    ):  # fmt: skip
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingExtra("xllamacpp", "text")
        for file in (path, *(adapter for adapter, _ in adapters)):
            if not file.is_file():
                raise ModelError(f"There is no file {file}.", "Give a GGUF file.")
        self.path, self.parallel = path, parallel
        self._folder = Path(tempfile.mkdtemp(prefix="gw-"))  # mode 0700: the socket is ours alone
        self._socket = str(self._folder / "llama.sock")
        self._key = secrets.token_urlsafe(32)
        self._process = self._start(context, threads or default_threads(), adapters)
        self._end = weakref.finalize(self, stop_process, self._process, self._folder)
        facts = self._ask("GET", "/props")
        self.context: int = facts["default_generation_settings"]["n_ctx"]

    def _start(self, context: int, threads: int, adapters: Sequence[tuple[Path, float]]) -> subprocess.Popen[bytes]:
        options = {"path": str(self.path), "socket": self._socket, "key": self._key, "context": context,
                   "parallel": self.parallel, "threads": threads,
                   "adapters": [{"path": str(file), "scale": scale} for file, scale in adapters]}  # fmt: skip
        log = self._folder / "log"
        with log.open("wb") as chatter:
            process = subprocess.Popen([sys.executable, "-P", str(WORKER)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=chatter, start_new_session=True)  # fmt: skip
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps(options).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer or "error" in json.loads(answer):
            said = " ".join(log.read_text(errors="replace").split())[-300:]
            stop_process(process, self._folder)
            raise ModelError(
                f"llama.cpp cannot load {self.path}: {said or 'it stopped while loading'}",
                "Check that the file is a whole GGUF model, and that its adapters belong to it.",
            )
        return process

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """`special` reads <|…|> as control tokens, as in a rendered chat template."""
        found = self._ask("POST", "/tokenize", {"content": text, "add_special": False, "parse_special": special})
        tokens: list[int] = found["tokens"]
        return tokens

    def detokenize(self, tokens: Sequence[int]) -> str:
        text: str = self._ask("POST", "/detokenize", {"tokens": list(tokens)})["content"]
        return text

    def complete(self, tokens: Sequence[int], **options: Any) -> Generator[dict[str, Any]]:
        """llama.cpp's own events for a prompt of tokens, as they come; closing the iterator stops the decoding.

        `options` are those of its `/completion`. Raises UsageError when the prompt is longer than the context or a
        grammar is wrong, and ModelError when the process dies.
        """
        body = {"prompt": list(tokens), "stream": True, "cache_prompt": True, **options}
        with closing(self._connect()) as connection:
            response = self._request(connection, "POST", "/completion", body)
            try:
                for line in response:
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        yield event
                        if event.get("stop"):
                            return
                    elif line.startswith(b"error: "):
                        raise _error(json.loads(line[7:]))
            except (OSError, http.client.HTTPException):
                pass
        raise self._gone()

    def answer(
        self, tokens: Sequence[int], request: Request, *, seed: int, adapters: Sequence[float] = ()
    ) -> Generator[Part]:
        """Text deltas; the last one is empty and its meta says why the answer ended and how many tokens it took.

        `adapters` are scales in the order of the files. Raises UsageError for constraints that cannot be enforced.
        """
        options: dict[str, Any] = {
            "n_predict": request.max_new_tokens, "temperature": request.temperature, "top_p": request.top_p,
            "top_k": request.top_k, "min_p": 0.0, "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "seed": seed % 0xFFFFFFFF, "stop": list(request.stop), **_penalties(tokens, request, self.context),
            **self.scaled(adapters),
        }  # fmt: skip
        grammar = grammar_of(request.constraints)
        if grammar:
            options["grammar"] = grammar
        if request.logprobs is not None:
            options["n_probs"] = max(1, request.logprobs)
        told = _Told(self, tokens, request.logprobs or 0, self.scaled(adapters))
        with closing(self.complete(tokens, **options)) as events:
            for event in events:
                told.hear(event)
                if event["content"]:
                    meta = None if request.logprobs is None else {"logprobs": told.entries(event["content"])}
                    yield Part(text=event["content"], meta=meta)
                if event["stop"]:
                    why = "length" if event["stop_type"] == "limit" else "stop"
                    by = {"stop_sequence": event["stopping_word"]} if event.get("stopping_word") else {}
                    yield Part(meta={"finish_reason": why, "prompt_tokens": event["tokens_evaluated"],
                                     "completion_tokens": event["tokens_predicted"],
                                     "cached_tokens": event["timings"]["cache_n"], **by})  # fmt: skip

    @staticmethod
    def scaled(adapters: Sequence[float]) -> dict[str, Any]:
        return {"lora": [{"id": number, "scale": scale} for number, scale in enumerate(adapters)]} if adapters else {}

    def score(self, prompt: Sequence[int], answer: Sequence[int], *, adapters: Sequence[float] = ()) -> float:
        """log P(answer | prompt) in nats, over exactly these tokens."""
        return sum(one["logprob"] for one in self.scores(prompt, answer, adapters=adapters))

    def scores(
        self, prompt: Sequence[int], answer: Sequence[int], *, top: int = 0, adapters: Sequence[float] = ()
    ) -> list[dict[str, Any]]:
        """How likely each token of the answer is behind those before it, and the `top` likeliest in its place.

        llama.cpp reports how likely a token was before grammars and biases touched it, so we lead it along the answer:
        by a grammar of token ids as far as that reaches, and token by token by a bias where it does not (the last
        token, for grammars cannot hold an end of turn; and pieces of a character).
        """
        found: list[dict[str, Any]] = []
        while len(found) < len(answer):
            done = run = len(found)
            while run < len(answer) - 1 and self._is_whole(answer[run]):
                run += 1
            before, options = [*prompt, *answer[:done]], self.scaled(adapters)
            if run > done:
                wanted = answer[done:run]
                led = self._led(before, wanted, grammar=only(wanted), n_probs=max(1, top), **options)
                found += [self.entry(one, top) for one in led]
            else:
                found.append(self.chance(before, answer[done], top, **options))
        return found

    def chance(self, prompt: Sequence[int], token: int, top: int, **options: Any) -> dict[str, Any]:
        """How likely one token is behind others, in the shape of `scores`."""
        found = self._led(prompt, [token], logit_bias=[[token, 1e6]], n_probs=max(1, top), **options)
        if found:
            return self.entry(found[0], top)
        other = self.tokenize("a", special=False)[0]  # the beginning of a character is not reported; a letter is, and
        for count in (1000, 1 << 20):  # what else was likely in its place
            for event in self.complete(prompt, n_predict=1, temperature=0.0, logit_bias=[[other, 1e6]],
                                       n_probs=count, **options):  # fmt: skip
                for probability in event.get("completion_probabilities", []):
                    likely = probability["top_logprobs"]
                    for candidate in likely:
                        if candidate["id"] == token:
                            return self.entry(candidate | {"top_logprobs": likely}, top)
        raise ModelError(f"llama.cpp does not say how likely the token {token} is.", "Please report the model.")

    def _led(self, prompt: Sequence[int], wanted: Sequence[int], **options: Any) -> list[dict[str, Any]]:
        seen = [found for event in self.complete(prompt, n_predict=len(wanted), temperature=0.0, **options)
                for found in event.get("completion_probabilities", [])]  # fmt: skip
        if seen and [found["id"] for found in seen] != list(wanted):
            raise ModelError("llama.cpp did not follow the tokens of the reference answer.", "Please report the model.")
        return seen

    @cached_property
    def pieces(self) -> list[bytes]:
        """What each token says."""
        return pieces_of(read_header(self.path))

    def entry(self, found: dict[str, Any], top: int) -> dict[str, Any]:
        """A token's figures in the shape of nn/logprobs. Its bytes by our own table: llama.cpp's are those of the text
        that it let out at that moment."""

        def one(said: dict[str, Any]) -> dict[str, Any]:
            piece = self.pieces[said["id"]]
            token = piece.decode("utf-8", "replace")
            return {"token": token, "bytes": list(piece), "logprob": max(-9999.0, said["logprob"])}

        return one(found) | {"top": [one(other) for other in found["top_logprobs"][:top]]}

    def _is_whole(self, token: int) -> bool:
        """Whether a token is whole characters, not a part of one that takes several tokens."""
        try:
            self.pieces[token].decode()
        except UnicodeDecodeError:
            return False
        return True

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process and give its memory back; calling twice is fine."""
        self._end()

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- HTTP over the socket -----------------------------------------------------------------------------------------

    def _connect(self) -> http.client.HTTPConnection:
        return _Connection(self._socket)

    def _ask(self, verb: str, path: str, body: Any = None) -> dict[str, Any]:
        with closing(self._connect()) as connection:
            try:
                found: dict[str, Any] = json.loads(self._request(connection, verb, path, body).read())
            except (OSError, http.client.HTTPException):
                raise self._gone() from None
        return found

    def _request(
        self, connection: http.client.HTTPConnection, verb: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode("utf-8", "replace")
        head = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            connection.request(verb, path, data, head)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise self._gone() from None
        if response.status != 200:
            raise _error(json.loads(response.read()).get("error", {}))
        return response

    def _gone(self) -> ModelError:
        try:
            code = self._process.wait(timeout=1)  # the connection breaks a moment before the process is gone
        except subprocess.TimeoutExpired:
            code = None
        what = "was closed" if not self._end.alive else f"ended with code {code}" if code is not None else "hung up"
        return ModelError(f"The process that runs {self.path.name} {what}.", "Load the model again.")


class _Told:
    """The log-probabilities of an answer's tokens, as they belong to its text.

    llama.cpp holds a token's text back while it may begin a stop word, so its figures wait for the text too. It does
    not report the first tokens of a character that takes several: these are looked up afterwards.
    """

    def __init__(self, runner: LlamaCpp, prompt: Sequence[int], top: int, options: dict[str, Any]):
        self.runner, self.top, self.options = runner, top, options
        self.before = list(prompt)
        self.waiting: list[dict[str, Any]] = []

    def hear(self, event: dict[str, Any]) -> None:
        self.waiting += event.get("completion_probabilities", [])

    def entries(self, text: str) -> list[dict[str, Any]]:
        """Those of the tokens that made this text."""
        made, left = [], text.encode("utf-8", "replace")
        for found in self.waiting:
            own = self.runner.pieces[found["id"]]
            if own and not left:  # it is of a stop word
                break
            place = max(0, left.find(own))
            for token in self._unreported(left[:place], found["id"]):
                made.append(self.runner.chance(self.before, token, self.top, **self.options))
                self.before.append(token)
            left = left[place + len(own) :]
            made.append(self.runner.entry(found, self.top))
            self.before.append(found["id"])
        self.waiting = []
        return made

    def _unreported(self, lead: bytes, last: int) -> Sequence[int]:
        """The tokens that say `lead`, the beginning of a character whose last token was reported."""
        if not lead:
            return ()
        pieces = self.runner.pieces
        tokens = self.runner.tokenize((lead + pieces[last]).decode("utf-8", "ignore"), special=False)
        if tokens[-1:] == [last] and b"".join(pieces[token] for token in tokens[:-1]) == lead:
            return tokens[:-1]
        return [pieces.index(bytes([byte])) for byte in lead if bytes([byte]) in pieces]


class _Connection(http.client.HTTPConnection):
    """http.client over a Unix socket."""

    def __init__(self, path: str):
        super().__init__("localhost")
        self.place = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.place)


def _penalties(prompt: Sequence[int], request: Request, context: int) -> dict[str, Any]:
    """Penalties and biases in llama.cpp's words.

    Its penalties count the prompt's tokens as said before; OpenAI's presence and frequency penalties do not, so a bias
    gives the prompt's tokens back what they lose. Exact for frequency; by presence, a token of the prompt is then not
    penalised at all. The bias comes before the division by a repetition penalty, hence the product.
    """
    bias = dict(request.logit_bias)
    presence, frequency, repetition = request.presence_penalty, request.frequency_penalty, request.repetition_penalty
    if presence or frequency:
        for token, count in Counter(prompt).items():
            bias[token] = bias.get(token, 0.0) + repetition * (presence + frequency * count)
    penalties = {"repeat_penalty": repetition, "presence_penalty": presence, "frequency_penalty": frequency}
    return penalties | {"repeat_last_n": context, "logit_bias": [[token, value] for token, value in bias.items()]}


def _error(said: dict[str, Any]) -> UsageError | ModelError:
    if said.get("type") == "exceed_context_size_error":
        return UsageError(
            f"The prompt has {said.get('n_prompt_tokens')} tokens; the context holds {said.get('n_ctx')}.",
            "Shorten the conversation, or load the model with a larger `context`.",
        )
    wrong = said.get("code") == 400
    return (UsageError if wrong else ModelError)(f"llama.cpp refused: {said.get('message', 'no reason given')}")


def stop_process(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Let go of a worker, so that it ends; kill it when it does not. Its folder goes too."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
