"""A whole server on a real port around a tiny picture model with random weights, and a model of words elsewhere.

with studio_in(folder) as studio:
    client(studio.address, api_key=studio.keys["ann"]).images.generate(model="painter", prompt="a red hat")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from genwright.core import Recipe, Run
from genwright.server.app import create_app
from genwright.server.desk import Desk
from genwright.server.fleet import Fleet
from genwright.server.house import House
from genwright.server.meters import Meters

from .household import at_home, small_house
from .parlour import Script, upstream

SIDE = 16
CONFIG: dict[str, Any] = {"size": SIDE, "patch": 8, "width": 32, "depth": 1, "heads": 2, "text_encoder": "learned",
                          "words": 256, "text_tokens": 2, "head_channels": 2}  # fmt: skip
STEPS = 2
FORBIDDEN = "gun"


@dataclass
class Studio:
    address: str
    house: House
    keys: dict[str, str]


def painter(folder: Path, **config: Any) -> Path:
    """A run of the engine flow_image with random weights and two styles, whose guard knows one word."""
    import torch

    from genwright.nn.flow import FlowImage
    from genwright.nn.flow_options import FlowConfig

    recipe = Recipe.from_dict({
        "name": "painter", "data": {"source": "image_folder", "path": str(folder)},
        "task": {"name": "text_to_image", "options": {"steps": STEPS}}, "method": "full",
        "model": {"config": CONFIG | config, "dtype": "float32"},
        "guards": [{"name": "keywords", "words": [FORBIDDEN]}], "marks": ["metadata"],
    })  # fmt: skip
    run = Run.create(recipe, folder)
    model = FlowImage(FlowConfig(**CONFIG | config), ("flat", "round"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.module.parameters():  # those that begin at zero too: what it paints hangs on all it is told
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.2)
    model.save(run.model)
    return run.folder


@contextmanager
def studio_in(place: Path, **options: Any) -> Iterator[Studio]:
    """Models "painter" and "words"; keys of ann and bob, who are users, and of ops, an administrator."""
    home = mock.patch.dict(os.environ, {"GENWRIGHT_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"})
    with home, at_home(upstream(Script())) as far:
        models = [
            {"name": "words", "base_url": far, "engine": {"retries": 0}},
            {"name": "painter", "source": str(painter(place / "run")), "engine": {"dtype": "float32"}},
        ]
        house = small_house(place, meters=Meters(), **{"models": models, "memory": 10**10} | options)
        house.fleet = Fleet(house.options, house.store)
        house.desk = Desk(house.options, house.fleet, house.keys, house.limits, house.meters)
        roles = {"ann": ("user",), "bob": ("user",), "ops": ("user", "admin")}
        keys = {name: house.keys.create(name, roles=role)[1] for name, role in roles.items()}
        with at_home(create_app(house)) as address:
            yield Studio(address, house, keys)
