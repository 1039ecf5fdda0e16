"""Report: what an evaluation found, as a table for the terminal, as Markdown, and as one page that needs no network.

Everything shown is made from `report.json` and `events.jsonl`, so a report can be drawn again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genwright.core import Run, UsageError, write_text

COLUMNS = ("metric", "base", "tuned", "difference", "95 % interval", "")
BESIDE = "beside it"
ARROWS = {True: "↑", False: "↓", None: ""}


@dataclass(frozen=True)
class Report:
    """An evaluation as plain data: `facts` is what report.json holds."""

    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Report:
        return cls(json.loads(path.read_text(encoding="utf-8")))

    def as_dict(self) -> dict[str, Any]:
        return self.facts

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One a metric: `metric`, `base`, `tuned` (value, low, high, signature …) and `difference`."""
        return list(self.facts["rows"])

    def score(self, metric: str, side: str = "tuned") -> float | None:
        """The value of a metric, or None when it was not judged."""
        for row in self.rows:
            if row["metric"] == metric and row[side]:
                return float(row[side]["value"])
        return None

    def brief(self) -> list[dict[str, Any]]:
        """Metric and plain values only."""
        return [
            {"metric": r["metric"], "base": r["base"] and r["base"]["value"], "tuned": r["tuned"]["value"]}
            for r in self.rows
        ]

    def sentence(self) -> str:
        """What was found, in one or two sentences."""
        return summary(self.facts)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json, report.md and report.html below `folder`."""
    from .page import page

    folder.mkdir(parents=True, exist_ok=True)
    events = list(Run(folder).events())
    made = {
        "report.json": json.dumps(report.facts, ensure_ascii=False, indent=1),
        "report.md": markdown(report.facts),
        "report.html": page(report.facts, events, _neighbours(report.facts, folder), folder),
    }
    for name, text in made.items():
        write_text(folder / name, text)
    return [folder / name for name in made]


def _neighbours(report: dict[str, Any], folder: Path, *, most: int = 60) -> list[dict[str, Any]]:
    """Reports of the runs beside this one that were judged on the same rows."""
    found = []
    here = folder.resolve()
    for path in sorted(here.parent.glob("*/report.json"))[:most]:
        if path.parent == here:
            continue
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
            if other["data"] == report["data"] and other["rows"]:
                found.append(other)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # no report of ours
    return found


def rebuild(run: Run) -> list[Path]:
    """Draw a run's report again from what was written. Raises UsageError when it has not been judged."""
    if not run.report_file.is_file():
        raise UsageError(f"{run.folder} has not been evaluated.", f"Run `genwright evaluate {run.folder}`.")
    return write_report(Report.load(run.report_file), run.folder)


# -- for the terminal ------------------------------------------------------------------------------------------------


