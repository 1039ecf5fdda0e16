"""Does the time of a refusal tell how much of a key was right? Welch's t-test over wrong keys (R35).

    python benchmarks/reliability/key_timing.py --samples 10000

Half of the wrong keys share all but their last characters with a real one, the others nothing; they come in random
order. |t| < 4.5 is no difference that could be seen, over all samples and without the slowest of them. The same is
done with a comparison that stops at the first wrong character, which the test must find. Exit 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
_BOUND = 4.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ours = asyncio.run(refusals(Path(folder), options.samples, options.seed))
    leaky = comparisons(options.samples, options.seed)
    worst = max(map(abs, told("keys.authenticate", ours)))
    found = max(map(abs, told("a leaky comparison", leaky)))
    print(f"\n|t| at most {worst:.2f} (bound {_BOUND}); the leaky one is {'' if found > _BOUND else 'NOT '}found")
    return 0 if worst < _BOUND < found else 1


async def refusals(folder: Path, samples: int, seed: int) -> dict[str, list[float]]:
    """Seconds that wrong keys took to be refused, by kind."""
    from genwright.server.errors import Wrong
    from tests.server.household import small_house

    house = small_house(folder)
    shown = [house.keys.create(f"owner {n}")[1] for n in range(5)]
    times: dict[str, list[float]] = {"near": [], "random": []}
    for kind, wrong in wrong_keys(shown[0], samples, seed):
        house.keys._wrong.clear()  # an address with many wrong tries would have to wait
        began = time.perf_counter()
        try:
            await house.keys.authenticate(wrong)
        except Wrong:
            times[kind].append(time.perf_counter() - began)
    house.store.close()
    return times


def comparisons(samples: int, seed: int) -> dict[str, list[float]]:
    """The same for what a careless server does: compare character by character."""
    real = "gw-" + secrets.token_urlsafe(32)
    times: dict[str, list[float]] = {"near": [], "random": []}
    for kind, wrong in wrong_keys(real, samples, seed):
        began = time.perf_counter()
        all(a == b for a, b in zip(real, wrong, strict=True))
        times[kind].append(time.perf_counter() - began)
    return times


def wrong_keys(real: str, samples: int, seed: int) -> Any:
    """(kind, key) in random order; all are of the same length and made in the same way."""
    kinds = ["near", "random"] * samples
    random.Random(seed).shuffle(kinds)
    for kind in kinds:
        other = "gw-" + secrets.token_urlsafe(32)
        kept = len(real) - 6 if kind == "near" else 3
        yield kind, real[:kept] + other[kept:]


def told(name: str, times: dict[str, list[float]]) -> list[float]:
    """t over all samples, and over those below the 95th and the 80th percentile."""
    together = sorted(times["near"] + times["random"])
    found = []
    for share in (1.0, 0.95, 0.8):
        most = together[int(len(together) * share) - 1]
        near, rest = ([t for t in times[kind] if t <= most] for kind in ("near", "random"))
        found.append(welch(near, rest))
    middle = statistics.median(together) * 1e6
    print(f"{name}: median {middle:.1f} µs; t = {found[0]:.2f} (all), {found[1]:.2f} (95 %), {found[2]:.2f} (80 %)")
    return found


def welch(a: list[float], b: list[float]) -> float:
    spread = statistics.variance(a) / len(a) + statistics.variance(b) / len(b)
    return float((statistics.mean(a) - statistics.mean(b)) / spread**0.5)


if __name__ == "__main__":
    sys.exit(main())
