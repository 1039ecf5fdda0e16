"""Page: a report as one HTML file with everything in it; no script, no font, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from genwright.core import Part, shelves

from .plots import bars, gain_against_forgetting, lines
from .report import ARROWS, BESIDE, figure, interval, method_lines, summary, table_rows, with_interval

Facts = dict[str, Any]
_POINTS = 400  # of a curve that are drawn
_NOTE = "↑ more is better, ↓ less is better. Intervals are 95 %; differences by paired bootstrap over the same rows."


def page(
    report: Facts, events: Sequence[Facts] = (), neighbours: Sequence[Facts] = (), folder: Path = Path()
) -> str:  # fmt: skip
    """The page of a report. `events` are the run's, for its loss curves; `neighbours` are reports on the same rows;
    `folder` is where the files lie that the answers name."""
    name = escape(report["name"] or "Evaluation")
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    facts = "".join(f"<span>{escape(line)}</span>" for line in method_lines(report)[:2])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="genwright">
<title>{name} – evaluation</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#scores">Skip to the scores</a>
<header>
<p class="kind">Evaluation</p><h1>{name}</h1>
<p class="lead">{escape(summary(report))}</p>
<p class="facts">{facts}</p>
</header>
<main>
{_section("scores", "Scores", _table(report))}
{_section("plots", "Plots", _grid(_plots(report, events, neighbours)))}
{_section("shots", "Score against examples shown", _shots(report))}
{_section("said", "Answers side by side", "".join(_sample(one, folder) for one in report["samples"]))}
{"".join(_section(one["name"], escape(one["title"]), _sheet(one, folder)) for one in report.get("sheets", ()))}
{_section("how", "How it was done", _method(report))}
</main>
</body>
</html>
"""


def _section(name: str, title: str, inside: str) -> str:
    if not inside:
        return ""
    return f'<section id="{name}" aria-labelledby="h-{name}"><h2 id="h-{name}">{title}</h2>{inside}</section>'


# -- tables ----------------------------------------------------------------------------------------------------------


def _table(report: Facts) -> str:
    if not report["rows"]:
        return f"<p>{escape(' '.join(report['notes']) or 'Nothing was judged.')}</p>"
    columns, rows = table_rows(report)
    body = "".join(_score_row(columns, cells, row) for cells, row in zip(rows, report["rows"], strict=True))
    head = "".join(f'<th scope="col">{escape(column or "verdict")}</th>' for column in columns)
    table = f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div><p class="note">{_NOTE}</p>'


def _score_row(columns: Sequence[str], cells: Sequence[str], row: Facts) -> str:
    """A metric; under the value of each side stands its own interval, unless that has a column."""
    shown = []
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        inside = escape(cell)
        if column == "" and cell:
            inside = f'<span class="verdict {cell.split()[0]}">{inside}</span>'
        if column in ("base", "tuned") and row["base"] and row[column]["low"] is not None:
            inside += f"<small>{escape(interval(row[column]))}</small>"
        if column == BESIDE:
            inside = f"<small>{'<br>'.join(inside.split(' · '))}</small>"
        shown.append(f'<td data-label="{escape(column or "verdict")}">{inside}</td>')
    unit = f"<small>{escape(row['tuned']['unit'])}</small>"
    return f'<tr><th scope="row">{escape(cells[0])}{unit}</th>{"".join(shown)}</tr>'


def _shots(report: Facts) -> str:
    if not report["shots"]:
        return ""
    names = ("metric", "examples shown", "base", "tuned")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(row["metric"])}</th><td>{row["shots"]}</td>'
        f"<td>{escape(with_interval(row['base']))}</td><td>{escape(with_interval(row['tuned']))}</td></tr>"
        for row in report["shots"]
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _sample(sample: Facts, folder: Path) -> str:
    said = "".join(_said(sample, name, folder) for name in ("wanted", "base", "tuned") if sample[name] is not None)
    asked = f'<pre class="asked" tabindex="0">{escape(_clipped(sample["prompt"]))}</pre>'
    return f'<article><h3>Row {sample["row"]}</h3>{asked}<div class="answers">{said}</div></article>'


def _said(sample: Facts, name: str, folder: Path) -> str:
    files = "".join(_file(one, folder) for one in sample.get("files", {}).get(name, ()))
    words = files or f"<pre>{escape(_clipped(sample[name])) or '<em>(nothing)</em>'}</pre>"
    scores = (sample["scores"].get(name) or {}).items()
    told = " · ".join(f"{escape(metric)} {figure(value)}" for metric, value in scores)
    note = f'<p class="note">{told}</p>' if told else ""
    return f'<div class="said {name}"><h4>{name}</h4>{words}{note}</div>'


