"""Picture metrics on true pictures that are spoilt more and more: do they see it, and how sure are they?

    genwright prepare recipes/image/emoji.yaml --out runs/emoji
    python benchmarks/picture_metrics.py runs/emoji

Half of the held-out concepts, as they are and spoilt, are judged against the other half. Then the floor: how often
the interval holds the known answer, zero, for two random sets of true pictures. About two CPU-minutes at the first
time; features are kept in the store.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genwright.core import Dataset, Example
from genwright.judging.intervals import jackknife
from genwright.judging.metrics.fid import frechet
from genwright.judging.metrics.picture_retrieval import ranks_of
from genwright.judging.metrics.precision_recall import compared
from genwright.judging.mmd import SCALE, gaussian, mmd, polynomial
from genwright.judging.pictures import caption_of, distances, picture_of, pictures_of, retrieved
from genwright.media.picture import as_array, save_picture
from genwright.nn.minilm import MiniLM
from genwright.nn.picture_features import Probe, features, signature

SIDE = 64
RANDOM = np.random.default_rng(0)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run whose data is prepared")
    parser.add_argument("--rows", type=int, default=240, help="most pictures that are spoilt")
    parser.add_argument(
        "--probe", type=int, default=2000, help="training pictures that the retrieval probe is fitted on"
    )
    args = parser.parse_args()
    began = time.process_time()
    train, held_out = (list(Dataset.open(args.run / "data" / f"{name}.jsonl")) for name in ("train", "held_out"))
    random.Random(0).shuffle(train)
    known = features(pictures_of(train[: args.probe]), SIDE)
    first, second = _halves(held_out)
    first = first[: args.rows]
    reference = features(pictures_of(second), SIDE)
    width = float(np.median(distances(reference, reference)[np.triu_indices(len(reference), 1)]))
    find = _finder(train[: args.probe], known, held_out)
    true = find(features(pictures_of(first), SIDE), first)
    print(f"{signature(SIDE)}; {len(first)} pictures against {len(reference)} of other concepts\n")
    columns = ("pictures", "KID × 1000", "Gaussian MMD × 1000", "precision", "recall", "F1", "coverage", "Fréchet",
               "R@1", "R@5", "R@10", "R@5 ratio")  # fmt: skip
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as place:
        for name, paths in _ladder(first, train, Path(place)):
            seen = features(paths, SIDE)
            value, without = mmd(seen, reference, polynomial)
            low, high = jackknife(value, *without)
            near, likeness = mmd(seen, reference, gaussian(width))[0], compared(seen, reference, 3)
            found = find(seen, first)
            figures = [likeness[one] for one in ("precision", "recall", "f1", "coverage")]
            ends = f"({SCALE * (low or 0):.1f} … {SCALE * (high or 0):.1f})"
            print(
                f"| {name} | {SCALE * value:.1f} {ends} | {SCALE * near:.1f} | "
                + " | ".join(f"{one:.2f}" for one in figures)
                + f" | {frechet(seen, reference):.0f} | "
                + " | ".join(f"{found[k]:.2f}" for k in (1, 5, 10))
                + f" | {found[5] / true[5]:.2f} |",
                flush=True,
            )
    _styles(train[: args.probe], known)
    _floor(np.concatenate([known, features(pictures_of(held_out), SIDE)]))
    print(f"\n{time.process_time() - began:.0f} CPU-seconds")


def _halves(held_out: list[Example]) -> tuple[list[Example], list[Example]]:
    """The rows of one half of the concepts, and of the other."""
    concepts = sorted({str(row.meta["concept"]) for row in held_out})
    random.Random(0).shuffle(concepts)
    one = set(concepts[: len(concepts) // 2])
    rows = list(held_out)
    random.Random(1).shuffle(rows)
    return [r for r in rows if r.meta["concept"] in one], [r for r in rows if r.meta["concept"] not in one]


def _ladder(rows: list[Example], train: list[Example], place: Path) -> Any:
    yield "true", pictures_of(rows)
    yield "retrieved from training by words", retrieved(rows, train)
    for name, spoil in SPOILT.items():
        yield (
            name,
            [
                save_picture(spoil(as_array(path, SIDE)), place / name.replace(" ", "_") / f"{number}.png")
                for number, path in enumerate(pictures_of(rows))
            ],
        )


def _blur(times: int) -> Callable[[np.ndarray], np.ndarray]:
    def blur(pixels: np.ndarray) -> np.ndarray:
        image = Image.fromarray(pixels)
        small = image.resize((SIDE // times, SIDE // times), Image.Resampling.BOX)
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BILINEAR))

    return blur


def _noise(spread: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda pixels: np.clip(pixels + RANDOM.normal(0, spread, pixels.shape), 0, 255).astype(np.uint8)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels.mean(-1, keepdims=True), 3, -1).astype(np.uint8)


def _shuffled(pixels: np.ndarray) -> np.ndarray:
    """Its sixteen squares in another order."""
    step = SIDE // 4
    squares = pixels.reshape(4, step, 4, step, 3).swapaxes(1, 2).reshape(16, step, step, 3)
    mixed = squares[RANDOM.permutation(16)].reshape(4, 4, step, step, 3)
    return mixed.swapaxes(1, 2).reshape(SIDE, SIDE, 3)


SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur 2": _blur(2), "blur 4": _blur(4), "noise 2": _noise(2), "noise 8": _noise(8), "noise 25": _noise(25),
    "grey": _grey, "16 squares shuffled": _shuffled,
    "white noise": lambda pixels: RANDOM.integers(0, 256, pixels.shape).astype(np.uint8),
}  # fmt: skip


def _finder(rows: list[Example], known: np.ndarray, held_out: list[Example]) -> Any:
    """Features and their rows -> {k: share found}, among the captions of all held-out rows."""
    encode = MiniLM()
    words = [caption_of(row, "en") for row in rows if picture_of(row.answer)]
    texts = sorted(set(words))
    vectors = dict(zip(texts, encode(texts).astype(np.float64), strict=True))
    probe = Probe(known, np.stack([vectors[text] for text in words]), 1.0)
    captions = sorted({caption_of(row, "en") for row in held_out})
    print(f"{len(captions)} captions of held-out rows; chance R@1 {1 / len(captions):.3f}")
    meanings = encode(captions)

    def find(seen: np.ndarray, asked: list[Example]) -> dict[int, float]:
        wanted = np.array([captions.index(caption_of(row, "en")) for row in asked])
        ranks = ranks_of(probe(seen), meanings, wanted)
        return {k: float((ranks < k).mean()) for k in (1, 5, 10)}

    return find


def _styles(rows: list[Example], known: np.ndarray) -> None:
    """Each other style against the first: pictures of the same things, drawn by others."""
    styles = np.array([str(row.meta.get("style")) for row in rows])
    first = known[styles == "twemoji"]
    print("\n| other style against twemoji | KID × 1000 |\n|---|---|")
    print(f"| twemoji, halves | {SCALE * mmd(first[::2], first[1::2], polynomial)[0]:.1f} |")
    for style in sorted(set(styles) - {"twemoji"}):
        print(f"| {style} | {SCALE * mmd(known[styles == style], first, polynomial)[0]:.1f} |")


def _floor(known: np.ndarray, draws: int = 200) -> None:
    """Two random sets of the same pictures: KID is 0; what it says, and how often its interval holds 0."""
    print(f"\n| made | reference | KID × 1000, middle 95 % of {draws} | intervals that hold 0 | Fréchet, mean of 5 |")
    print("|---|---|---|---|---|")
    for made, others in ((64, 600), (200, 600), (600, 600)):
        values, held = [], 0
        for _ in range(draws):
            rows = RANDOM.permutation(len(known))[: made + others]
            value, without = mmd(known[rows[:made]], known[rows[made:]], polynomial)
            low, high = jackknife(value, *without)
            values.append(SCALE * value)
            held += (low or 0) <= 0 <= (high or 0)
        bias = []
        for _ in range(5):
            rows = RANDOM.permutation(len(known))[: made + others]
            bias.append(frechet(known[rows[:made]], known[rows[made:]]))
        low, high = np.percentile(values, [2.5, 97.5])
        print(f"| {made} | {others} | {low:.1f} … {high:.1f} | {held / draws:.0%} | {np.mean(bias):.0f} |")


if __name__ == "__main__":
    main()
