"""Flow: a learner that turns noise into the picture that words describe, and paints over pictures that it is given.

It is taught by the one loop: a row is a caption (or several) and a picture, a pass costs as many slots as the pictures
have patches. Everything random is drawn from torch's generator, which the loop saves, so that a killed training goes on
bit-equal, and which it sets back for every look at the held-out rows: noise, times and captions are the same each time.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genwright.core.content import Message, Part
from genwright.core.data import Example
from genwright.core.errors import DataError, GenwrightError, ModelError, UsageError
from genwright.core.model import Encoded, Request, Unlearnable
from genwright.core.plugin import did_you_mean
from genwright.media.edit import Canvas, canvas_of

from . import diffusion
from .captions import Meaning, Reader, Words
from .checkpoint import write_safetensors
from .dit import AUGMENTS, Condition, Dit
from .flow_options import FlowConfig, PictureOptions

AT_ONCE = 16  # pictures painted together
MEASURED = (0.2, 0.5, 0.8)  # times at which held-out pictures are denoised


@dataclass(frozen=True)
class Pictures:
    """A batch: `pixels` (B, S, S, 3) uint8, `captions` as their reader gives them, `styles` (B,) from 1 (0: none)."""

    pixels: Tensor
    captions: Tensor
    styles: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def to(self, device: torch.device | str) -> Pictures:
        return Pictures(self.pixels.to(device), self.captions.to(device), self.styles.to(device))


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
            self.module = Dit(config, self.reader.width, len(self.styles)).eval()
        self.base_reference: dict[str, str] = {}
        self.method = ""
        self._kept: Any = None
        self._cast: tuple[Any, Any] | None = None

    # -- learning ----------------------------------------------------------------------------------------------------

    def survey(self, examples: Sequence[Example]) -> None:
        """Learn of the styles that the training rows name; those that are known keep their place."""
        named = {str(e.meta["style"]) for e in examples if e.meta.get("style")}
        new = sorted(named - set(self.styles))
        if new:
            old = self.module.styles.weight.data
            grown = torch.cat([old, old.mean(0, keepdim=True).expand(len(new), -1)])
            self.module.styles = torch.nn.Embedding.from_pretrained(grown.contiguous(), freeze=False)
            self.styles = (*self.styles, *new)

    def encode(self, example: Example, *, supervise: str = "answer") -> Encoded:
        """Pixels (S, S, 3), all captions of the row and the number of its style.

        Captions are the words asked and those in `meta["captions"]`, {language: [caption, …]}. Raises Unlearnable for
        a row without picture, without words, or with a file that is none.
        """
        from genwright.media.picture import as_array

        path = next((p.path for p in example.answer.parts if p.kind == "image" and p.path), None)
        if path is None:
            raise Unlearnable("the answer holds no picture")
        more = [text for texts in (example.meta.get("captions") or {}).values() for text in texts]
        captions = list(dict.fromkeys(text for text in (words_of(example.prompt), *more) if text.strip()))
        if not captions:
            raise Unlearnable("the picture has no caption")
        try:
            pixels = as_array(path, self.config.size)
        except GenwrightError as error:
            raise Unlearnable(f"the picture cannot be read: {error.message}") from None
        style = self._style_number(str(example.meta.get("style") or ""), Unlearnable)
        sequence = {"pixels": pixels, "captions": self.reader(captions), "style": np.int64(style)}
        return Encoded((sequence,), (self.config.size // self.config.patch) ** 2, 1.0)

    def collate(self, items: Sequence[Encoded]) -> Pictures:
        """One caption a picture, drawn at random."""
        rows = [item.sequences[0] for item in items]
        chosen = [row["captions"][int(torch.randint(len(row["captions"]), ()))] for row in rows]
        pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows]))
        return Pictures(pixels, _stacked(chosen), torch.tensor([int(row["style"]) for row in rows]))

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
            captions = _stacked([row["captions"][0] for row in rows]).to(self.device)
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
        """Pictures as files, with seed and style in `meta`; before them a part without file a step (`meta["progress"]`)
        and, when `partial` asks, unfinished pictures (`meta["partial"]`); at last a `finish_reason`.

        Words describe what is to be seen. A picture among the parts is varied by `strength`, or painted over where a
        part with the text "mask" allows it; two are mixed. Raises UsageError for options or pictures that do not fit.
        """
        paintings = self._paintings(request)
        files = request.files(len(paintings), ".png")
        for start in range(0, len(paintings), AT_ONCE):
            some = paintings[start : start + AT_ONCE]
            yield from self._painted(some, files[start : start + AT_ONCE])
        yield Part(meta={"finish_reason": "stop"})

    def generate_many(self, requests: Sequence[Request]) -> Iterator[tuple[int, Message]]:
        """Answers of many requests, those that ask for the same steps painted together."""
        groups: dict[Any, list[tuple[int, Painting, Path]]] = {}
        answers: dict[int, list[Part | None]] = {}
        for index, request in enumerate(requests):
            paintings = self._paintings(request)
            answers[index] = [None] * len(paintings)
            for painting, file in zip(paintings, request.files(len(paintings), ".png"), strict=True):
                groups.setdefault(painting.way, []).append((index, painting, file))
        for group in groups.values():
            for start in range(0, len(group), AT_ONCE):
                some = group[start : start + AT_ONCE]
                parts = self._painted([one for _, one, _ in some], [file for _, _, file in some])
                made = [part for part in parts if part.path and "partial" not in (part.meta or {})]
                for (index, painting, _), part in zip(some, made, strict=True):
                    answers[index][painting.number] = part
                    if all(answers[index]):
                        yield index, Message("assistant", tuple(p for p in answers[index] if p))

    def _paintings(self, request: Request) -> list[Painting]:
        """What a request asks for, one entry a picture."""
        how = request.options_as(PictureOptions)
        style = self._style_number(how.style or "", UsageError)
        canvases = canvas_of(request.messages, how.expand)
        words = words_of(request.messages)
        if not words.strip() and not canvases:
            raise UsageError("There is nothing to paint: the request has no words.", "Say what is to be seen.")
        edited = bool(canvases) and not canvases[0].is_free
        if edited and (how.size or len(canvases) > 1):
            odd = "a size of its own" if how.size else "a second picture"
            raise UsageError(f"A picture with a mask or with room added cannot have {odd}.", "Leave one of them out.")
        if edited and request.out and request.out.suffix.lower() not in ("", ".png"):
            raise UsageError(f"What stays of a picture would change in a {request.out.suffix} file.", "Write a .png.")
        start = (how.strength or (1.0 if edited else 0.7)) if canvases else 1.0
        seed = random.SystemRandom().randrange(1 << 31) if request.seed is None else request.seed
        mixed = bool(how.toward) or len(canvases) > 1
        alike = (bool(canvases), bool(how.toward))
        way = (how.steps, how.sampler, how.guidance, how.interval, how.partial, how.snap, start, alike)
        return [
            Painting(
                i, words, how.negative, how.toward, i / max(1, how.n - 1) if mixed else 0.0, style, how.style,
                seed if mixed else seed + i, tuple(canvases), how.size, way,
            )
            for i in range(how.n)
        ]  # fmt: skip

    def _painted(self, some: Sequence[Painting], files: Sequence[Path]) -> Iterator[Part]:
        """Paint together what goes the same way, and write it."""
        steps, sampler, scale, (low, high), partial, snap, start, _ = some[0].way
        size, shown = self.config.size, {round(steps * k / (partial + 1)) for k in range(1, partial + 1)} - {0, steps}
        z = torch.cat([noise_of(one.seed, size) for one in some]).to(self.device)
        given, free = (part.to(self.device) for part in self._given(some))
        z = diffusion.mix(given, z, start)
        with self.answering() as module:
            told, untold = self._told(module, some), self._told(module, some, negative=True)
            both = Condition(torch.cat([told.vector, untold.vector]), torch.cat([told.tokens, untold.tokens]))

            def predict(z: Tensor, t: float) -> Tensor:
                if scale == 1 or not low <= t <= high:
                    x = module(z, z.new_full((len(z),), t), told)
                else:
                    x = module(torch.cat([z, z]), z.new_full((2 * len(z),), t), both)
                    with_words, without = x.chunk(2)
                    x = diffusion.guided(with_words, without, scale)
                return torch.where(free, x, given)

            walk = diffusion.walk(predict, z, diffusion.times(steps, start), method=sampler)
            for step, (_, x) in enumerate(walk, 1):
                if step in shown:
                    yield from _written(some, files, to_bytes(x, snap), {"partial": step, "of": steps})
                yield Part(kind="image", meta={"progress": step, "of": steps})
        yield from _written(some, files, to_bytes(x, snap), {"steps": steps})

    def _told(self, module: Any, some: Sequence[Painting], *, negative: bool = False) -> Condition:
        """What each picture is painted by, or what it should be unlike."""
        words = [one.negative if negative else one.words for one in some]
        styles = torch.tensor([0 if negative else one.style for one in some], device=self.device)

        def read(texts: Sequence[str]) -> Condition:
            blank = torch.tensor([not text.strip() for text in texts], device=self.device)
            found: Condition = module.condition(torch.from_numpy(self.reader(texts)).to(self.device), blank, styles)
            return found

        first = read(words)
        if negative or not some[0].toward:
            return first
        second, share = read([one.toward for one in some]), torch.tensor([one.share for one in some]).to(self.device)
        return Condition(
            torch.lerp(first.vector, second.vector, share[:, None]),
            torch.lerp(first.tokens, second.tokens, share[:, None, None]),
        )

    def _given(self, some: Sequence[Painting]) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) what is painted upon and (B, 1, S, S) where it may change; all of nothing without a picture."""
        size = self.config.size
        if not some[0].canvases:
            return torch.zeros(len(some), 3, size, size), torch.ones(1, 1, size, size, dtype=torch.bool)
        pixels, masks = [], []
        for one in some:
            small = [canvas.small(size) for canvas in one.canvases]
            first, last = (from_bytes(torch.from_numpy(small[k][0])[None]) for k in (0, -1))
            pixels.append(torch.lerp(first, last, one.share))
            masks.append(torch.from_numpy(small[0][1])[None, None])
        return torch.cat(pixels), torch.cat(masks)

    # -- keeping -----------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @contextmanager
    def answering(self) -> Iterator[Any]:
        """The network to ask, without gradients: with its blocks in `dtype`, cast once for these weights."""
        learning = self.module.training
        self.module.eval()
        state = tuple((p.data_ptr(), p._version) for p in self.module.parameters())
        if self._cast is None or self._cast[0] != state:
            module = self.module
            if self.dtype != torch.float32:
                module = copy.deepcopy(module).requires_grad_(False)
                module.blocks.to(self.dtype)
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
        """Weights in float32, config.json (shape and styles) and genwright.json, into an existing or new folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_safetensors(folder / "model.safetensors", self.module.state_dict())
        facts = {"model_type": self.engine, **self.config.model_dump(mode="json"), "styles": list(self.styles)}
        (folder / "config.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        facts = {"engine": self.engine, "method": self.method, "base": self.base_reference}
        (folder / "genwright.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> None:
        """The weights of a saved folder. Raises ModelError when they do not belong to this shape."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(folder / "model.safetensors")
            self.module.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        except (OSError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                f"The weights in {folder} do not fit their config.json: {' '.join(str(error).split())[:300]}",
                "Restore the folder.",
            ) from None

    def _style_number(self, name: str, wrong: type[Exception]) -> int:
        if not name:
            return 0
        if name not in self.styles:
            raise wrong(f"no style {name!r} here. {did_you_mean(name, self.styles)}")
        return 1 + self.styles.index(name)