def _file(part: Facts, folder: Path) -> str:
    """A file of an answer, as its modality shows it on a page."""
    modality = shelves["modalities"].load(part["type"]).modality
    shown: str = modality.html(Part(part["type"], part.get("text", ""), folder / part["path"]))
    return shown


def _sheet(sheet: Facts, folder: Path) -> str:
    """Lines of files, each with its words below."""
    lines = (
        "".join(
            f'<div class="one">{_file(part, folder)}<small>{escape(_clipped(part.get("text", ""), 200))}</small></div>'
            for part in line
        )
        for line in sheet["lines"]
    )
    return f'<div class="sheet">{"".join(f"""<div class="row">{line}</div>""" for line in lines)}</div>'


def _clipped(text: str, most: int = 2000) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def _method(report: Facts) -> str:
    told = "".join(f"<li>{escape(line)}</li>" for line in method_lines(report))
    signatures = "".join(
        f"<dt>{escape(row['metric'])}</dt><dd><code>{escape(row['tuned']['signature'])}</code></dd>"
        for row in report["rows"]
    )
    return f'<ul>{told}</ul><h3>Signatures</h3><dl class="signatures">{signatures}</dl>'


# -- plots -----------------------------------------------------------------------------------------------------------


def _grid(plots: Iterator[str]) -> str:
    inside = "".join(plots)
    return f'<div class="plots">{inside}</div>' if inside else ""


def _plots(report: Facts, events: Sequence[Facts], neighbours: Sequence[Facts]) -> Iterator[str]:
    curves = loss_curves(events)
    if any(curves.values()):
        title, unit = "Loss while tuning", "loss (nats per token)" if report.get("loss") else "loss"
        yield _figure(title, lines(curves, title=title, x="step", y=unit, whole_x=True))
    points = [p for p in (_point(report, here=True), *(_point(n, here=False) for n in neighbours)) if p]
    if points and points[0]["here"]:
        note = "Up is better, left is better; the base model stands at zero."
        if len(points) > 1:
            note += f" Small dots: {len(points) - 1} other runs judged on the same rows."
        title = "Gain against forgetting"
        yield _figure(title, gain_against_forgetting(points, title=title), note)
    for row in report["rows"]:
        title = f"{row['metric']} {ARROWS[row['tuned']['higher_is_better']]}".strip()
        sides = [(side, row[side]["value"], row[side]["low"], row[side]["high"]) for side in _sides(row)]
        yield _figure(title, bars(sides, title=title, unit=row["tuned"]["unit"]))
    for metric in dict.fromkeys(row["metric"] for row in report["shots"]):
        found = [row for row in report["shots"] if row["metric"] == metric]
        by = {s: [(float(r["shots"]), r[s]["value"]) for r in found if r[s]] for s in ("base", "tuned")}
        title = f"{metric} against examples shown"
        yield _figure(title, lines(by, title=title, x="examples shown", y=metric, whole_x=True))


def _sides(row: Facts) -> list[str]:
    return [side for side in ("base", "tuned") if row[side]]


def _figure(title: str, drawn: str, note: str = "") -> str:
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawn}{said}</figure>"


def loss_curves(events: Sequence[Facts]) -> dict[str, list[tuple[float, float]]]:
    """Training and held-out loss by step. A step done again after a resume counts once."""
    sources = {"step": ("training", "loss"), "look": ("held out", "held_out_loss")}
    curves: dict[str, dict[float, float]] = {name: {} for name, _ in sources.values()}
    for event in events:
        name, key = sources.get(event.get("event", ""), ("", ""))
        value = event.get(key) if name else None
        if isinstance(value, (int, float)):
            curves[name][float(event["step"])] = float(value)
    return {name: _thinned(sorted(points.items())) for name, points in curves.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `_POINTS` points: means of equal runs of steps."""
    size = -(-len(points) // _POINTS)
    if size <= 1:
        return points
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(p[0] for p in run) / len(run), sum(p[1] for p in run) / len(run)) for run in runs]


def _point(report: Facts, *, here: bool) -> Facts | None:
    """Where a run stands between gain and forgetting, or None when either is not known."""
    lost = next((row["difference"] for row in report["rows"] if row["metric"] == "forgetting"), None)
    won = (report.get("loss") or {}).get("difference")
    if not lost or not won:
        return None
    gain = tuple(None if won[end] is None else -won[end] for end in ("value", "high", "low"))
    return {"name": report["name"], "here": here, "gain": gain, "lost": (lost["value"], lost["low"], lost["high"])}
