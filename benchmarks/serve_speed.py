"""How fast does `genwright serve` answer here, next to other servers with the same GGUF file?

    python benchmarks/serve_speed.py [FILE.gguf] --rounds 5 [--peer NAME=http://127.0.0.1:8000/v1 …]

Without FILE, the 8-bit GGUF is made from the card smollm2-135m-instruct. Contenders: `ours` (the whole server, over
HTTP), `bare` (the engine that it chose, without HTTP, guards or ledger), `llama` (llama.cpp's own server, as
xllamacpp ships it, with its own number of threads), `llama-1` (the same with one thread), and every --peer that speaks
OpenAI's API and is already running (vLLM, `transformers serve`). All are up together, idle but for the one that is
asked; they are asked in turn, round by round, so that what else the machine does hits all; a ratio is taken within a
round. How busy the others kept the processor is printed: a round above a few percent measures the machine, not us.

Told: milliseconds to the first token behind a system prompt of about 400 tokens, never seen before (cold) and seen
(warm); at 1, 4, 8 and 16 streams the tokens a second, prompts included, and the gaps between two tokens (p50, p99); a
mixed load (a shared prefix, copying, short and long answers, one in six hung up on); the peak memory of the processes;
and what share of the memory's bandwidth one stream uses, for each token reads the weights once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Messages = list[dict[str, str]]
STREAMS, TOKENS, CONTEXT = (1, 4, 8, 16), 64, 2048
ASKED = [
    "What is a continuous function?", "Tell me a story about a lighthouse keeper.", "How do I bake bread?",
    "Explain how photosynthesis works.", "Write a poem about autumn.", "What speaks for electric cars?",
    "Give me five tips for better sleep.", "Why is the sky blue?", "Describe a day in the life of a baker.",
    "How does a bicycle stay upright?", "What should I see in a harbour town?", "Explain compound interest.",
    "Write a letter to a friend far away.", "What do bees do in winter?", "How is paper made?", "What is a good map?",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="a GGUF model with a chat template")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["ours", "bare", "llama", "llama-1"])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL[#MODEL]")
    parser.add_argument("--json", type=Path, help="write all that was measured here")
    parser.add_argument("--llama", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama:
        serve_llama(**json.loads(args.llama))
        return
    file = args.file or the_card()
    with tempfile.TemporaryDirectory() as folder:
        contenders = {name: started(name, file, Path(folder)) for name in args.only}
        for told in args.peer:
            name, _, url = told.partition("=")
            contenders[name] = Http(url, None)
        found = {name: [] for name in contenders}
        try:
            for contender in contenders.values():
                contender.rest(contender.ask([{"role": "user", "content": "Hello"}], 8))
            for number in range(args.rounds):
                for name, contender in contenders.items():
                    found[name].append(one_round(contender, number))
                    print(f"round {number + 1} {name}: {shown(found[name][-1])}", flush=True)
        finally:
            memory = {name: contender.close() for name, contender in contenders.items()}
    report(found, memory, file, bandwidth())
    if args.json:
        args.json.write_text(json.dumps({"rounds": found, "memory": memory}, indent=1))


# -- contenders ------------------------------------------------------------------------------------------------------


class Http:
    """A server that speaks OpenAI's API; `ask` gives the time at which each piece came, and at last the tokens."""

    def __init__(self, url: str, process: subprocess.Popen[bytes] | None):
        self.place, self.process = urlsplit(url), process
        self.model = self.place.fragment
        if self.model:
            return
        with closing(self.connection()) as connection:
            connection.request("GET", f"{self.place.path}/models")
            self.model = json.loads(connection.getresponse().read())["data"][0]["id"]

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.place.hostname or "", self.place.port, timeout=600)

    def ask(self, messages: Messages, tokens: int) -> Iterator[float | int]:
        body = {"model": self.model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}}  # fmt: skip
        with closing(self.connection()) as connection:
            connection.request("POST", f"{self.place.path}/chat/completions", json.dumps(body),
                               {"Content-Type": "application/json"})  # fmt: skip
            response = connection.getresponse()
            assert response.status == 200, response.read()[:500]
            count = 0
            for line in response:
                if b'"content":"' in line and b'"content":""' not in line:
                    yield time.perf_counter()
                if b'"completion_tokens":' in line:
                    count = json.loads(line[6:])["usage"]["completion_tokens"]
            yield int(count)

    @staticmethod
    def rest(parts: Iterator[float | int]) -> tuple[list[float], int]:
        *times, count = parts
        return [float(t) for t in times], int(count)

    def close(self) -> int:
        """Ends it; the peak of its memory in bytes, all its processes together."""
        if not self.process:
            return 0
        peak = sum(peak_of(pid) for pid in family(self.process.pid))
        self.process.terminate()
        self.process.wait(30)
        return peak


