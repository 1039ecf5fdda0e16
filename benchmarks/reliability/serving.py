"""The server's promises under stress, each with its figure: draining, backpressure, leaving, faults, reloads …

    python benchmarks/reliability/serving.py            all, about five minutes
    python benchmarks/reliability/serving.py R3 R8      some
    python benchmarks/reliability/serving.py overload   ten times more clients than there is room for, for a minute

Each check starts a server of its own, in a process, and talks to it over loopback. Where the model itself does not
matter it says what a request asks it to say, in a worker as any model has; R4, R6, R7 and R11 also ask a real one
(`genwright models pull smollm2-135m-instruct`), by both runners.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.server.crew import Running, running_server, says, with_engine

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
MODEL = "smollm2-135m-instruct"
STORY = "Tell a long story about a lighthouse, a storm and a boat."


@dataclass
class Found:
    """One promise and what came of it."""

    id: str
    what: str
    figure: str
    kept: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="R1", help=f"of {', '.join(CHECKS)}, overload")
    parser.add_argument("--cycles", type=int, default=1000, help="of R4: clients that leave, one after the other")
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    args = parser.parse_args()
    broken = 0
    for name in args.checks or CHECKS:
        check = overload if name == "overload" else CHECKS[name]
        with tempfile.TemporaryDirectory() as folder, with_engine(Path(folder), own_store=False):
            for found in asyncio.run(check(Path(folder), args)):
                broken += not found.kept
                print(f"{'kept  ' if found.kept else 'BROKEN'} {found.id:<4} {found.what}: {found.figure}", flush=True)
    return int(broken > 0)


# -- clients -----------------------------------------------------------------------------------------------------------


def asked(
    text: str = "", *, model: str = "m", stream: bool = False, options: dict[str, Any] | None = None, **told: Any
) -> bytes:
    content = text or json.dumps(told)
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": content}], **(options or {})}
    return json.dumps(body).encode()


@asynccontextmanager
async def connected(server: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def send(writer: asyncio.StreamWriter, verb: str, path: str, body: bytes = b"", head: str = "") -> None:
    kind = "Content-Type: application/json\r\n" if body else ""
    writer.write(
        f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    )
    await writer.drain()


async def received(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    head = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), head


async def call(
    server: Running, verb: str = "POST", path: str = "/v1/chat/completions", body: bytes = b"", head: str = ""
) -> tuple[int, dict[str, str], Any, float]:
    """(status, headers, body, seconds); status 0 when nobody answers."""
    began = time.monotonic()
    try:
        async with connected(server) as (reader, writer):
            await send(writer, verb, path, body, head)
            status, headers = await received(reader)
            if "content-length" in headers:
                said = await reader.readexactly(int(headers["content-length"]))
            else:
                said = await chunked(reader)
    except (OSError, asyncio.IncompleteReadError):
        return 0, {}, None, time.monotonic() - began
    try:
        found = json.loads(said)
    except ValueError:
        found = said.decode()
    return status, headers, found, time.monotonic() - began


async def chunked(reader: asyncio.StreamReader) -> bytes:
    said = b""
    while size := int(await reader.readline(), 16):
        said += (await reader.readexactly(size + 2))[:-2]
    return said


async def running(server: Running, seat: int = 0) -> int:
    return int((await call(server, "GET", "/admin/ps"))[2]["data"][seat]["running"])


@contextmanager
def stand(place: Path, *models: Any, **options: Any) -> Iterator[Running]:
    told = {"models": list(models) or [says("m", parallel=32)], "embedder": "", **options}
    with running_server(place, told) as server:
        yield server


def real(runner: str, **options: Any) -> dict[str, Any]:
    """The real model by one runner."""
    return {"name": "m", "source": MODEL, "engine": {"runner": runner, "context": 1024, "parallel": 16, **options}}


def runners() -> list[str]:
    """Those that are installed, when the real model is here."""
    from importlib.util import find_spec

    from genwright.core.card import find_card

    if not find_card(MODEL).is_here:
        print(f"       {MODEL} is not here: the real model is left out")
        return []
    return ["llama.cpp", *(["openvino"] if find_spec("openvino_genai") else [])]


def rss(pid: int) -> int:
    """Bytes in memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(points: list[int]) -> float:
    """Bytes a step, by least squares."""
    xs = range(len(points))
    middle, mean = statistics.mean(xs), statistics.mean(points)
    return sum((x - middle) * (y - mean) for x, y in zip(xs, points, strict=True)) / sum((x - middle) ** 2 for x in xs)


