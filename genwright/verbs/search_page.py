"""Search page: what a search found as one HTML file, nothing fetched: parallel coordinates, importances, all trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

Facts = Mapping[str, Any]
_WIDE, _HIGH, _TOP, _BOTTOM, _SIDE = 900, 380, 56, 30, 90
_COLOURS = (".trial { fill:none; stroke-width:1.6; opacity:.75 } .trial:hover { stroke-width:4; opacity:1 } "
            ".pruned { stroke-dasharray:4 4; opacity:.35 }")  # fmt: skip


def page(name: str, summary: Facts, trials: Sequence[Facts], logs: Sequence[str] = ()) -> str:
    """The page of a search. `trials` have trial, state, value, params; keys in `logs` get a logarithmic axis."""
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    best = ", ".join(f"{key} = {_figure(value)}" for key, value in summary["params"].items())
    shares = summary["importances"]
    mattered = (
        f"<figure>{importance_bars(shares)}</figure>\n"
        f'<p class="note">Share of each key in what made trials good (PED-ANOVA over {summary["finished"]} trials).</p>'
        if shares
        else '<p class="note">Importances need at least four finished trials with different values.</p>'
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="genwright">
<title>{escape(name)} – search</title>
<style>{style}
{_COLOURS}</style>
</head>
<body>
<header>
<p class="kind">Search</p><h1>{escape(name)}</h1>
<p class="lead">Best {escape(summary["metric"])}: {_figure(summary["value"])} with {escape(best)}.</p>
<p class="facts"><span>{summary["trials"]} trials: {summary["finished"]} finished, {summary["pruned"]} stopped early,
{summary["failed"]} failed.</span></p>
</header>
<main>
<section><h2>Every trial as a line</h2><figure>{parallel(trials, summary, logs)}</figure>
<p class="note">Each axis is a key; the last is the {escape(summary["metric"])}. The better a trial, the bluer its line;
trials that were stopped early are dashed and end before the last axis.</p></section>
<section><h2>What mattered</h2>{mattered}</section>
<section><h2>All trials</h2><div class="wide">{_table(trials, summary)}</div></section>
</main>
</body>
</html>
"""


def parallel(trials: Sequence[Facts], summary: Facts, logs: Sequence[str]) -> str:
    """Parallel coordinates (Inselberg 1985) as an SVG picture."""
    keys = list(summary["params"])
    axes = [_Axis([t["params"].get(k) for t in trials if k in t["params"]], log=k in logs) for k in keys]
    values = [t["value"] for t in trials if t["value"] is not None]
    axes.append(_Axis(values))
    places = [_SIDE + i * (_WIDE - 2 * _SIDE) / max(1, len(axes) - 1) for i in range(len(axes))]
    goodness = sorted(values, reverse=summary["direction"] == "minimize")  # worst first
    drawn = []
    for trial in sorted(trials, key=lambda t: goodness.index(t["value"]) if t["value"] is not None else -1):
        points = [
            (x, axis.at(trial["params"][k]))
            for x, axis, k in zip(places, axes, keys, strict=False)
            if k in trial["params"]
        ]
        rank = 0.0
        if trial["value"] is not None:
            points.append((places[-1], axes[-1].at(trial["value"])))
            rank = goodness.index(trial["value"]) / max(1, len(goodness) - 1)
        path = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
        colour = f"color-mix(in srgb, var(--c1) {round(100 * rank)}%, var(--c0))"
        said = ", ".join(f"{k} {_figure(v)}" for k, v in trial["params"].items())
        drawn.append(
            f'<path class="trial {trial["state"]}" style="stroke:{colour}" d="{path}">'
            f"<title>{escape(trial['trial'])}: {escape(said)} → {_figure(trial['value'])}</title></path>"
        )
    for x, axis, key in zip(places, axes, [*keys, summary["metric"]], strict=True):
        drawn.append(f'<path class="axis" d="M{x:.1f} {_TOP}V{_HIGH - _BOTTOM}"/>')
        first, _, last = key.rpartition(".")
        drawn.append(f'<text class="middle" x="{x:.1f}" y="{_TOP - 18}">{escape(last)}</text>')
        drawn.append(f'<text class="middle small" x="{x:.1f}" y="{_TOP - 34}">{escape(first)}</text>')
        drawn += [
            f'<text class="small" x="{x + 5:.1f}" y="{y + 4:.1f}">{escape(text)}</text>' for y, text in axis.ticks()
        ]
    return _picture("".join(drawn), "Parallel coordinates of all trials", _HIGH)


def importance_bars(shares: Mapping[str, float]) -> str:
    """Horizontal bars, the most important key first."""
    rows = sorted(shares.items(), key=lambda item: -item[1])
    drawn = []
    for number, (key, share) in enumerate(rows):
        at, length = 8 + 34 * number, share * (_WIDE - 420)
        drawn.append(f'<text class="end" x="300" y="{at + 16}">{escape(key)}</text>')
        drawn.append(f'<rect class="bar c1" x="310" y="{at}" width="{max(1.0, length):.1f}" height="22" rx="3"/>')
        drawn.append(f'<text x="{318 + length:.1f}" y="{at + 16}">{share:.0%}</text>')
    return _picture("".join(drawn), "Importance of each key", 16 + 34 * len(rows))


class _Axis:
    """Where values of one key stand: numbers by size (or its logarithm), anything else by name."""

    def __init__(self, values: Sequence[Any], *, log: bool = False):
        self.named = not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        self.log = log and not self.named
        self.names = sorted({_figure(v) for v in values}) if self.named else []
        places = [0.0, float(max(1, len(self.names) - 1))] if self.named else [self._place(v) for v in values]
        self.low, self.high = min(places, default=0.0), max(places, default=1.0)

    def at(self, value: Any) -> float:
        """Height in the picture."""
        spread = self.high - self.low
        share = (self._place(value) - self.low) / spread if spread else 0.5
        return _HIGH - _BOTTOM - share * (_HIGH - _BOTTOM - _TOP)

    def ticks(self) -> list[tuple[float, str]]:
        if self.named:
            return [(self.at(name), name) for name in self.names]
        ends = [
            self.low + share * (self.high - self.low) for share in ((0.5,) if self.low == self.high else (0, 0.5, 1))
        ]
        values = [math.exp(v) if self.log else v for v in ends]
        return [(self.at(v), _figure(v)) for v in values]

    def _place(self, value: Any) -> float:
        if self.named:
            return float(self.names.index(value if value in self.names else _figure(value)))
        return math.log(value) if self.log else float(value)


def _table(trials: Sequence[Facts], summary: Facts) -> str:
    keys = list(summary["params"])
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in ("trial", summary["metric"], *keys, "state", "seconds"))
    sign = 1 if summary["direction"] == "minimize" else -1
    order = sorted(trials, key=lambda t: (t["value"] is None, sign * t["value"] if t["value"] is not None else 0))
    body = "".join(
        f'<tr><th scope="row">{escape(t["trial"])}</th><td>{_figure(t["value"])}</td>'
        + "".join(f"<td>{escape(_figure(t['params'].get(key)))}</td>" for key in keys)
        + f'<td title="{escape(t["problem"], quote=True)}">{escape(t["state"])}</td>'
        + f"<td>{_figure(t['seconds'])}</td></tr>"
        for t in order
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _picture(drawn: str, title: str, height: float) -> str:
    return f'<svg role="img" aria-label="{title}" viewBox="0 0 {_WIDE} {height}"><title>{title}</title>{drawn}</svg>'


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