class Bare(Http):
    """The engine alone, in its own process and ours: what is above it is what HTTP, hall and ledger cost."""

    def __init__(self, file: Path):
        from genwright.engines import gguf

        self.model: Any = gguf.load(file, gguf.Settings(context=CONTEXT, parallel=16))
        print(f"bare: {type(self.model.runner).__name__} {self.model.notes}")

    def ask(self, messages: Messages, tokens: int) -> Iterator[float | int]:
        from genwright.core import Request, say_as

        said = tuple(say_as(message["role"], message["content"]) for message in messages)
        count = 0
        with closing(self.model.generate(Request(messages=said, max_new_tokens=tokens))) as parts:
            for part in parts:
                if part.text:
                    yield time.perf_counter()
                count = (part.meta or {}).get("completion_tokens", count)
        yield count

    def close(self) -> int:
        peak = peak_of(self.model.runner._process.pid)
        self.model.close()
        return peak


def started(name: str, file: Path, folder: Path) -> Http:
    if name == "bare":
        return Bare(file)
    if name == "ours":
        config = folder / "serve.yaml"
        entry = {"name": "m", "source": str(file), "engine": {"context": CONTEXT, "parallel": 16}}
        config.write_text(json.dumps({"models": [entry], "queue": 64, "data": str(folder / "data")}))
        words = [sys.executable, "-m", "genwright", "serve", "--config", str(config), "--port"]
    else:
        threads = 1 if name == "llama-1" else 0
        words = [sys.executable, __file__, "--llama", json.dumps({"file": str(file), "threads": threads})]
    port = free_port()
    words = [*words, str(port)] if name == "ours" else [*words[:-1], words[-1][:-1] + f', "port": {port}}}']
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log)
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if is_ready(port, "/readyz" if name == "ours" else "/health"):
            return Http(f"http://127.0.0.1:{port}/v1", process)
        time.sleep(0.2)
    process.kill()
    raise SystemExit(f"{name} does not start: {(folder / f'{name}.log').read_text()[-2000:]}")


def serve_llama(file: str, threads: int, port: int) -> None:
    """llama.cpp's own server with its defaults, but for room for 16 streams of the same length as ours."""
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path, params.hostnames, params.port = file, ["127.0.0.1"], port
    params.n_parallel, params.n_ctx, params.n_threads_http = 16, 16 * CONTEXT, 18
    params.ui = False
    if threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = llama.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)


# -- what is measured ------------------------------------------------------------------------------------------------


def one_round(contender: Http, number: int) -> dict[str, float]:
    begin, busy = time.perf_counter(), others()
    found = first_tokens(contender, number)
    for streams in STREAMS:
        found |= at_once(contender, streams, number)
    found["mixed"] = mixed(contender, number)
    seconds = time.perf_counter() - begin
    found["others"] = (others() - busy) / seconds / (os.cpu_count() or 1)
    return found


def first_tokens(contender: Http, number: int) -> dict[str, float]:
    """Milliseconds to the first token: a prefix never seen, and twice the same prefix with other questions."""
    told: dict[str, list[float]] = {"cold": [], "warm": []}
    for turn in range(3):
        system = a_text(random.Random(f"{id(contender)} {number} {turn} {time.time_ns()}"), 300)
        for kind, question in (("cold", ASKED[turn]), ("warm", ASKED[turn + 3])):
            messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            begin = time.perf_counter()
            times, _ = contender.rest(contender.ask(messages, 4))
            told[kind].append((times[0] - begin) * 1e3)
    return {kind: statistics.median(values) for kind, values in told.items()}


def at_once(contender: Http, streams: int, number: int) -> dict[str, float]:
    """Each stream asks one question of its own, not asked before in these words, and is answered to the same length."""
    asked = [[{"role": "user", "content": f"({number}.{streams}) {ASKED[i % len(ASKED)]}"}] for i in range(streams)]
    gaps: list[float] = []

    def ask(messages: Messages) -> int:
        times, count = contender.rest(contender.ask(messages, TOKENS))
        gaps.extend(b - a for a, b in pairwise(times))
        return count

    begin = time.perf_counter()
    total = sum(together(ask, asked, streams))
    seconds = time.perf_counter() - begin
    cuts = statistics.quantiles(gaps, n=100) if len(gaps) > 1 else [0.0] * 99
    return {f"tokens/s {streams}": total / seconds, f"gap p50 {streams}": cuts[49] * 1e3,
            f"gap p99 {streams}": cuts[98] * 1e3}  # fmt: skip


