"""This machine, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genwright.core import Run, Settings, Tell


def carry_out(
    work: Callable[..., None], run: Run, settings: Settings, *, tell: Tell, watch: Callable[[int, float], None]
) -> None:
    """Call `work(crew=…, tell=…, watch=…)` once; what it leaves lies in the run's folder."""
    from genwright.nn.crew import Crew

    work(crew=Crew(), tell=tell, watch=watch)


def spread(open_worker: Callable[[], Callable[[Any], Any]], parts: Sequence[Any], settings: Settings) -> Iterator[Any]:
    """What a worker makes of the parts, one after another."""
    yield from map(open_worker(), parts)
