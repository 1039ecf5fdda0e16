"""Coloured shapes with captions in two languages and two styles: pictures that a tiny model learns in seconds."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genwright.core import Example, Part, assistant, user
from genwright.nn.flow import FlowImage
from genwright.nn.flow_options import FlowConfig

COLOURS = {"red": ("红", (220, 30, 30)), "green": ("绿", (20, 160, 60)), "blue": ("蓝", (30, 60, 210)),
           "black": ("黑", (10, 10, 10)), "orange": ("橙", (250, 150, 20))}  # fmt: skip
SHAPES = {"circle": "圆", "square": "方", "bar": "条", "cross": "叉"}
STYLES = ("filled", "hollow")
SIZE = 16
CONFIG: dict[str, Any] = {"size": SIZE, "patch": 4, "width": 32, "depth": 2, "heads": 2, "text_encoder": "learned",
                          "words": 256, "text_tokens": 2, "head_channels": 4}  # fmt: skip


def model(seed: int = 0, **changes: Any) -> FlowImage:
    return FlowImage(FlowConfig(**{**CONFIG, **changes}), seed=seed)


def drawn(colour: str, shape: str, style: str) -> np.ndarray:
    """(16, 16, 3) uint8: the shape in the middle of white."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    far = {"circle": np.hypot(x, y), "square": np.maximum(abs(x), abs(y)), "bar": np.maximum(abs(x), 3 * abs(y)),
           "cross": np.minimum(np.maximum(abs(x), 3 * abs(y)), np.maximum(abs(y), 3 * abs(x)))}[shape]  # fmt: skip
    there = far < 6 if style == "filled" else (far < 6) & (far > 3.4)
    return np.where(there[..., None], np.array(COLOURS[colour][1]), 255).astype(np.uint8)


def rows(folder: Path, *, without: tuple[tuple[str, str], ...] = (), only: bool = False) -> list[Example]:
    """One row a colour, shape and style; those (colour, shape) left out, or `only` those."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for colour, shape, style in product(COLOURS, SHAPES, STYLES):
        if ((colour, shape) in without) != only:
            continue
        path = folder / f"{colour}-{shape}-{style}.png"
        if not path.exists():
            Image.fromarray(drawn(colour, shape, style)).save(path)
        captions = {"en": [f"{shape} in {colour}"], "zh": [f"{COLOURS[colour][0]}色的{SHAPES[shape]}"]}
        meta = {"style": style, "concept": f"{colour} {shape}", "captions": captions}
        found.append(Example((user(f"a {colour} {shape}"), assistant(Part("image", path=path))), meta))
    return found
