"""FID: the Fréchet distance of Inception's features, for whoever brings that network as a card of an ONNX file.

Heusel et al. 2017. FID is a name for one network, Inception v3 of 2015, which no package brings, so without such a
card the metric refuses (`kid` needs none). Nor is it told of few pictures: two halves of the same data lie 66 apart
at 2,000 and 134 at 800, all of it bias. Pictures are resized as clean-fid does (bicubic, in floating point). The
signature names the file by its sha256; a figure was not yet compared with another program's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.core.card import find_card
from genwright.judging.pictures import Sets, sets_of

needs = frozenset({"answers", "train"})
_WIDTH, _AT_ONCE = 2048, 16


class Settings(Base):
    inception: str = Field(
        "",
        description="A card, or its YAML file: one .onnx file that turns pixels (n, 3, 299, 299), float32, into "
        "Inception's features (n, 2048)",
    )
    pixels: Literal["0..1", "-1..1", "0..255"] = Field("-1..1", description="Range of the pixels that the file takes")
    fewest: int = Field(2048, ge=4, description="Answers and true pictures that there must be; fewer are mostly bias")
    reference: int = Field(50_000, ge=4, description="Most true pictures of other rows to compare with")


def cards(settings: Settings) -> tuple[str, ...]:
    """What must be in the store."""
    return (settings.inception,) if settings.inception else ()


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (), seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError without a card, for one that is no Inception and for too few pictures."""
    if not settings.inception:
        raise UsageError(
            "FID is told with one network, Inception v3 of 2015, and its weights come in no package.",
            "Name a card of its ONNX file: {name: fid, inception: card.yaml}; or use `kid`, which needs none.",
        )
    sets = sets_of(pairs, train=train, held_out=held_out, most=settings.reference, seed=seed, metric="fid")
    if min(len(sets.made), len(sets.reference)) < settings.fewest:
        raise UsageError(
            f"FID of {len(sets.made):,} pictures beside {len(sets.reference):,} is mostly bias; "
            f"{settings.fewest:,} of each are the least.",
            "Raise evaluate.max_rows, or use `kid`, which has no bias.",
        )
    return _told(sets, settings)


def frechet(some: np.ndarray, others: np.ndarray) -> float:
    """|mean − mean|² + tr(C + D − 2 (C D)^½) of the normal distributions that fit two sets of vectors best.

    >>> one = np.random.default_rng(0).normal(size=(500, 3))
    >>> round(frechet(one, one), 6), round(frechet(one, one + [3, 0, 4]), 6)
    (0.0, 25.0)
    """
    roots: list[Any] = []
    variances = 0.0
    for one in (some, others):
        spread = (one - one.mean(0)) / np.sqrt(len(one) - 1)  # its covariance is spread.T @ spread
        variances += float((spread**2).sum())
        roots.append(np.linalg.qr(spread, mode="r") if len(spread) > spread.shape[1] else spread)
    # tr (C D)^½ is the sum of the singular values of the product of any roots of C and D: no root of a matrix is taken
    both = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(((some.mean(0) - others.mean(0)) ** 2).sum() + variances - 2 * both)


def _told(sets: Sets, settings: Settings) -> Score:
    card = find_card(settings.inception)
    session = _session(settings)
    found = [_features(session, paths, settings) for paths in (sets.made, sets.true, sets.reference)]
    made, true, reference = found
    digest = card.files[0].sha256[:12]
    return Score(
        frechet(made, reference), higher_is_better=False, unit="Fréchet distance",
        signature=f"fid|{card.name}:{digest}|pixels:{settings.pixels}|299px bicubic|{sets.said()}",
        beside={"true pictures": frechet(true, reference)},
    )  # fmt: skip


def _session(settings: Settings) -> Any:
    from genwright.core import MissingExtra
    from genwright.nn.weights import card_folder

    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "onnx") from None
    folder, name = card_folder(settings.inception), find_card(settings.inception).files[0].name
    if not name.endswith(".onnx"):
        raise UsageError(f"{name} is no ONNX file.", "FID reads Inception from an .onnx file; TorchScript is code.")
    try:
        session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    except RuntimeError as error:  # what onnxruntime raises at a file that it cannot read
        raise UsageError(f"{name} cannot be opened: {' '.join(str(error).split())[:200]}") from None
    (given,), (gives, *_) = session.get_inputs(), session.get_outputs()
    if list(given.shape)[1:] != [3, 299, 299] or list(gives.shape)[1:] != [_WIDTH]:
        raise UsageError(
            f"{name} turns {given.shape} into {gives.shape}; FID's turns (n, 3, 299, 299) into (n, {_WIDTH}).",
            "Export it up to its last pooling.",
        )
    return session


def _features(session: Any, paths: Sequence[Path], settings: Settings) -> np.ndarray:
    (given,) = session.get_inputs()
    found = []
    for start in range(0, len(paths), _AT_ONCE):
        pixels = np.stack([_pixels(path) for path in paths[start : start + _AT_ONCE]])
        if settings.pixels != "0..255":
            pixels = pixels / 255 if settings.pixels == "0..1" else pixels / 127.5 - 1
        found.append(session.run(None, {given.name: pixels.astype(np.float32)})[0])
    return np.concatenate(found).astype(np.float64)


def _pixels(path: Path) -> np.ndarray:
    """float32 (3, 299, 299) from 0 to 255."""
    from PIL import Image

    from genwright.media.picture import open_picture, rgb

    channels = np.asarray(rgb(open_picture(path)), np.float32).transpose(2, 0, 1)
    sized = [
        Image.fromarray(np.ascontiguousarray(one)).resize((299, 299), Image.Resampling.BICUBIC) for one in channels
    ]
    return np.stack([np.asarray(one) for one in sized])
