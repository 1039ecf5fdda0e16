"""Flow: a learner that turns noise into the picture that words describe, and paints over pictures that it is given.

It is taught by the one loop: a row is a caption (or several) and a picture, a pass costs as many slots as the pictures
have patches. Everything random is drawn from torch's generator, which the loop saves, so that a killed training goes on
bit-equal, and which it sets back for every look at the held-out rows: noise, times and captions are the same each time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import ModelError, UsageError
from genwright.core.model import Encoded, Request, Unlearnable

from . import diffusion
from .answers import AT_ONCE
from .captions import Meaning, Reader, Words
from .checkpoint import write_safetensors
from .dit import Dit
from .flow_options import FlowConfig, PictureOptions
from .gathering import Gathered
from .painting import gathered, paint, paint_many
from .picture_rows import Pictures, collate, encode, new_styles, stacked, style_number, style_of, with_room
from .pixels import augmented, from_bytes, noise_of
from .weights import load_into

MEASURED = (0.2, 0.5, 0.8)  # times at which held-out pictures are denoised


class FlowImage:
    """Learner, Batched and Measurer of the floor's contracts."""

    engine, gives = "flow_image", "image"
    options = PictureOptions  # what a request may ask for
    goes_on = False  # it writes no text

    def __init__(self, config: FlowConfig, styles: Sequence[str] = (), *, seed: int = 0, dtype: Any = torch.float32):
        self.config, self.styles, self.dtype = config, tuple(styles), dtype
        words = Words(config.words, config.width)
        self.reader: Reader = words if config.text_encoder == "learned" else Meaning()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.module: Any = Dit(config, self.reader.width, len(self.styles)).eval()
        self.base_reference: dict[str, str] = {}
        self.method = ""
        self._kept: Any = None
        self._cast: tuple[Any, Any] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Sequence[Example]) -> None:
        """Learn of the styles that the training rows name; those that are known keep their place."""
        if new := new_styles(examples, self.styles):
            self.module.styles = with_room(self.module.styles, len(new))
            self.styles = (*self.styles, *new)

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """A row as `picture_rows.encode` has it; raises Unlearnable as that does. A slot is a patch."""
        style, slots = (
            self.style_number(self.options_of(example).get("style", "")),
            self.config.size // self.config.patch,
        )
        return encode(example, self.reader, size=self.config.size, slots=slots**2, style=style)

    def collate(self, items: Sequence[Encoded]) -> Pictures:
        """One caption a picture, drawn at random."""
        return collate(items)

    def loss(
        self, batch: Pictures, *, label_smoothing: float = 0.0, time_mean: float = 0.4, time_spread: float = 0.8,
        smallest_time: float = diffusion.SMALLEST, untold: float = 0.1, augment: float = 0.0,
    ) -> Tensor:  # fmt: skip
        """Velocity error summed over the pictures (a mean over each one's pixels), at random times and noise.

        In training a share `untold` is told nothing (so that there is something to guide away from) and as many no
        style; a share `augment` is changed and told how.
        """
        x, styles, device = from_bytes(batch.pixels), batch.styles, batch.pixels.device
        gone, changes = torch.zeros(2, len(x), dtype=torch.bool, device=device), None
        if self.module.training:
            gone = torch.rand(2, len(x), device=device) < untold
            styles = styles.masked_fill(gone.any(0), 0)
            if augment:
                x, changes = augmented(x, augment)
        t = diffusion.logit_normal(len(x), time_mean, time_spread, device)
        z = diffusion.mix(x, torch.randn_like(x), t)
        told = self.module.condition(batch.captions, gone[0], styles, changes)
        return diffusion.velocity_loss(self.module(z, t, told), x, t, smallest_time).sum()

    def measure(self, examples: Sequence[Example]) -> Iterator[Mapping[str, float]]:
        """Mean squared error of x-hat at the times MEASURED (pixels from -1 to 1), by the first caption, with noise
        that follows from the row. Raises UsageError for a row without picture."""
        for start in range(0, len(examples), AT_ONCE):
            some = examples[start : start + AT_ONCE]
            try:
                rows = [self.encode(example).sequences[0] for example in some]
            except Unlearnable as error:
                raise UsageError(f"A held-out row cannot be measured: {error}.", "Leave it out.") from None
            x = from_bytes(torch.from_numpy(np.stack([row["pixels"] for row in rows]))).to(self.device)
            captions = stacked([row["captions"][0] for row in rows]).to(self.device)
            styles = torch.tensor([int(row["style"]) for row in rows], device=self.device)
            noise = torch.cat([noise_of(int(one.digest()[:12], 16), self.config.size) for one in some]).to(self.device)
            with self.answering() as module:
                told = module.condition(captions, torch.zeros_like(styles, dtype=torch.bool), styles)
                errors = [
                    (module(diffusion.mix(x, noise, t), x.new_full((len(x),), t), told) - x).square().flatten(1).mean(1)
                    for t in MEASURED
                ]
            for row in torch.stack(errors, 1).tolist():
                yield {f"t={t}": error for t, error in zip(MEASURED, row, strict=True)}

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Pictures as files, step by step: see `painting.paint`."""
        return paint(self, request)

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, those that ask for the same steps painted together."""
        return paint_many(self, requests)

    def shared(self) -> Gathered:
        """For many threads that ask at once: see `gathering`."""
        return gathered(self)

    @property
    def answer_tokens(self) -> int:
        """What a picture counts as: its patches."""
        return (self.config.size // self.config.patch) ** 2

    # -- keeping -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """The network to ask, without gradients: with its blocks in `dtype`, cast once for these weights. int8 is for
        CPUs; elsewhere it is float32."""
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


def _merged(module: Any) -> Any:
    """A copy in which what an adapter has learned is in the weights."""
    module = copy.deepcopy(module)
    return module.merge_and_unload() if hasattr(module, "merge_and_unload") else module