# -- the checks --------------------------------------------------------------------------------------------------------


async def drain(place: Path, args: Any) -> list[Found]:
    """R1, R2."""
    with stand(place) as server:
        body = asked(stream=True, say=["x"], times=60, pause=0.05)
        streams = [asyncio.create_task(call(server, body=body)) for _ in range(20)]
        await asyncio.sleep(0.8)
        server.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.02)
        health: list[tuple[int, int]] = []
        refused: list[tuple[int, dict[str, str], Any, float]] = []
        while not all(stream.done() for stream in streams):
            live, ready = await call(server, "GET", "/healthz"), await call(server, "GET", "/readyz")
            health.append((live[0], ready[0]))
            refused.append(await call(server, body=asked("hi")))
            await asyncio.sleep(0.05)
        whole = sum(said.endswith("data: [DONE]\n\n") for _, _, said, _ in await asyncio.gather(*streams))
        code = await asyncio.to_thread(server.process.wait, 30)
    open_door = [one for one in refused if one[0]]
    right = all(status == 503 and "retry-after" in head for status, head, _, _ in open_door)
    slowest = max(took for *_, took in open_door)
    before = [one for one in health if one[0]]
    return [
        Found("R1", "20 streams at SIGTERM", f"{20 - whole} broken, exit code {code}", whole == 20 and code == 0),
        Found(
            "R1",
            "new requests while it drains",
            f"{len(open_door)} × 503 with Retry-After, slowest {slowest * 1e3:.0f} ms (100)",
            right and slowest < 0.1,
        ),
        Found(
            "R2",
            "polls of /healthz and /readyz before the door closes",
            f"{dict(Counter(before))}",
            len(before) > 10 and set(before) == {(200, 503)},
        ),
    ]


async def backpressure(place: Path, args: Any) -> list[Found]:
    """R3."""
    with stand(place, says("m", parallel=4), queue=32) as server:
        body = asked(say=["x"], times=20, pause=0.05)
        await call(server, body=asked("warm"))
        before = rss(server.process.pid)
        lines = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(200)]
        found = await asyncio.wait_for(asyncio.gather(*(_on(line, body) for line in lines)), 60)
        grown = rss(server.process.pid) / before - 1
        for _, writer in lines:
            writer.close()
    counts = Counter(status for status, _, _ in found)
    away = sorted(took for status, _, took in found if status == 429)
    polite = all("retry-after" in head and head["x-should-retry"] == "true" for s, head, _ in found if s == 429)
    p99 = away[int(len(away) * 0.99)]
    right = set(counts) == {200, 429} and 36 <= counts[200] <= 40 and polite and p99 < 0.2
    figure = f"{dict(counts)}, a refusal takes {statistics.median(away) * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms (200)"
    return [
        Found("R3", "200 at once, 4 places, queue of 32", figure, right),
        Found("R3", "memory of the server", f"{grown:+.1%} (10 %)", grown < 0.1),
    ]


async def _on(
    line: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes
) -> tuple[int, dict[str, str], float]:
    """A request on a connection that is open already."""
    reader, writer = line
    began = time.monotonic()
    await send(writer, "POST", "/v1/chat/completions", body)
    status, head = await received(reader)
    return status, head, time.monotonic() - began


async def overload(place: Path, args: Any) -> list[Found]:
    """Ten times more clients than places and queue, each asking again at once, for a minute."""
    with stand(place, says("m", parallel=4), queue=8) as server:
        body, end = asked(say=["x"], times=5, pause=0.02), time.monotonic() + args.seconds
        statuses: Counter[int] = Counter()
        memory: list[int] = []

        async def client() -> None:
            while time.monotonic() < end:
                status, head, _, _ = await asyncio.wait_for(call(server, body=body), 30)
                statuses[status] += 1
                if status == 429:
                    await asyncio.sleep(min(0.2, float(head["retry-after"])))

        async def watch() -> None:
            while time.monotonic() < end:
                memory.append(rss(server.process.pid))
                await asyncio.sleep(1)

        await asyncio.gather(watch(), *(client() for _ in range(120)))
    grown = memory[-1] / memory[min(5, len(memory) - 1)] - 1
    return [
        Found(
            "R3",
            f"120 clients for {args.seconds:.0f} s",
            f"{dict(statuses)}, memory {grown:+.1%} since the 5th second",
            set(statuses) <= {200, 429} and statuses[200] > 0 and grown < 0.1,
        )
    ]