def mixed(contender: Http, number: int) -> float:
    """Tokens a second over 36 answers, 8 at a time; those of answers that were hung up on count as far as heard."""
    draw = random.Random(number)  # the same for all
    system = a_text(draw, 300)
    jobs: list[tuple[Messages, int, bool]] = []
    for place in range(36):
        kind = ("shared", "copy", "short", "long")[place % 4]
        text = a_text(draw, 80) if kind == "copy" else ""
        said = f"Repeat word for word: {text}" if text else f"({number}) {draw.choice(ASKED)}"
        messages = [{"role": "system", "content": system}] if kind == "shared" else []
        length = {"shared": 48, "copy": 120, "short": 12, "long": 160}[kind]
        jobs.append(([*messages, {"role": "user", "content": said}], length, place % 6 == 5))

    def ask(job: tuple[Messages, int, bool]) -> int:
        messages, tokens, leaves = job
        parts = contender.ask(messages, tokens)
        if not leaves:
            return contender.rest(parts)[1]
        heard = sum(1 for _, _ in zip(range(5), parts, strict=False))
        parts.close()  # type: ignore[attr-defined]
        return heard

    begin = time.perf_counter()
    total = sum(together(ask, jobs, 8))
    return total / (time.perf_counter() - begin)


def together(work: Callable[[Any], int], jobs: list[Any], workers: int) -> list[int]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, jobs))


def a_text(draw: random.Random, words: int) -> str:
    """Words of Python's own documentation, in an order of their own."""
    from pydoc_data.topics import topics

    pool = " ".join(topics[name] for name in sorted(topics)).split()
    start = draw.randrange(len(pool) - words)
    return " ".join(pool[start : start + words])


# -- the machine -----------------------------------------------------------------------------------------------------


def others() -> float:
    """Seconds of processor time that other processes than ours and our children's have taken since the start."""
    ticks = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    mine = 0
    for pid in family(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        mine += int(fields[11]) + int(fields[12])
    return (busy - mine) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def peak_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def bandwidth() -> float:
    """Bytes a second that all cores together read, the best of five."""
    import numpy as np

    parts = [np.ones(16_000_000, np.float32) for _ in range(os.cpu_count() or 1)]
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        threads = [threading.Thread(target=part.sum) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, sum(part.nbytes for part in parts) / (time.perf_counter() - begin))
    return best


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def is_ready(port: int, path: str) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status == 200
    except OSError:
        return False


def the_card() -> Path:
    """The card's file in 8 bits, made once."""
    from genwright.core.home import store
    from genwright.nn.gguf_writer import requantize
    from genwright.verbs.models import locate

    made = store() / "benchmarks" / "smollm2-135m-instruct-q8_0.gguf"
    if not made.is_file():
        made.parent.mkdir(parents=True, exist_ok=True)
        partial = made.with_suffix(".tmp")
        requantize(locate("smollm2-135m-instruct").path, partial)
        partial.rename(made)
    return made


# -- the table -------------------------------------------------------------------------------------------------------


def shown(found: dict[str, float]) -> str:
    speeds = ", ".join(f"{found[f'tokens/s {n}']:.0f}" for n in STREAMS)
    return (f"first token {found['cold']:.0f}/{found['warm']:.0f} ms, {speeds} tokens/s at "
            f"{', '.join(map(str, STREAMS))}, mixed {found['mixed']:.0f}; others {found['others']:.0%}")  # fmt: skip


def report(found: dict[str, list[dict[str, float]]], memory: dict[str, int], file: Path, ceiling: float) -> None:
    names = list(found)
    print(
        f"\n{file.name}, {os.cpu_count()} cores, medians of {len(found[names[0]])} rounds; ratio to ours [least–most]"
    )
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for figure in next(iter(found.values()))[0]:
        cells = []
        for name in names:
            value = statistics.median(row[figure] for row in found[name])
            cell = f"{value:.0%}" if figure == "others" else f"{value:.4g}"
            if name != "ours" and "ours" in found and figure != "others":
                ratios = [ours[figure] / max(row[figure], 1e-9)
                          for ours, row in zip(found["ours"], found[name], strict=True)]  # fmt: skip
                cell += f" ({statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}])"
            cells.append(cell)
        print(f"| {figure} | " + " | ".join(cells) + " |")
    print("| peak MB | " + " | ".join(f"{memory[name] / 1e6:.0f}" for name in names) + " |")
    for name in names:
        rate = statistics.median(row["tokens/s 1"] for row in found[name])
        print(f"{name}: one stream reads {rate * file.stat().st_size / 1e9:.1f} of {ceiling / 1e9:.1f} GB/s, "
              f"{rate * file.stat().st_size / ceiling:.0%} of the memory's bandwidth")  # fmt: skip


if __name__ == "__main__":
    main()
