"""The process in which OpenVINO runs: JSON lines in, JSON lines out, all requests decoded together.

Its step holds the interpreter's lock, so it would stall a server in the same process. It imports nothing of Genwright.
"""

import json
import os
import queue
import sys
import threading
from typing import Any


class Answer:
    """A request under way: what was read of it so far, and how much of its text was sent."""

    def __init__(self, handle: Any, stop: list[str]):
        self.handle, self.stop = handle, stop
        self.tokens: list[int] = []
        self.start = 0  # characters that were sent


def main() -> None:
    """Load the file that the first line names, then answer until stdin closes."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    options = json.loads(sys.stdin.readline())
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.enable_prefix_caching = True
    scheduler.max_num_seqs = options["parallel"]
    threads = {"INFERENCE_NUM_THREADS": options["threads"]}
    try:
        pipe = genai.ContinuousBatchingPipeline(options["path"], scheduler, "CPU", threads)
    except (RuntimeError, ValueError) as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        os._exit(1)
    print(json.dumps({"ready": True}), file=out, flush=True)
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    _work(pipe, genai, orders, out)


def _listen(orders: "queue.SimpleQueue[Any]") -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    os._exit(0)  # our parent let go of us, or died


def _work(pipe: Any, genai: Any, orders: "queue.SimpleQueue[Any]", out: Any) -> None:
    """Take orders while there are some, then one step for all answers, then send what it brought."""
    words = pipe.get_tokenizer()
    running: dict[int, Answer] = {}
    while True:
        while not running or not orders.empty():
            _obey(orders.get(), pipe, genai, words, running, out)
        pipe.step()
        for number, answer in list(running.items()):
            end = _read(answer, words, out, number)
            if end:
                del running[number]
                _send(out, number, end=end, count=len(answer.tokens))


def _obey(order: Any, pipe: Any, genai: Any, words: Any, running: dict[int, Answer], out: Any) -> None:
    import numpy as np
    import openvino

    number = order["id"]
    if order["do"] == "tokenize":
        found = words.encode(order["text"], add_special_tokens=False).input_ids.data[0].tolist()
        _send(out, number, tokens=found)
    elif order["do"] == "detokenize":
        _send(out, number, text=words.decode(order["tokens"], skip_special_tokens=False))
    elif order["do"] == "cancel":
        if number in running:
            running.pop(number).handle.cancel()
    else:
        config = genai.GenerationConfig()
        for name, value in order["config"].items():
            setattr(config, name, set(value) if name == "stop_token_ids" else value)
        tokens = openvino.Tensor(np.array([order["tokens"]], dtype=np.int64))
        try:
            handle = pipe.add_request(number, tokens, config)
        except (RuntimeError, ValueError) as error:
            _send(out, number, error=str(error))
            return
        if order["do"] == "score":
            while pipe.has_non_finished_requests():
                pipe.step()
            _send(out, number, logprobs=list(handle.read_all()[0].generated_log_probs))
        else:
            running[number] = Answer(handle, order["stop"])


def _read(answer: Answer, words: Any, out: Any, number: int) -> str:
    """Send the text that is whole and can be part of no stop word; says why the answer ended, once it has."""
    end = ""
    while answer.handle.can_read():
        found = answer.handle.read()[0]
        answer.tokens += found.generated_ids
        reason = str(found.finish_reason).rpartition(".")[2]
        end = {"STOP": "stop", "LENGTH": "length"}.get(reason, end)
    text = words.decode(answer.tokens, skip_special_tokens=True)[answer.start :]
    cut = min((place for stop in answer.stop if (place := text.find(stop)) >= 0), default=-1)
    if cut >= 0:
        answer.handle.cancel()
        _send(out, number, text=text[:cut])
        return "stop"
    held = 0 if end else max((_begun(text, stop) for stop in answer.stop), default=0)
    if not end:
        held = max(held, len(text) - len(text.rstrip("\ufffd")))  # a character that is not whole yet
    if text[: len(text) - held]:
        _send(out, number, text=text[: len(text) - held])
        answer.start += len(text) - held
    return end


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop word."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def _send(out: Any, number: int, **facts: Any) -> None:
    print(json.dumps({"id": number, **facts}), file=out, flush=True)


if __name__ == "__main__":
    main()
