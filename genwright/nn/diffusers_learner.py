"""A diffusers pipeline as a learner: its network, or the embeddings of new words, taught by the one loop.

A row is a picture with its captions. The frozen autoencoder reads each picture once, so what is kept on disk are the
mean and spread of its latents; frozen text encoders read each caption once. Everything random comes from torch's own
generator, which the loop saves: a killed training goes on bit-equal.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genwright.core.content import Part
from genwright.core.data import Example
from genwright.core.errors import ModelError, UsageError
from genwright.core.model import Encoded, Request, Unlearnable

from .diffusers_families import Told, ask, check_family, noised, tell
from .diffusers_painting import PipelineOptions, paint
from .diffusers_words import NewWords, new_words
from .picture_rows import captioned
from .pixels import from_bytes

MEASURED = (0.2, 0.5, 0.8)  # times at which held-out pictures are denoised
_REMEMBERED = 256 << 20  # bytes of captions that were read


@dataclass(frozen=True)
class Latents:
    """A batch: `mean` and `spread` (B, c, h, w) of each picture's latents, and one caption each."""

    mean: Tensor
    spread: Tensor
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)

    def to(self, device: torch.device | str) -> Latents:
        return Latents(self.mean.to(device), self.spread.to(device), self.captions)


class DiffusersPipeline:
    """Learner and Measurer of the floor's contracts. `module` is what is taught, at first the whole network."""

    engine, gives = "diffusers", "image"
    options = PipelineOptions  # what a request may ask for
    goes_on = False  # it writes no text

    def __init__(self, pipeline: Any, *, size: int | None = None):
        self.pipeline, self._place = pipeline, torch.device("cpu")
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False).eval()
        self.part = next((part for part in ("unet", "transformer") if getattr(pipeline, part, None) is not None), "")
        if not self.part:
            raise ModelError(f"A {type(pipeline).__name__} has no network known here.", "Use another pipeline.")
        self.module: Any = getattr(pipeline, self.part)
        side: Any = getattr(self.module.config, "sample_size", None) or getattr(pipeline, "default_sample_size", 64)
        self.size = size or int(np.max(side)) * getattr(pipeline, "vae_scale_factor", 1)
        self.base_reference: dict[str, str] = {}
        self.method = ""
        self._kept: Any = None
        self._read: dict[str, Told] = {}

    @property
    def net(self) -> Any:
        """The network that tells the noise, with its adapters if it has any."""
        return getattr(self.pipeline, self.part)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def _together(self) -> Any:
        """The pipeline, all of it where the taught part lies; asked for every row, so moved only when it must be."""
        if self._place != self.device:
            self.pipeline.to(self.device)
            self._place = self.device
        return self.pipeline

    # -- learning ----------------------------------------------------------------------------------------------------

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """Mean and spread of the latents (c, h, w), and all captions of the row. A slot is four latents.

        Raises Unlearnable as `picture_rows.captioned` does, UsageError for a pipeline that is not taught here.
        """
        check_family(self.pipeline, self.net)
        picture, names, others = captioned(example, self.size)
        captions = [*names, *others]
        pixels = from_bytes(torch.tensor(picture)[None])
        vae = self._together().vae
        with torch.no_grad():
            shared = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist
        mean, spread = (tensor[0].float().cpu().numpy() for tensor in (shared.mean, shared.std))
        words = np.frombuffer(json.dumps(captions).encode(), np.uint8)
        return Encoded(({"mean": mean, "spread": spread, "captions": words},), max(1, mean[0].size // 4), 1.0)

    def collate(self, items: Sequence[Encoded]) -> Latents:
        """One caption a picture, drawn at random."""
        rows = [item.sequences[0] for item in items]
        words = [json.loads(row["captions"].tobytes()) for row in rows]
        chosen = tuple(texts[int(torch.randint(len(texts), ()))] for texts in words)
        mean, spread = (torch.from_numpy(np.stack([row[name] for row in rows])) for name in ("mean", "spread"))
        return Latents(mean, spread, chosen)

    def loss(
        self, batch: Latents, *, label_smoothing: float = 0.0, untold: float = 0.0, time_mean: float = 0.0,
        time_spread: float | None = None, **other: Any,
    ) -> Tensor:  # fmt: skip
        """Mean squared error of what the network says (noise, velocity, flow), summed over the pictures, at random
        times. In training a share `untold` is told nothing, so that there is something to guide away from."""
        if other:
            raise UsageError("A diffusers pipeline is taught by another objective.", "Write `objective: diffusion`.")
        x, captions, device = batch.mean, batch.captions, batch.mean.device
        if self.module.training:
            x = x + batch.spread * torch.randn_like(x)
            gone = (torch.rand(len(x)) < untold).tolist()
            captions = tuple("" if away else text for away, text in zip(gone, captions, strict=True))
        if time_spread is None:
            u = torch.rand(len(x), device=device)
        else:
            u = torch.sigmoid(time_mean + time_spread * torch.randn(len(x), device=device))
        return self._errors(x, torch.randn_like(x), u, captions).sum()

    def measure(self, examples: Sequence[Example]) -> Iterator[Mapping[str, float]]:
        """Mean squared error of what the network says at the times MEASURED, by the first caption, with noise that
        follows from the row. Raises UsageError for a row without picture."""
        for example in examples:
            try:
                row = self.encode(example).sequences[0]
            except Unlearnable as error:
                raise UsageError(f"A held-out row cannot be measured: {error}.", "Leave it out.") from None
            x = torch.from_numpy(row["mean"])[None].to(self.device)
            chance = torch.Generator().manual_seed(int(example.digest()[:12], 16))
            noise = torch.randn(x.shape, generator=chance).to(x.device)
            captions = json.loads(row["captions"].tobytes())[:1]
            with self.answering():
                yield {f"t={t}": float(self._errors(x, noise, x.new_full((1,), t), captions)) for t in MEASURED}

    def _errors(self, x: Tensor, noise: Tensor, u: Tensor, captions: Sequence[str]) -> Tensor:
        """(B,) errors for latents x (B, c, h, w) as the autoencoder gives them, at times u."""
        scale = self.pipeline.vae.config
        x = (x - (scale.get("shift_factor") or 0.0)) * (scale.get("scaling_factor") or 1.0)
        z, t, target = noised(self.pipeline.scheduler, x, noise, u)
        with torch.autocast(self.device.type, enabled=False):
            read = [self._told(caption) for caption in captions]  # each alone: its neighbours change no bit of it
        told = {name: torch.cat([one[name] for one in read]) for name in read[0]}
        said = ask(self.net, z.to(self.net.dtype), t, told, self.size)
        return (said.float() - target).square().flatten(1).mean(1)

    def _told(self, caption: str) -> Told:
        if isinstance(self.module, NewWords):  # the words are what is learned
            return tell(self._together(), self.net, caption, self.device)
        if caption not in self._read:
            if sum(t.nbytes for told in self._read.values() for t in told.values()) > _REMEMBERED:
                self._read.clear()
            with torch.no_grad():
                self._read[caption] = tell(self._together(), self.net, caption, self.device)
        return self._read[caption]

    # -- answering ---------------------------------------------------------------------------------------------------

    def generate(self, request: Request) -> Iterator[Part]:
        """Pictures as files, step by step: see `diffusers_painting.paint`."""
        self._together()
        return paint(self, request)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Evaluation mode and no gradients, and the mode that it was in afterwards."""
        learning = self.module.training
        self.module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.module.train(learning)

    # -- keeping -----------------------------------------------------------------------------------------------------

    def learn_word(self, token: str, start: str, vectors: int, *, seed: int) -> None:
        """From now on only `vectors` embeddings of the new word `token` are taught: see `diffusers_words.new_words`."""
        if hasattr(self.module, "peft_config"):
            raise UsageError("Beside an adapter no new word is learned.", "Learn it on the whole pipeline, first.")
        self.module = new_words(self.pipeline, token, start, vectors, seed=seed)

    def keep_base(self) -> None:
        """Keep a frozen copy of what is taught as it is now, for `untuned`; an adapter needs none."""
        if not self.holds_base:
            self._kept = copy.deepcopy(self.module.state_dict())

    @property
    def holds_base(self) -> bool:
        """Whether `untuned` can be asked: new words that were loaded stand in the pipeline for good."""
        return self._kept is not None or hasattr(self.module, "disable_adapter")

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Within it the pipeline is as before tuning. Raises ModelError when there is no copy of that."""
        if hasattr(self.module, "disable_adapter"):
            with self.module.disable_adapter():
                yield
            return
        if self._kept is None:
            raise ModelError("There is no copy of the model before tuning.", "Call keep_base() before the first step.")
        tuned = copy.deepcopy(self.module.state_dict())
        self.module.load_state_dict(self._kept)
        try:
            yield
        finally:
            self.module.load_state_dict(tuned)

    def save(self, folder: Path) -> None:
        """What was learned, as diffusers reads it: `pytorch_lora_weights.safetensors` (`load_lora_weights`),
        `learned_embeds.safetensors` (`load_textual_inversion`), or the whole pipeline (`from_pretrained`)."""
        from .diffusers_files import save_lora, save_words

        folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.module, "peft_config"):
            save_lora(self, folder)
        elif isinstance(self.module, NewWords):
            save_words(self.module, folder)
        else:
            self.pipeline.save_pretrained(folder, safe_serialization=True)
        facts = {"engine": self.engine, "method": self.method, "base": self.base_reference, "size": self.size}
        (folder / "genwright.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