async def leaving(place: Path, args: Any) -> list[Found]:
    """R4."""
    found = []
    kinds = [
        (
            "a model that says a word every 20 ms",
            says("m", parallel=64),
            asked(stream=True, say=["x"], times=5000, pause=0.02),
            50,
        )
    ]
    story = asked(STORY, stream=True, options={"max_tokens": 900})
    kinds += [(f"{MODEL} by {runner}", real(runner), story, 16) for runner in runners()]
    for what, model, body, count in kinds:
        with stand(place, model) as server:
            await call(server, body=asked("hi", options={"max_tokens": 1}))
            streams = []
            for _ in range(count):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                await send(writer, "POST", "/v1/chat/completions", body)
                streams.append((reader, writer))
            for reader, _ in streams:
                while b'"content":"' not in await reader.readline():
                    pass
            began = time.monotonic()
            for _, writer in streams:
                writer.transport.abort()
            while await running(server) and time.monotonic() < began + 10:
                await asyncio.sleep(0.01)
            took = time.monotonic() - began
            found.append(
                Found("R4", f"{count} clients hang up on {what}", f"all places free after {took:.2f} s (1)", took < 1)
            )
            if what.endswith(("openvino", "ms")):
                found.append(await _cycles(server, body, what, args.cycles))
    return found


async def _cycles(server: Running, body: bytes, what: str, count: int) -> Found:
    """One client after the other leaves in the middle; what stays behind of each, in each process."""
    pids = [server.process.pid, *server.workers]
    points: list[list[int]] = [[] for _ in pids]
    for number in range(count):
        async with connected(server) as (reader, writer):
            await send(writer, "POST", "/v1/chat/completions", body)
            while b'"content":"' not in await reader.readline():
                pass
            writer.transport.abort()
        if number >= count // 5 and number % 10 == 0:
            for pid, found in zip(pids, points, strict=True):
                found.append(rss(pid))
    leaks = [slope(found) / 10 for found in points]
    names = ["server", "worker", *["runner"] * len(pids)]
    each = ", ".join(f"{name} {leak:+,.0f}" for name, leak in zip(names, leaks, strict=False))
    return Found("R4", f"{count} leave {what}, one by one", f"bytes a client: {each} (1,000)", max(leaks) < 1000)


async def deadline(place: Path, args: Any) -> list[Found]:
    """R5."""
    with stand(place) as server:
        body = asked(say=["x"], times=1000, pause=0.02)
        found = [await call(server, body=body, head="X-Request-Timeout: 1\r\n") for _ in range(10)]
        await asyncio.sleep(0.3)
        left = await running(server)
    took = [one[3] for one in found]
    return [
        Found(
            "R5",
            "10 requests that may take 1 s",
            f"{dict(Counter(one[0] for one in found))} after {min(took):.2f} to "
            f"{max(took):.2f} s (1.0 to 1.3), {left} places still taken",
            {one[0] for one in found} == {504} and min(took) >= 1 and max(took) <= 1.3 and not left,
        )
    ]


async def faults(place: Path, args: Any) -> list[Found]:
    """R6."""
    results = []
    with stand(place) as server:
        good = [asked(say=[f"{number} "], times=30, pause=0.01) for number in range(31)]
        clean = [
            one[2]["choices"][0]["message"]["content"]
            for one in await asyncio.gather(*(call(server, body=b) for b in good))
        ]
        *others, bad = await asyncio.gather(
            *(call(server, body=b) for b in good),
            call(server, body=asked(say=["x"], times=5, fail="ZeroDivisionError")),
        )
        same = sum(one[2]["choices"][0]["message"]["content"] == said for one, said in zip(others, clean, strict=True))
        named = "x-request-id" in bad[1] and "secret" not in json.dumps(bad[2])
        results.append(
            Found(
                "R6",
                "an exception in one of 32 answers",
                f"that one {bad[0]} with its id, {same} of 31 others as in a clean run",
                bad[0] == 500 and same == 31 and named,
            )
        )
    for runner in runners():
        with stand(place, real(runner)) as server:
            options = {"max_tokens": 48, "temperature": 0, "seed": 1}
            good = [asked(f"Say something about the number {number}.", options=options) for number in range(15)]
            wrong = {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}},
                }
            }
            clean = await asyncio.gather(*(call(server, body=body) for body in good))
            *others, bad = await asyncio.gather(
                *(call(server, body=body) for body in good), call(server, body=asked("x", options=wrong))
            )
            same = sum(_said(a) == _said(b) for a, b in zip(others, clean, strict=True))
            results.append(
                Found(
                    "R6",
                    f"a grammar that is none among 16 answers by {runner}",
                    f"that one {bad[0]}, 15 others {Counter(one[0] for one in others)}, {same} as in a clean run",
                    bad[0] == 400 and all(one[0] == 200 for one in others),
                )
            )
    return results