@dataclass(frozen=True)
class Painting:
    """One picture to paint: the `number`-th of its request. `share` is how far it lies on the way to the second prompt
    or picture, `way` what must be equal of those painted together."""

    number: int
    words: str
    negative: str
    toward: str
    share: float
    style: int
    style_name: str | None
    seed: int
    canvases: tuple[Canvas, ...]
    size: int | None
    way: tuple[Any, ...]


def words_of(messages: Sequence[Message]) -> str:
    """What is asked for: the words of the last message that is the user's."""
    return next((m.text for m in reversed(messages) if m.role == "user"), messages[-1].text if messages else "")


def noise_of(seed: int, size: int) -> Tensor:
    """(1, 3, S, S) Gaussian noise, the same for the same seed on every device."""
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed % (1 << 63)))


def from_bytes(pixels: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) from -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_bytes(x: Tensor, snap: float = 0.0) -> np.ndarray:
    """(B, 3, S, S) from -1 to 1 -> (B, S, S, 3) uint8; pixels within `snap` of white (of the whole range) are white."""
    x = x.float().clamp(-1, 1)
    if snap:
        x = torch.where((x > 1 - 2 * snap).all(1, keepdim=True), 1.0, x)
    found: np.ndarray = x.add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return found


def augmented(x: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Some pictures mirrored, moved and with other colours, and (B, 5) how: mirrored, moved right and down (of the
    side), cosine - 1 and sine of the turn of the hue. The network is told, so none of it leaks into what it paints
    (Karras et al. 2022, appendix F.2)."""
    count, _, side, _ = x.shape
    mirrored, moved, turned = torch.rand(3, count, device=x.device) < share
    most = max(1, side // 8)
    shift = torch.randint(-most, most + 1, (count, 2), device=x.device) * moved[:, None]
    angle = (torch.rand(count, device=x.device) - 0.5) * math.pi * turned
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    across, down = ((torch.arange(side, device=x.device) - shift[:, k, None]).clamp(0, side - 1) for k in (0, 1))
    x = x.gather(3, across[:, None, None].expand_as(x)).gather(2, down[:, None, :, None].expand_as(x))
    x = torch.einsum("bij,bjhw->bihw", hue(angle), x)
    told = (mirrored, shift[:, 0] / side, shift[:, 1] / side, angle.cos() - 1, angle.sin())
    assert len(told) == AUGMENTS
    return x, torch.stack([one.float() for one in told], 1)


def hue(angle: Tensor) -> Tensor:
    """(B, 3, 3) turns of colour around grey, by an angle (B,)."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    grey = torch.full((3, 3), 1 / 3, device=angle.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device) / math.sqrt(3)
    return cos * torch.eye(3, device=angle.device) + (1 - cos) * grey + sin * cross


def _written(
    some: Sequence[Painting], files: Sequence[Path], pixels: np.ndarray, facts: dict[str, Any]
) -> Iterator[Part]:
    from genwright.media.edit import finished
    from genwright.media.picture import save_picture

    for one, file, made in zip(some, files, pixels, strict=True):
        path = file.with_name(f"{file.stem}.step-{facts['partial']}{file.suffix}") if "partial" in facts else file
        if one.canvases and not one.canvases[0].is_free:
            picture = one.canvases[0].filled(made)
        else:
            picture = finished(made, one.size)
        try:
            save_picture(picture, path, metadata={})
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror or error}.", "Choose another place.") from None
        meta = {"number": one.number, "seed": one.seed, "style": one.style_name, **facts}
        yield Part(kind="image", path=path, meta=meta)


def _stacked(captions: Sequence[np.ndarray]) -> Tensor:
    """(B, w) vectors, or (B, longest) word numbers with 0 after the last."""
    longest = max(len(one) for one in captions)
    return torch.from_numpy(np.stack([np.pad(one, (0, longest - len(one))) for one in captions]))
