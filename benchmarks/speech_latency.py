"""How soon a stream of speech begins: from the request to the first sound, through the real server and OpenAI's client.

    python benchmarks/speech_latency.py --rounds 10
    python benchmarks/speech_latency.py --model kokoro-82m --rounds 5

A server of its own, the model in memory, one request at a time. The first bytes of a WAV stream are its head: what
counts is the first byte after it. The CPU seconds are those of the server and its worker until then.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import openai

TEXTS = {
    "short": "Hello there, how are you today? I am fine.",
    "long": "When the rain had stopped at last, everybody who had been waiting in the house went out into the garden "
    "to see what was left of the roses, the beans and the old apple tree. Not much was.",
    "numbers": "On March 15, 2024 at 3:30 pm it cost $12.50, which was 25% less than in 2023. So they bought it.",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hibari")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "genwright", "serve", args.model, "--port", "0", "--data", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
            try:
                client = openai.OpenAI(base_url=address(server), api_key="none", max_retries=0, timeout=300)
                measure(client, args.model, args.rounds, server.pid)
            finally:
                server.terminate()


def address(server: subprocess.Popen[str]) -> str:
    assert server.stdout
    for line in server.stdout:
        if found := re.search(r"http://[\d.]+:\d+/v1", line):
            return found[0]
    raise SystemExit("The server did not start.")


def measure(client: openai.OpenAI, model: str, rounds: int, pid: int) -> None:
    list(first_sound(client, model, "Good morning."))  # the model is loaded
    print(f"{model}, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {rounds} rounds")
    for name, text in TEXTS.items():
        walls, works = [], []
        for _ in range(rounds):
            before = cpu_seconds(pid)
            for wall in first_sound(client, model, text):
                walls.append(1000 * wall)
                works.append(1000 * (cpu_seconds(pid) - before))
        span = f"from {min(walls):.0f} to {max(walls):.0f}"
        print(f"  {name:8} first sound after {statistics.median(walls):.0f} ms ({span}); "
              f"CPU {statistics.median(works):.0f} ms")  # fmt: skip


def first_sound(client: openai.OpenAI, model: str, text: str) -> Iterator[float]:
    """Yields once, at the first sound, the seconds since the request; reads on to the end."""
    began, heard, size = time.perf_counter(), 0.0, 0
    with client.audio.speech.with_streaming_response.create(
        model=model, voice="alloy", input=text, response_format="wav", extra_body={"stream_format": "audio"}
    ) as answer:
        for piece in answer.iter_bytes():
            size += len(piece)
            if size > 44 and not heard:
                heard = time.perf_counter() - began
                yield heard


def cpu_seconds(pid: int) -> float:
    """Of a process and its children (Linux)."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for one in [pid, *children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


if __name__ == "__main__":
    main()
