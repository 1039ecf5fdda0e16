"""DNSMOS: how good speech would sound to listeners, from 1 to 5, by Microsoft's network (P.835, the whole of it).

It needs no true sound; where rows have one, what that scores stands beside it. In the details stand how good the voice
is and how little the noise. A figure of clear speech, not of the right words: let `heard_words` stand beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from genwright.core import Message, MissingExtra, ModelError, Pairs, Score, Settings, UsageError, find_card
from genwright.judging.intervals import RESAMPLES, mean_score
from genwright.media.sound import Sound, open_sound

cards = ("dnsmos",)
RATE, SEEN = 16_000, 144_160  # samples a second, and how many the network hears at once (9.01 s)
# What the network says becomes what listeners said, by polynomials that its authors fitted: voice, noise, whole.
_FITTED = ((-0.08397278, 1.22083953, 0.0052439), (-0.13166888, 1.60915514, -0.39604546),
           (-0.06766283, 1.11546468, 0.04602535))  # fmt: skip


def score(pairs: Pairs, settings: Settings, *, bootstrap: int = RESAMPLES, seed: int = 0, **context: Any) -> Score:
    """Raises UsageError when no answer is a sound, ModelError when the card was not fetched."""
    made = [sound for pair in pairs if (sound := _sound(pair.answer))]
    if not made:
        raise UsageError("No answer is a sound.", "Leave `dnsmos` out.")
    network = _network()
    found = np.array([opinion(network, sound) for sound in made])
    true = [opinion(network, sound)[2] for pair in pairs if pair.answer and (sound := _sound(pair.example.answer))]
    return mean_score(
        found[:, 2].tolist(), bootstrap=bootstrap, seed=seed, unit="1 to 5", signature="dnsmos|P.835|overall|16 kHz",
        beside={"true sounds": float(np.mean(true))} if true else {},
        details={"voice": float(found[:, 0].mean()), "noise": float(found[:, 1].mean()), "rows": len(made)},
    )  # fmt: skip


def opinion(network: Any, sound: Sound) -> tuple[float, float, float]:
    """Voice, noise and whole, the mean over windows a second apart; what is shorter than one is repeated."""
    wave = sound.mono().at(RATE).samples[:, 0]
    wave = np.tile(wave, -(-SEEN // max(1, len(wave))))[: max(SEEN, len(wave))]
    windows = [wave[start : start + SEEN] for start in range(0, len(wave) - SEEN + 1, RATE)]
    said = np.stack([network.run(None, {"input_1": one[None].astype(np.float32)})[0][0] for one in windows])
    voice, noise, whole = (float(np.polyval(fit, said[:, at]).mean()) for at, fit in enumerate(_FITTED))
    return voice, noise, whole


def _sound(message: Message | None) -> Sound | None:
    parts = message.parts if message else ()
    path = next((part.path for part in parts if part.kind == "audio" and part.path), None)
    return open_sound(path) if path else None


def _network() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "speech") from None
    file = find_card("dnsmos").folder / "sig_bak_ovr.onnx"
    if not file.is_file():
        raise ModelError("The network that judges speech is not here.", "Run `genwright models pull dnsmos`.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
