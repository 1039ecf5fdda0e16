"""Hub sound: text-to-audio models of transformers, opened from a folder and asked for sounds.

MusicGen (Copet et al. 2023) writes tokens of a codec and takes length, temperature and guidance; VITS (Kim et al. 2021)
says words in one pass. Nothing is fetched and no code of a folder's own is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from genwright.core.content import Part
from genwright.core.errors import DataError, ModelError, UsageError
from genwright.core.model import Request
from genwright.core.plugin import Settings
from genwright.media.sound import save_sound, sound_of, writable

from .answers import seed_of
from .captions import words_of
from .pretrained import seeded
from .weights import check_model_folder

_WORDS = ("tokenizer.json", "spiece.model", "vocab.json")  # without any, transformers makes a tokenizer of no words


class HubSoundOptions(Settings):
    """What a request to such a model may ask for."""

    n: int = Field(1, ge=1, le=16, description="Sounds")
    seconds: float = Field(5.0, gt=0, le=30, description="Length; a model that says words takes as long as they need")
    temperature: float = Field(1.0, ge=0, le=4, description="How freely tokens are drawn; 0 takes the likeliest")
    guidance: float = Field(3.0, ge=1, le=20, description="How strictly the words are kept to; 1 is without guidance")


class HubSound:
    """A Model of the floor: it answers words with sounds."""

    engine, gives = "transformers_audio", "audio"
    options = HubSoundOptions  # what a request may ask for
    goes_on = False

    def __init__(self, module: Any, tokenizer: Any):
        self.module, self.tokenizer = module.eval(), tokenizer
        self.base_reference: dict[str, str] = {}

    @property
    def rate(self) -> int:
        """Samples a second of what it makes."""
        codec = getattr(self.module.config, "audio_encoder", self.module.config)
        return int(codec.sampling_rate)

    def generate(self, request: Request) -> Iterator[Part]:
        """Sounds as files, each with its seed and seconds in `meta`; at last a `finish_reason`. Raises UsageError for
        options or words that do not fit, DataError for a full disk."""
        how, words, first = request.options_as(HubSoundOptions), words_of(request.messages), seed_of(request)
        if not words.strip():
            raise UsageError(
                "There is nothing to make a sound of: the request has no words.", "Say what is to be heard."
            )
        if odd := [p.kind for m in request.messages for p in m.parts if p.kind != "text"]:
            raise UsageError(f"The request holds a part of kind {odd[0]}; this model takes words.", "Leave it out.")
        for number, file in enumerate(writable(request.files(how.n, ".wav"))):
            sound = sound_of(self._made(words, how, first + number), self.rate)
            try:
                save_sound(sound, file)
            except OSError as error:
                raise DataError(
                    f"{file} cannot be written: {error.strerror or error}.", "Choose another place."
                ) from None
            facts = {"number": number, "seed": first + number, "seconds": sound.seconds}
            yield Part("audio", path=file, meta=facts)
        yield Part(meta={"finish_reason": "stop"})

    def _made(self, words: str, how: HubSoundOptions, seed: int) -> Any:
        """(frames, channels) float32."""
        asked = self.tokenizer([words], return_tensors="pt", truncation=True, max_length=512)
        given = {name: asked[name].to(self.module.device) for name in ("input_ids", "attention_mask")}
        if not given["input_ids"].numel():
            raise UsageError("The model knows none of these words.", "Write them in the language that it speaks.")
        with torch.no_grad(), seeded(seed):
            if hasattr(self.module, "audio_encoder"):
                tokens = max(1, round(how.seconds * self.module.config.audio_encoder.frame_rate))
                drawn = {"do_sample": True, "temperature": how.temperature} if how.temperature else {"do_sample": False}
                made = self.module.generate(
                    **given, **drawn, max_new_tokens=tokens + self.module.decoder.num_codebooks,
                    guidance_scale=how.guidance,
                )[0].T[: round(how.seconds * self.rate)]  # fmt: skip
            else:
                made = self.module(**given).waveform[0][:, None]
        return made.float().cpu().numpy()


def open_hub_sound(folder: Path, kinds: Sequence[str], *, bfloat16: bool = False) -> HubSound:
    """The model and its tokenizer. Raises ModelError for a folder of another kind, broken, or with code of its own."""
    import transformers
    from safetensors import SafetensorError

    config = check_model_folder(folder)
    if config.get("model_type") not in kinds:
        raise ModelError(
            f"{folder} holds a {config.get('model_type') or 'model of no named kind'}, which makes no sound here.",
            f"Known: {', '.join(kinds)}.",
        )
    if not any((folder / name).is_file() for name in _WORDS):
        raise ModelError(f"{folder} holds no tokenizer.", f"It needs one of {', '.join(_WORDS)}.")
    try:
        module = transformers.AutoModelForTextToWaveform.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, local_files_only=True,
            dtype=torch.bfloat16 if bfloat16 else torch.float32,
        )  # fmt: skip
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The model in {folder} cannot be loaded: {' '.join(str(error).split())[:300]}",
            "Check that config.json, tokenizer and weights belong together.",
        ) from None
    return HubSound(module, tokenizer)
