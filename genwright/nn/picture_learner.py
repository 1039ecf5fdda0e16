"""Picture learner: what every model shares that is taught with captioned pictures and paints from captions.

A kind gives the network, its loss and how it answers; this gives rows (`picture_rows.py`), styles and keeping.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genwright.core.data import Example
from genwright.core.errors import ModelError, UsageError
from genwright.core.model import Encoded, Unlearnable

from .captions import Meaning, Reader, Words
from .checkpoint import write_safetensors
from .device import choose_device, choose_dtype
from .picture_rows import Pictures, collate, encode, new_styles, stacked, style_number, style_of, with_room
from .weights import check_model_folder, load_into


class PictureLearner:
    """The shared part of a Learner. A kind says its name and its `network`."""

    engine, gives = "", "image"
    goes_on = False  # it writes no text

    def __init__(self, config: Any, styles: Sequence[str] = (), *, seed: int = 0, dtype: Any = torch.float32):
        self.config, self.styles, self.dtype = config, tuple(styles), dtype
        words = Words(config.words, config.width)
        self.reader: Reader = words if config.text_encoder == "learned" else Meaning()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = self.network(self.reader.width, len(self.styles)).eval()
        self.base_reference: dict[str, str] = {}
        self.method = ""
        self._kept: Any = None
        self._cast: tuple[Any, Any] | None = None

    def network(self, reader_width: int, styles: int) -> Any:
        """The module, with random weights."""
        raise NotImplementedError

    @property
    def told(self) -> Any:
        """The part of the module that hears captions and styles."""
        return self.module

    @property
    def slots(self) -> int:
        """What a picture costs in a pass."""
        raise NotImplementedError

    @property
    def answer_tokens(self) -> int:
        """What a picture counts as where answers are counted in tokens."""
        return self.slots

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Sequence[Example]) -> None:
        """Learn of the styles that the training rows name; those that are known keep their place."""
        if new := new_styles(examples, self.styles):
            self.told.styles = with_room(self.told.styles, len(new))
            self.styles = (*self.styles, *new)

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """A row as `picture_rows.encode` has it; raises Unlearnable as that does."""
        style = self.style_number(self.options_of(example).get("style", ""))
        return encode(example, self.reader, size=self.config.size, slots=self.slots, style=style)

    def collate(self, items: Sequence[Encoded]) -> Pictures:
        """One caption a picture, drawn at random."""
        return collate(items)

    def fixed(self, examples: Sequence[Example]) -> Pictures:
        """Rows to be measured, each with its first caption. Raises UsageError for a row without picture."""
        try:
            rows = [self.encode(example).sequences[0] for example in examples]
        except Unlearnable as error:
            raise UsageError(f"A held-out row cannot be measured: {error}.", "Leave it out.") from None
        pixels, styles = np.stack([row["pixels"] for row in rows]), [int(row["style"]) for row in rows]
        captions = stacked([row["captions"][0] for row in rows])
        return Pictures(torch.from_numpy(pixels), captions, torch.tensor(styles)).to(self.device)

    # -- keeping -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """The network to ask, without gradients: with its large parts in `dtype`, cast once for these weights. int8 is
        for CPUs; elsewhere it is float32."""
        learning = self.module.training
        self.module.eval()
        state = tuple((p.data_ptr(), p._version) for p in self.module.parameters())
        if self._cast is None or self._cast[0] != state:
            module = self.module
            if self.dtype != torch.float32 and (self.dtype != torch.int8 or self.device.type == "cpu"):
                module = _merged(module).requires_grad_(False)
                module.in_dtype(self.dtype)
            self._cast = (state, module)
        try:
            with torch.no_grad():
                yield self._cast[1]
        finally:
            self.module.train(learning)

    def keep_base(self) -> None:
        """Keep a frozen copy of the network as it is now, for `untuned`; the first copy stays."""
        self._kept = self._kept or copy.deepcopy(self.module).requires_grad_(False).eval()

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Within it the network is as `keep_base` found it. Raises ModelError when there is no copy."""
        if self._kept is None:
            raise ModelError("There is no copy of the model before tuning.", "Call keep_base() before the first step.")
        tuned, self.module = self.module, self._kept.to(self.device)
        try:
            yield
        finally:
            self.module = tuned

    def save(self, folder: Path) -> None:
        """Weights in float32, config.json (shape and styles) and genwright.json, into an existing or new folder. What
        an adapter has learned is in the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", _merged(self.module).state_dict())
        facts = {"model_type": self.engine, **self.config.model_dump(mode="json"), "styles": list(self.styles)}
        (folder / "config.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        facts = {"engine": self.engine, "method": self.method, "base": self.base_reference}
        (folder / "genwright.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights of a saved folder. Raises ModelError when they do not belong to this shape."""
        load_into(self.module, folder / "model.safetensors")

    def options_of(self, example: Example) -> dict[str, str]:
        """The options of a request that a row names: its style, where it is one of those that were learned."""
        return style_of(example, self.styles)

    def style_number(self, name: str) -> int:
        """From 1, and 0 for any. Raises UsageError for a style that was not learned."""
        return style_number(name, self.styles)


def open_learner(kind: Any, config_kind: Any, source: Path | None, settings: Any, seed: int) -> Any:
    """A learner of a `kind` from the folder of a finished run, or with random weights by `settings.config`, painting
    in `settings.dtype`.

    Raises UsageError when both or neither are given, ModelError for a folder that is none of ours or is broken.
    """
    dtype = choose_dtype(settings.dtype, choose_device("cpu"))
    if source is None:
        if settings.config is None:
            raise UsageError("A picture model needs a source, or a config.", "E.g. config: {size: 64, width: 256}.")
        return kind(settings.config, seed=seed, dtype=dtype)
    if settings.config is not None:
        raise UsageError("A model has either a source or a config for random weights, not both.", "Leave one out.")
    config, styles = _shape_of(kind.engine, config_kind, check_model_folder(source), source)
    model = kind(config, styles, seed=seed, dtype=dtype)
    model.load(source)
    return model


def _shape_of(engine: str, config_kind: Any, facts: dict[str, Any], folder: Path) -> tuple[Any, list[str]]:
    from pydantic import ValidationError

    kept = {name: value for name, value in facts.items() if name not in ("model_type", "styles")}
    styles = facts.get("styles")
    try:
        if facts.get("model_type") != engine or not isinstance(styles, list):
            raise ValueError("it is of another kind of model")
        return config_kind.model_validate(kept), [str(style) for style in styles]
    except (ValueError, ValidationError) as error:
        raise ModelError(
            f"{folder / 'config.json'} describes no picture model of ours: {' '.join(str(error).split())[:200]}",
            f"Name a run of the engine {engine}.",
        ) from None


def _merged(module: Any) -> Any:
    """A copy in which what an adapter has learned is in the weights."""
    module = copy.deepcopy(module)
    return module.merge_and_unload() if hasattr(module, "merge_and_unload") else module