def _said(found: tuple[int, dict[str, str], Any, float]) -> str:
    return str(found[2]["choices"][0]["message"]["content"])


async def too_much(place: Path, args: Any) -> list[Found]:
    """R7."""
    results = []
    with stand(place) as server:
        bad = await call(server, body=asked(fail="MemoryError"))
        after = await call(server, body=asked("fine"))
        results.append(
            Found(
                "R7",
                "MemoryError in one answer",
                f"{bad[0]}, and the next {after[0]}",
                (bad[0], after[0]) == (503, 200),
            )
        )
    large = place / "large.gguf"
    with large.open("wb") as file:
        file.truncate(2_000_000_000)
    with stand(place, says("m"), says("large") | {"source": str(large)}, memory=500_000_000) as server:
        bad, alive = await call(server, body=asked("x", model="large")), await call(server, body=asked("x"))
        figure = f"{bad[0]} {bad[2]['error']['code']}, another model {alive[0]}"
        results.append(Found("R7", "a model larger than the budget", figure, (bad[0], alive[0]) == (503, 200)))
    for runner in runners():
        with stand(place, real(runner)) as server:
            long = await call(server, body=asked("bread " * 5000))
            many = await call(server, body=asked("hi", options={"max_tokens": 100_000}))
            after = await call(server, body=asked("hi", options={"max_tokens": 4}))
            codes = [(one[0], one[2].get("error", {}).get("code")) for one in (long, many)]
            results.append(
                Found(
                    "R7",
                    f"prompt and max_tokens beyond the context, {runner}",
                    f"{codes}, then {after[0]}",
                    codes == [(400, "context_length_exceeded")] * 2 and after[0] == 200,
                )
            )
    return results


async def crash(place: Path, args: Any) -> list[Found]:
    """R8."""
    took, told, hung = [], Counter(), 0
    with stand(place) as server:
        for number in range(5):
            body = asked(say=["x"], times=500, pause=0.02)
            waiting = [asyncio.create_task(call(server, body=body)) for _ in range(8)]
            while await running(server) < 8:
                await asyncio.sleep(0.02)
            (worker,) = (one["pid"] for one in (await call(server, "GET", "/admin/ps"))[2]["data"])
            began = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            done, late = await asyncio.wait(waiting, timeout=5)
            hung += len(late)
            told.update(task.result()[0] for task in done)
            if number < 4:
                while (await call(server, body=asked("hi")))[0] != 200 and time.monotonic() < began + 30:
                    await asyncio.sleep(0.05)
                took.append(time.monotonic() - began)
        resting = await call(server, body=asked("hi"))
    return [
        Found(
            "R8",
            "kill -9 of the worker, 5 times with 8 answers each",
            f"{dict(told)}, {hung} hung",
            told == {503: 40} and not hung,
        ),
        Found("R8", "answers again after", f"{', '.join(f'{t:.1f}' for t in took)} s (10)", max(took) <= 10),
        Found(
            "R8",
            "after the fifth",
            f"{resting[0]} {resting[2]['error']['code']}, Retry-After {resting[1].get('retry-after')} s",
            resting[2]["error"]["code"] == "model_crashing",
        ),
    ]


async def protocol(place: Path, args: Any) -> list[Found]:
    """R10."""
    with stand(place) as server:
        async with connected(server) as (reader, writer):
            for byte in _bytes(asked(stream=True, say=["x", "你", '"\n'], times=20, pause=0.005)):
                writer.write(bytes([byte]))
                await writer.drain()
            await received(reader)
            said = await chunked_by_bytes(reader)
        events = said.split("\n\n")
        parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
        text = "".join(one["choices"][0]["delta"].get("content") or "" for one in parsed)
        right = events[-2] == "data: [DONE]" and said.count("[DONE]") == 1 and text == 'x你"\n' * 20
        slow = await _stalled(server)
    return [
        Found(
            "R10",
            "a client that reads and writes byte by byte",
            f"{len(parsed)} valid events, one [DONE]: {right}",
            right,
        ),
        *slow,
    ]


