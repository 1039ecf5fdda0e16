"""Stop pornographic pictures, those given with a request and those painted (Yahoo's open_nsfw by onnxruntime)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from genwright.core import Finding, MissingExtra, ModelError, Part, Verdict
from genwright.core.card import find_card
from genwright.trust.fetch import sha256_of
from genwright.trust.guarding import GuardSettings

CARD = "opennsfw"
_MEAN = (104.0, 117.0, 123.0)  # of blue, green and red, as the network was taught


class Settings(GuardSettings):
    threshold: float = Field(
        0.8, gt=0, le=1, description="Likelihood from which on a picture is stopped; Yahoo calls what is below 0.2 safe"
    )
    action: Literal["block", "note"] = Field("block", description="block refuses, note only writes it in the ledger")


def check(parts: Sequence[Part], settings: Settings) -> Verdict:
    """The likeliest of the pictures decides. Words pass; so does what is neither.

    Raises ModelError when the card's weights are not here or altered, DataError for a file that is no picture.
    """
    pictures = [part.path for part in parts if part.kind == "image" and part.path]
    if not pictures:
        return Verdict()
    worst = max(likelihoods(pictures))
    if worst < settings.threshold:
        return Verdict()
    action = "block" if settings.action == "block" else "allow"
    reason = f"a picture looks pornographic ({worst:.2f} of 1, the limit is {settings.threshold})"
    return Verdict(action, (Finding("pornography", 0, 0),), reason)


def undecided(text: str, settings: Settings) -> int:
    """Words are not waited for."""
    return len(text)


def likelihoods(pictures: Sequence[Path | Any]) -> list[float]:
    """From 0 to 1 for each picture (a path or a PIL image), as the reference does it: squeezed to 256 × 256 without
    regard to its shape, once through JPEG, the middle 224 × 224."""
    import numpy as np

    session = _session(_weights())
    found = []
    for picture in pictures:
        batch = np.asarray(_seen(picture), np.float32)[None, :, :, ::-1] - np.asarray(_MEAN, np.float32)
        (said,) = session.run(None, {session.get_inputs()[0].name: batch})
        found.append(float(said[0][1]))
    return found


def _seen(picture: Path | Any) -> Any:
    """RGB, 224 × 224."""
    import io

    from PIL import Image

    from genwright.media.apart import open_given
    from genwright.media.picture import encoded, rgb

    image = rgb(open_given(picture) if isinstance(picture, Path) else picture)
    image = image.resize((256, 256), Image.Resampling.BILINEAR).crop((16, 16, 240, 240))
    return Image.open(io.BytesIO(encoded(image, ".jpg", quality=75)))


def _weights() -> Path:
    card = find_card(CARD)
    path, wanted = card.path, card.files[0].sha256
    if sha256_of(path) != wanted:
        raise ModelError(f"{path} has been altered.", f"Run `genwright models pull {CARD}` to fetch it again.")
    return path


@cache
def _session(weights: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "image") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would take turns with the threads that paint
    return onnxruntime.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
