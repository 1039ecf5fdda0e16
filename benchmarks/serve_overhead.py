"""What the server adds to a model: milliseconds a request, and processor time and delay a streamed token.

    python benchmarks/serve_overhead.py [--streams 8] [--rate 60]

The model is one that answers at once (a request), or says a word every so many milliseconds and stamps it with the
time (a token). Each runs in the server's worker as any model does, with its row in the ledger. Processor time is that
of the server's own processes, by /proc; what a model or the client takes is not in it, and is shown beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.server.crew import running_server, says, with_engine

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=8, help="answers at once")
    parser.add_argument("--rate", type=float, default=60, help="tokens a second of each")
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--folder", help="where the ledger and the database lie, e.g. /dev/shm to leave the disk out")
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, with_engine(Path(folder)):
        direct(args.requests)
        entry = says("m", parallel=64)
        with running_server(Path(folder), {"models": [entry], "embedder": "", "queue": 64}) as server:
            asyncio.run(requests(server, args.requests))
            asyncio.run(tokens(server, args.streams, args.rate, args.seconds))


def direct(count: int) -> None:
    """The model asked in this process, without a server: what a request takes before we add to it."""
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    from genwright.verbs.ask import open_answerer

    answerer = open_answerer("m", engine={"engine": "says"})
    took = []
    for _ in range(count):
        began = time.perf_counter()
        for _ in answerer.ask('{"say": ["a"]}'):
            pass
        took.append(time.perf_counter() - began)
    report("request, in this process (guards' hall and ledger)", took)


async def requests(server: Any, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": '{"say": ["a"]}'}]})
    took = []
    for number in range(count + 100):
        began = time.perf_counter()
        writer.write(f"{HEAD}{len(body)}\r\n\r\n{body}".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        if number >= 100:
            took.append(time.perf_counter() - began)
        if number == 99:
            before = server.cpu()
    after = server.cpu()
    report("request, over HTTP", took)
    for name in after:
        print(f"    processor time of the {name}: {(after[name] - before[name]) / count * 1e6:.0f} µs a request")
    writer.close()


async def tokens(server: Any, streams: int, rate: float, seconds: float) -> None:
    delays: list[float] = []
    events = 0
    times = int(rate * seconds)
    told = json.dumps({"stamp": True, "times": times, "pause": 1 / rate, "say": ["x"]})
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": told}]})

    async def one() -> None:
        nonlocal events
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{HEAD}{len(body)}\r\n\r\n{body}".encode())
        async for line in reader:
            if line.startswith(b"data: {"):
                now = time.monotonic()
                events += 1
                text = json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                delays.extend(now - float(stamp) for stamp in text.split())
            elif line.startswith(b"data: [DONE]"):
                break
        writer.close()

    await asyncio.gather(*(one() for _ in range(streams)))  # warm
    delays.clear()
    events, before, own, began = 0, server.cpu(), time.process_time(), time.monotonic()
    await asyncio.gather(*(one() for _ in range(streams)))
    after, own, took = server.cpu(), time.process_time() - own, time.monotonic() - began
    count = len(delays)
    print(
        f"{streams} streams, {rate:.0f} tokens a second each: {count} tokens in {events} events, {count / took:.0f}/s"
    )
    report("token, from the model's mouth to the client's hand", delays)
    for name in after:
        print(f"    processor time of the {name}: {(after[name] - before[name]) / count * 1e6:.1f} µs a token")
    print(f"    processor time of this client: {own / count * 1e6:.1f} µs a token")


def report(what: str, took: list[float]) -> None:
    took = sorted(took)
    p50, p99 = statistics.median(took), took[int(len(took) * 0.99)]
    print(f"{what}: p50 {p50 * 1e6:,.0f} µs, p99 {p99 * 1e6:,.0f} µs ({len(took)})")


if __name__ == "__main__":
    main()
