"""Many requests at once, each in a thread of its own: for models that wait while another process computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from genwright.core import GenwrightError, Message, Part, Request, assistant


def answer_many(
    generate: Callable[[Request], Generator[Part]], requests: Sequence[Request], *, seeds: Iterator[int], at_once: int
) -> Iterator[tuple[int, Message]]:
    """Yield (index, answer) as they are ready, `at_once` under way; each request without a seed gets the next one.

    Raises the first error of an answer. Closing it stops the answers under way at their next word.
    """
    work = queue.SimpleQueue[tuple[int, Request]]()
    done = queue.SimpleQueue[tuple[int, Message | GenwrightError]]()
    stopped = threading.Event()
    for number, request in enumerate(requests):
        work.put((number, request.model_copy(update={"seed": next(seeds)}) if request.seed is None else request))

    def answer() -> None:
        while not stopped.is_set():
            try:
                number, request = work.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, _whole(generate(request), stopped)))
            except GenwrightError as error:
                done.put((number, error))

    for _ in range(min(at_once, len(requests))):
        threading.Thread(target=answer, daemon=True).start()
    try:
        for _ in requests:
            number, found = done.get()
            if isinstance(found, GenwrightError):
                raise found
            yield number, found
    finally:
        stopped.set()


def _whole(parts: Generator[Part], stopped: threading.Event) -> Message:
    texts: list[str] = []
    meta: dict[str, Any] = {}
    with closing(parts):
        for part in parts:
            if stopped.is_set():
                break
            texts.append(part.text)
            meta |= part.meta or {}
    return assistant(Part(text="".join(texts), meta=meta or None))
