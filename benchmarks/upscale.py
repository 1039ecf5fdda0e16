"""Pictures made four times as large: networks against Lanczos, on emoji whose true drawing at 256 pixels is known.

    python benchmarks/upscale.py --each 8

Each emoji is drawn from its SVG at 64 and at 256 pixels; the small one is enlarged and compared with the large one.
PSNR is over all pixels on white; the edge error is the mean difference of gradients' lengths, 0 to 1, smaller is
better. A sheet to look at is written: truth, Lanczos, then the networks.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genwright.core import Bad, choose, find_card
from genwright.media.enlarge import CARDS, corrected, enlarged, network_of
from genwright.media.picture import contact_sheet, open_picture, rgb
from genwright.verbs.models import pull

SETS = ("emoji-noto", "emoji-twemoji", "emoji-fluent-flat")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=8, help="emoji of each set")
    parser.add_argument("--sheet", type=Path, default=Path("upscale.png"))
    asked = parser.parse_args()
    for card in (*SETS, *CARDS.values()):
        pull(card)
    networks = {kind: network_of(kind) for kind in CARDS}
    scores: dict[str, list[tuple[float, float, float]]] = {}
    shown = []
    for name in SETS:
        small, large = (_drawn(name, size, asked.each) for size in (64, 256))
        for one, truth in zip(small, large, strict=True):
            shown.append(truth)
            for way, (made, seconds) in _ways(one, networks):
                scores.setdefault(way, []).append((*_compared(made, truth), seconds))
                shown.append(made)
    for way, rows in scores.items():
        psnr, edges, seconds = np.array(rows).mean(0)
        better = np.mean([row[1] < lanczos[1] for row, lanczos in zip(rows, scores["Lanczos"], strict=True)])
        print(f"{way:<18} PSNR {psnr:.2f} dB  edge error {edges:.4f} (better on {better:.0%})  {seconds:.2f} s CPU")
    columns = 1 + len(scores)
    contact_sheet(shown, [""] * len(shown), asked.sheet, side=256, columns=columns)
    print(f"{len(shown) // columns} emoji; look at {asked.sheet}")


def _ways(small: Any, networks: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, float]]]:
    """Each way's picture and CPU seconds; a network's as it comes, then with the small one's colours."""
    yield "Lanczos", (small.resize((256, 256), Image.Resampling.LANCZOS), 0.0)
    for kind, network in networks.items():
        began = time.process_time()
        bare = enlarged(small, network, colours=False)
        seconds = time.process_time() - began
        yield f"{kind}, as it comes", (bare, seconds)
        pixels, given = (np.asarray(one, np.float32) / 255 for one in (bare, small))
        made = np.clip(corrected(pixels, given), 0, 1) * 255
        yield kind, (Image.fromarray(made.round().astype(np.uint8)), seconds)


def _drawn(card: str, size: int, count: int) -> list[Any]:
    """The same emoji of the set, drawn at this size, on white."""
    found = find_card(card)
    read = choose("sources", {**found.read, "path": str(found.folder), "size": size}, key="source")
    rows = itertools.islice((row for row in read() if not isinstance(row, Bad)), 0, 40 * count, 40)
    return [rgb(open_picture(row.fields["image"])) for row in rows]


def _compared(made: Any, truth: Any) -> tuple[float, float]:
    one, other = (np.asarray(picture, np.float64) / 255 for picture in (made, truth))
    edges = [np.hypot(*np.gradient(pixels.mean(2))) for pixels in (one, other)]
    return float(-10 * np.log10(((one - other) ** 2).mean() + 1e-12)), float(np.abs(edges[0] - edges[1]).mean())


if __name__ == "__main__":
    main()
