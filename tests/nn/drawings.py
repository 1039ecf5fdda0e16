"""Icons of a few shapes with captions in two languages: drawings that a tiny model learns in seconds."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from genwright.core import Example, Part, assistant, user
from genwright.nn.svg_lm import SvgLM
from genwright.nn.svg_options import SvgConfig

SHAPES = {
    "circle": ("圆", '<circle cx="12" cy="12" r="{}"/>', (5, 7, 9)),
    "square": ("方", '<rect x="4" y="4" width="{0}" height="{0}" rx="2"/>', (10, 13, 16)),
    "plus": ("加", '<path d="M12 5v{0}M5 12h{0}"/>', (8, 11, 14)),
    "arrow": ("箭", '<path d="M{} 12H19l-4-4m4 4-4 4"/>', (4, 6, 8)),
    "wave": ("波", '<path d="M2 12c3-{0} 5-{0} 8 0s5 {0} 8 0"/>', (4, 6, 8)),
}
SIZES = ("small", "middle", "large")
CONFIG: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2, "longest": 64, "text_encoder": "learned", "words": 256}


def model(seed: int = 0, **changes: Any) -> SvgLM:
    return SvgLM(SvgConfig(**{**CONFIG, **changes}), seed=seed)


def svg(body: str) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="black">{body}</svg>'


def rows(folder: Path, *, without: tuple[str, ...] = (), only: bool = False) -> list[Example]:
    """One row a shape and size; those ("circle small") left out, or `only` those."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for shape, size in product(SHAPES, SIZES):
        if (f"{shape} {size}" in without) != only:
            continue
        chinese, body, numbers = SHAPES[shape]
        path = folder / f"{shape}-{size}.svg"
        path.write_text(svg(body.format(numbers[SIZES.index(size)])), encoding="utf-8")
        meta = {"concept": f"{size} {shape}", "captions": {"en": [f"{shape}, {size}"], "zh": [f"{chinese}形"]}}
        found.append(Example((user(f"a {size} {shape}"), assistant(Part("image", path=path))), meta))
    return found