def table_rows(report: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and rows of plain words."""
    columns: tuple[str, ...] = COLUMNS
    rows: list[tuple[str, ...]] = []
    if report["compared"]:
        rows = [_row(row) for row in report["rows"]]
    else:
        columns = ("metric", "tuned", "95 % interval")
        rows = [(_name(row), figure(row["tuned"]["value"]), interval(row["tuned"])) for row in report["rows"]]
    if any(row["tuned"].get("beside") for row in report["rows"]):
        columns = (*columns, BESIDE)
        rows = [(*cells, beside(row["tuned"])) for cells, row in zip(rows, report["rows"], strict=True)]
    return columns, rows


def side_by_side(report: dict[str, Any], *, count: int = 3) -> Iterator[str]:
    """A few answers under each other, then what should be known about the figures."""
    yield ""
    yield summary(report)
    for sample in report["samples"][:count]:
        yield ""
        for name, text in _shown(sample):
            yield f"{name:>7}  {_short(text, 300)}"
    for missing in report["not_judged"]:
        yield f"{missing['metric']} was not judged: {missing['why']}"
    yield from report["notes"]


def _shown(sample: dict[str, Any]) -> list[tuple[str, str]]:
    words = (("asked", "prompt"), ("wanted", "wanted"), ("base", "base"), ("tuned", "tuned"))
    return [(name, sample[key]) for name, key in words if sample[key] is not None]


def summary(report: dict[str, Any]) -> str:
    """
    >>> summary({"rows": [], "compared": True, "counts": {"answered": 0}})
    'Nothing was judged.'
    """
    rows = report["rows"]
    if not rows:
        return "Nothing was judged."
    if not report["compared"]:
        return f"{len(rows)} metrics of the tuned model on {report['counts']['answered']:,} held-out answers."
    by = {v: [r["metric"] for r in rows if (r["difference"] or {}).get("verdict") == v] for v in ("better", "worse")}
    unclear = [r["metric"] for r in rows if (r["difference"] or {}).get("verdict") == "no clear difference"]
    parts = [f"better in {_listed(by['better'])}"] if by["better"] else []
    parts += [f"worse in {_listed(by['worse'])}"] if by["worse"] else []
    parts += [f"not clearly different in {_listed(unclear)}"] if unclear else []
    return f"Tuned beside base on the same held-out rows: {'; '.join(parts) or 'no difference could be told'}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['metric']} {ARROWS[row['tuned']['higher_is_better']]}".strip()


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    base, difference = row["base"], row["difference"] or {}
    ends = [figure(difference.get(end), sign=True) for end in ("low", "high")]
    return (
        _name(row),
        figure(base["value"]) if base else "–",
        figure(row["tuned"]["value"]),
        figure(difference.get("value"), sign=True),
        " … ".join(ends) if difference.get("low") is not None else "–",
        difference.get("verdict", ""),
    )


def beside(score: dict[str, Any]) -> str:
    """Floors, ceilings and baselines of a score in words.

    >>> beside({"beside": {"true pictures": 1.5, "chance": 0.04}})
    'true pictures 1.50 · chance 0.040'
    """
    return " · ".join(f"{label} {figure(value)}" for label, value in (score.get("beside") or {}).items())


def interval(score: dict[str, Any] | None) -> str:
    """A score's own 95 % interval in words."""
    if not score or score["low"] is None:
        return "–"
    return f"{figure(score['low'])} … {figure(score['high'])}"


def figure(value: float | None, *, sign: bool = False) -> str:
    """
    >>> figure(0.12345), figure(-12.345, sign=True), figure(4321.0), figure(None)
    ('0.123', '−12.35', '4,321', '–')
    """
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def _short(text: str, most: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


# -- Markdown --------------------------------------------------------------------------------------------------------


def markdown(report: dict[str, Any]) -> str:
    """The report as a Markdown page, pipes and line breaks kept from breaking its tables."""
    columns, rows = table_rows(report)
    out = [f"# {report['name'] or 'Evaluation'}", "", summary(report), ""]
    if rows:
        out += [_md_row(columns), _md_row(["---"] * len(columns)), *map(_md_row, rows), ""]
        out += ["↑ more is better, ↓ less is better. Intervals: 95 %, paired bootstrap over rows.", ""]
    if report["shots"]:
        out += [
            "## Score against examples shown",
            "",
            _md_row(("metric", "shots", "base", "tuned")),
            _md_row(["---"] * 4),
        ]
        out += [
            _md_row((row["metric"], str(row["shots"]), with_interval(row["base"]), with_interval(row["tuned"])))
            for row in report["shots"]
        ]
        out += [""]
    if report["samples"]:
        out += ["## Answers side by side", ""]
    for sample in report["samples"]:
        out += [_md_row(("", "")), _md_row(["---"] * 2), *map(_md_row, _shown(sample)), ""]
    out += ["## How it was done", ""]
    out += [f"- {line}" for line in method_lines(report)]
    out += [f"- `{r['metric']}`: `{r['tuned']['signature']}`" for r in report["rows"]]
    return "\n".join(out) + "\n"


def _md_row(cells: Sequence[str]) -> str:
    kept = (c.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>") for c in cells)
    return f"| {' | '.join(kept)} |"


def with_interval(score: dict[str, Any] | None) -> str:
    """A score's value with its interval behind it."""
    if not score:
        return "–"
    return figure(score["value"]) + (f" ({interval(score)})" if score["low"] is not None else "")


def method_lines(report: dict[str, Any]) -> list[str]:
    """What was judged, on what, and what should be known about it, a sentence a line."""
    counts, data = report["counts"], report["data"]
    took = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in report["seconds"].items())
    lines = [
        f"Model {report['model'] or 'from random weights'}, method {report['method']}, task {report['task']}, "
        f"seed {report['seed']}.",
        f"{counts['train']:,} training rows, {counts['held_out']:,} held-out rows, {counts['answered']:,} answered, "
        f"{counts['general']:,} general rows.",
        f"Data: train sha256 {data['train'][:16]}…, held-out sha256 {data['held_out'][:16]}….",
        f"General text: {data['general']}.",
        "Answers are those of the bare models, without guards or marks.",
    ]
    lines += [f"Time: {took}."] if took else []
    lines += [f"{m['metric']} was not judged: {m['why']}" for m in report["not_judged"]]
    return lines + report["notes"]
