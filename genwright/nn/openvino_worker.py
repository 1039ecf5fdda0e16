"""The process in which OpenVINO runs: JSON lines in, JSON lines out, all requests decoded together.

Its step holds the interpreter's lock, so it would stall a server in the same process. Between two steps the processor
idles, so little is done there: tokens leave as numbers, one line for all answers. It imports nothing of Genwright.
"""

import json
import os
import select
from collections.abc import Iterator
from typing import Any


def main() -> None:
    """Load the model that the first line names, then answer until stdin closes."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    lines = Lines(0)
    options = lines.take(wait=True)[0]
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    for name, value in options["scheduler"].items():
        setattr(scheduler, name, value)
    try:
        pipe = genai.ContinuousBatchingPipeline(options["path"], scheduler, "CPU", options["properties"])
    except (RuntimeError, ValueError) as error:
        _send(out, {"error": str(error)})
        os._exit(1)
    _send(out, {"ready": True})
    Work(pipe, genai, out).go_on(lines)


class Lines:
    """JSON lines from a file descriptor, without a thread: a thread would wait for the lock that a step holds."""

    def __init__(self, number: int):
        self.number, self.rest = number, b""

    def take(self, *, wait: bool) -> list[Any]:
        """What has come; at least one when told to wait. Ends the process when whoever sends has gone."""
        found: list[Any] = []
        while (wait and not found) or select.select([self.number], [], [], 0)[0]:
            data = os.read(self.number, 1 << 20)
            if not data:
                os._exit(0)
            *whole, self.rest = (self.rest + data).split(b"\n")
            found += map(json.loads, whole)
        return found


class Work:
    """Takes orders while there are some, then one step for all answers, then sends what it brought."""

    def __init__(self, pipe: Any, genai: Any, out: int):
        self.pipe, self.genai, self.out = pipe, genai, out
        self.running: dict[int, Any] = {}

    def go_on(self, lines: Lines) -> None:
        while True:
            busy = self.pipe.has_non_finished_requests()
            for order in lines.take(wait=not busy):
                self.obey(order)
            if self.pipe.has_non_finished_requests():
                self.pipe.step()
                if news := list(self.news()):
                    _send(self.out, {"news": news})

    def news(self) -> Iterator[list[Any]]:
        """[number, tokens, why it ended or "", log-probabilities] of each answer that went on."""
        for number, (handle, with_chances) in list(self.running.items()):
            tokens, chances, end = [], [], ""
            while handle.can_read():
                found = handle.read()[0]
                tokens += found.generated_ids
                if with_chances:
                    chances += found.generated_log_probs
                reason = str(found.finish_reason).rpartition(".")[2]
                end = {"STOP": "stop", "LENGTH": "length"}.get(reason, end)
            if end:
                del self.running[number]
            if tokens or end:
                yield [number, tokens, end, chances]

    def obey(self, order: Any) -> None:
        number = order["id"]
        if order["do"] == "cancel":
            if number in self.running:
                self.running.pop(number)[0].cancel()
        elif handle := self.begun(number, order):
            self.running[number] = (handle, bool(order["config"].get("logprobs")))

    def begun(self, number: int, order: Any) -> Any:
        import numpy as np
        import openvino

        config = self.genai.GenerationConfig()
        for name, value in order["config"].items():
            setattr(config, name, set(value) if name == "stop_token_ids" else value)
        tokens = openvino.Tensor(np.array([order["tokens"]], dtype=np.int64))
        try:
            return self.pipe.add_request(number, tokens, config)
        except (RuntimeError, ValueError) as error:
            _send(self.out, {"id": number, "error": str(error)})
            return None


def _send(out: int, facts: Any) -> None:
    data = json.dumps(facts).encode() + b"\n"
    while data:
        data = data[os.write(out, data) :]


if __name__ == "__main__":
    main()
