"""Tune adherence: share of what was asked that the answers' notes keep to: key, metre, rhythm, bars.

The key is heard from the notes (Krumhansl's profiles), the metre counts when nine bars in ten are whole, the rhythm is
told by the nearest mean of the training tunes, bars by the nearest number that can be asked for. In the details stands
each; beside them what the held-out tunes themselves get: no model can be expected to do better.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from genwright.core import Example, Pairs, Score, Settings, UsageError
from genwright.judging.intervals import RESAMPLES, ratio, score_of_sums
from genwright.judging.tunes import Rhythms, heard_tonic, mean, tune_in
from genwright.media.abc import Bar, Tune
from genwright.media.score import bars_of, nearest_bars
from genwright.media.tune_words import facts_in

needs = frozenset({"answers", "train"})
_ENOUGH = 0.9  # of a tune's bars


def score(
    pairs: Pairs, settings: Settings, *, train: Iterable[Example] = (), bootstrap: int = RESAMPLES, seed: int = 0,
    **context: Any,
) -> Score:  # fmt: skip
    """Raises UsageError when no question says anything of a tune."""
    rhythms = Rhythms(tune for example in train if (tune := tune_in(example.answer)))
    asked = [facts_in(" ".join(message.text for message in pair.example.prompt)) for pair in pairs]
    made = [_kept(facts, tune_in(pair.answer), rhythms) for facts, pair in zip(asked, pairs, strict=True)]
    true = [_kept(facts, tune_in(pair.example.answer), rhythms) for facts, pair in zip(asked, pairs, strict=True)]
    if not any(made):
        raise UsageError("No question says of a tune what it should be.", "Leave `tune_adherence` out.")
    rows = np.array([(sum(kept.values()), len(kept)) for kept in made], np.float64)
    return score_of_sums(
        rows, ratio, bootstrap=bootstrap, seed=seed, each=tuple(ratio(rows).tolist()), higher_is_better=True,
        unit="share", signature="tune_adherence|key:krumhansl|rhythm:nearest-mean",
        beside=_each(true, "held-out "), details=_each(made, ""),
    )  # fmt: skip


def _kept(asked: dict[str, Any], tune: Tune | None, rhythms: Rhythms) -> dict[str, float]:
    """Of each thing asked, whether the tune keeps to it; rhythms that were hardly learned are not asked after."""
    found = {}
    if "tonic" in asked:
        found["key"] = tune is not None and heard_tonic(tune) == asked["tonic"]
    if "metre" in asked:
        found["metre"] = tune is not None and tune.metre == asked["metre"] and _whole(tune) >= _ENOUGH
    if asked.get("rhythm") in rhythms.means:
        found["rhythm"] = tune is not None and rhythms.of(tune) == asked["rhythm"]
    if "bars" in asked:
        count = sum(isinstance(event, Bar) for event in tune.events) if tune else 0
        found["bars"] = nearest_bars(count) == asked["bars"]
    return {name: float(value) for name, value in found.items()}


def _whole(tune: Tune) -> float:
    bars = bars_of(tune)
    return 1 - bars.wrong / max(1, bars.all)


def _each(kept: list[dict[str, float]], prefix: str) -> dict[str, float]:
    names = dict.fromkeys(name for one in kept for name in one)
    return {f"{prefix}{name}": mean([one[name] for one in kept if name in one]) for name in names}
