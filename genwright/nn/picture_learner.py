"""Picture learner: what every model shares that is taught with captioned pictures and paints from captions.

A kind gives the network, its loss and how it answers; this gives rows (`picture_rows.py`), styles and keeping.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genwright.core.data import Example
from genwright.core.errors import UsageError
from genwright.core.model import Encoded, Unlearnable

from .captions import Meaning, Reader, Words
from .device import choose_device, choose_dtype
from .keeping import Keeping, merged, open_kept
from .picture_rows import Pictures, collate, encode, new_styles, stacked, style_number, style_of, with_room


class PictureLearner(Keeping):
    """The shared part of a Learner. A kind says its name, `network` (config, reader's width, count of styles) and
    `slots`, what a picture costs in a pass."""

    network: Callable[[Any, int, int], Any]
    slots: Any
    gives = "image"
    goes_on = False  # it writes no text

    def __init__(self, config: Any, styles: Sequence[str] = (), *, seed: int = 0, dtype: Any = torch.float32):
        super().__init__()
        self.config, self.styles, self.dtype = config, tuple(map(str, styles)), dtype
        words = Words(config.words, config.width)
        self.reader: Reader = words if config.text_encoder == "learned" else Meaning()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = self.network(config, self.reader.width, len(self.styles)).eval()
        self._cast: tuple[Any, Any] | None = None

    @property
    def told(self) -> Any:
        """The part of the module that hears captions and styles."""
        return self.module

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

    def to_ask(self) -> Any:
        """The network with its large parts in `dtype`, cast once for these weights. int8 is for CPUs; elsewhere it is
        float32."""
        state = tuple((p.data_ptr(), p._version) for p in self.module.parameters())
        if self._cast is None or self._cast[0] != state:
            module = self.module
            if self.dtype != torch.float32 and (self.dtype != torch.int8 or self.device.type == "cpu"):
                module = copy.deepcopy(merged(module)).requires_grad_(False)
                module.in_dtype(self.dtype)
            self._cast = (state, module)
        return self._cast[1]

    def facts(self) -> dict[str, Any]:
        return {"styles": list(self.styles)}

    def options_of(self, example: Example) -> dict[str, str]:
        """The options of a request that a row names: its style, where it is one of those that were learned."""
        return style_of(example, self.styles)

    def style_number(self, name: str) -> int:
        """From 1, and 0 for any. Raises UsageError for a style that was not learned."""
        return style_number(name, self.styles)


def open_learner(kind: Any, config_kind: Any, source: Path | None, settings: Any, seed: int) -> Any:
    """A learner of a `kind` as `open_kept` has it, painting in `settings.dtype`."""
    dtype = choose_dtype(settings.dtype, choose_device("cpu"))
    return open_kept(kind, config_kind, source, settings.config, seed=seed, dtype=dtype)