def _bytes(body: bytes) -> bytes:
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body


async def chunked_by_bytes(reader: asyncio.StreamReader) -> str:
    said = b""
    while not said.endswith(b"\r\n0\r\n\r\n"):
        said += await reader.readexactly(1)
    text, rest = b"", said
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        text, rest = text + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return text.decode()


async def _stalled(server: Running) -> list[Found]:
    """16 clients that read nothing of a long answer: what they cost, and when they are let go."""
    count, before, open_before = 16, rss(server.process.pid), _open_files(server)
    lines = []
    body = _bytes(asked(stream=True, say=["word " * 200], times=6000, pause=0.001))
    for _ in range(count):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().run_in_executor(None, line.connect, ("127.0.0.1", server.port))
        line.sendall(body)
        lines.append(line)
    began, most = time.monotonic(), 0
    await asyncio.sleep(2)
    while _open_files(server) > open_before and time.monotonic() < began + 90:
        await asyncio.sleep(0.25)
        most = max(most, rss(server.process.pid) - before)
    gone = time.monotonic() - began
    for line in lines:
        line.close()
    figure = f"{most / count / 2**20:.2f} MiB each in the server (1), connections dropped after {gone:.0f} s"
    return [Found("R10", f"{count} clients that take nothing of 6 MB each", figure, most / count < 2**20 and gone < 60)]


def _open_files(server: Running) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


async def determinism(place: Path, args: Any) -> list[Found]:
    """R11."""
    results = []
    for runner in runners():
        with stand(place, real(runner)) as server:
            for temperature in (0.0, 0.8):
                bodies = [
                    asked(
                        f"Tell me about the number {n}.",
                        options={"max_tokens": 32, "temperature": temperature, "seed": n},
                    )
                    for n in range(16)
                ]
                alone = [_said(await call(server, body=body)) for body in bodies]
                again = [_said(await call(server, body=body)) for body in bodies]
                batch = [_said(one) for one in await asyncio.gather(*(call(server, body=body) for body in bodies))]
                same_again = sum(a == b for a, b in zip(alone, again, strict=True))
                same = sum(a == b for a, b in zip(alone, batch, strict=True))
                results.append(
                    Found(
                        "R11",
                        f"seeds at temperature {temperature} by {runner}, alone twice and among 16",
                        f"{same_again} of 16 the same alone, {same} of 16 the same in the batch",
                        same_again == 16,
                    )
                )
    return results


async def reload(place: Path, args: Any) -> list[Found]:
    """R12."""
    broken = place / "broken"
    with stand(place, says("m", parallel=16, broken=str(broken))) as server:
        stop, statuses, answers = asyncio.Event(), Counter(), Counter()

        async def client() -> None:
            while not stop.is_set():
                status, _, said, _ = await call(server, body=asked(say=["a", "b"], times=5, pause=0.01))
                statuses[status] += 1
                answers[said["choices"][0]["message"]["content"] if status == 200 else str(said)] += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        reloaded = [(await call(server, path="/admin/reload", body=b'{"model": "m"}'))[0] for _ in range(5)]
        broken.touch()
        failed = (await call(server, path="/admin/reload", body=b'{"model": "m"}'))[0]
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.gather(*clients)
    good = set(statuses) == {200} and set(answers) == {"ab" * 5}
    return [
        Found(
            "R12",
            f"5 reloads under load ({dict(Counter(reloaded))})",
            f"requests {dict(statuses)}",
            good and set(reloaded) == {200},
        ),
        Found("R12", "a reload that fails", f"{failed}, and the old model answers on: {good}", failed == 503 and good),
    ]


CHECKS: dict[str, Callable[[Path, Any], Awaitable[list[Found]]]] = {
    "R1": drain,
    "R3": backpressure,
    "R4": leaving,
    "R5": deadline,
    "R6": faults,
    "R7": too_much,
    "R8": crash,
    "R10": protocol,
    "R11": determinism,
    "R12": reload,
}

if __name__ == "__main__":
    sys.exit(main())
