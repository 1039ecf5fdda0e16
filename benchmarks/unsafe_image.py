"""How often the guard unsafe_image stops a harmless picture, and how long a look takes.

    python benchmarks/unsafe_image.py --each 60

Pictures are emoji of seven sets (their cards are fetched if need be), drawn at random, 128 pixels a side. How much the
guard finds of what it is there for is NOT measured: there is no lawful set of such pictures to measure it on.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import Counter

from genwright.core import Bad, choose
from genwright.trust.guards.unsafe_image import Settings, likelihoods
from genwright.verbs.models import pull

SETS = ("twemoji", "noto", "noto-v1", "fluent-flat", "fluent", "emojione", "fxemoji")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=60, help="pictures of each set")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, scores, times = random.Random(asked.seed), [], []
    pull("opennsfw")
    for name in SETS:
        for row in chance.sample(_rows(f"emoji-{name}"), asked.each):
            begun = time.process_time()
            (score,) = likelihoods([row.fields["image"]])
            times.append(time.process_time() - begun)
            scores.append((score, name, row.fields["meta"]["concept"]))
    limit = Settings().threshold
    count = Counter(score >= limit for score, *_ in scores)[True]
    low, high = wilson(count, len(scores))
    print(
        f"false alarms at {limit}: {count} of {len(scores)}, {count / len(scores):.2%} (95 % {low:.2%} to {high:.2%})"
    )
    for other in (0.2, 0.5):
        print(f"  at {other}: {sum(score >= other for score, *_ in scores)}")
    print("highest:", "; ".join(f"{score:.3f} {what} ({name})" for score, name, what in sorted(scores)[:-6:-1]))
    print("recall: not measured")
    p50, p95 = (1e3 * sorted(times)[int(len(times) * share)] for share in (0.5, 0.95))
    print(f"a look (CPU): p50 {p50:.0f} ms, p95 {p95:.0f} ms")


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share k of n (Wilson 1927)."""
    share = k / n
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _rows(card: str) -> list:
    read = choose("sources", {"source": "card", "card": card}, key="source")
    return [row for row in read(fetch=lambda one: pull(one)) if not isinstance(row, Bad)]


if __name__ == "__main__":
    main()
