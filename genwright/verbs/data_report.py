"""Data report: what became of every row, in JSON for programs and in Markdown for people."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genwright.core import DataError, Dataset, Example, Part, Run, shelves, write_text

_BAR = 40
_OVERVIEW = 60  # rows at one look


@dataclass
class Filter:
    """What a refiner tells while it works; the `report` that it is handed."""

    name: str
    dropped_file: Any
    rows_in: int = 0
    rows_out: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def entering(self, examples: Iterator[Example]) -> Iterator[Example]:
        for example in examples:
            self.rows_in += 1
            yield example

    def leaving(self, examples: Iterator[Example]) -> Iterator[Example]:
        for example in examples:
            self.rows_out += 1
            yield example

    def drop(self, example: Example, reason: str) -> None:
        """A row goes. Reasons are few and say what to turn; the row's place is kept in dropped.jsonl."""
        self.dropped[reason] += 1
        line = {"where": example.meta.get("where", ""), "refiner": self.name, "reason": reason}
        self.dropped_file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def change(self, example: Example, reason: str) -> None:
        self.changed[reason] += 1

    def note(self, text: str) -> None:
        self.notes.append(text)

    def as_dict(self) -> dict[str, Any]:
        """Counts of rows, most frequent reason first."""
        return {"name": self.name, "rows_in": self.rows_in, "rows_out": self.rows_out,
                "dropped": dict(self.dropped.most_common()), "changed": dict(self.changed.most_common()),
                "notes": self.notes}  # fmt: skip


@dataclass
class Lengths:
    """A histogram of lengths in powers of two: bin k counts lengths of k bits, so 2^(k-1) … 2^k - 1."""

    bins: Counter[int] = field(default_factory=Counter)
    total: int = 0
    count: int = 0
    longest: int = 0

    def add(self, length: int) -> None:
        self.bins[length.bit_length()] += 1
        self.total += length
        self.count += 1
        self.longest = max(self.longest, length)

    def as_dict(self) -> dict[str, Any]:
        """Mean, longest and [lowest, highest, rows] of each bin."""
        filled = range(min(self.bins, default=0), max(self.bins, default=-1) + 1)
        bins = [[(1 << k) >> 1, (1 << k) - 1, self.bins[k]] for k in filled]
        return {"mean": round(self.total / max(1, self.count), 1), "longest": self.longest, "histogram": bins}


def add_token_facts(run: Run, facts: dict[str, Any]) -> None:
    """Add what only the tokenizer knows to the data report of a run, once rows have been encoded.

    `facts` is plain data, e.g. {"rows": 900, "tokens": 51234, "supervised": 20111, "truncated": 3,
    "unsupervised": 1, "max_length": 512}. Raises DataError when the run has no data report.
    """
    path = run.data / "report.json"
    if not path.is_file():
        raise DataError(f"There is no data report at {path}.", "Run `genwright prepare` on the recipe first.")
    write_report(run.data, json.loads(path.read_text(encoding="utf-8")) | {"tokens": facts})


def add_overviews(report: dict[str, Any], folder: Path, train: Dataset, seed: int) -> dict[str, Any]:
    """The report with a look at random training rows for each kind of file among them, as the modality shows it.

    `overviews` is {kind: name of a file in `folder`}.
    """
    found: dict[str, str] = {}
    for kind in report["files"]:
        rows = [
            (part, e) for e in train.sample(_OVERVIEW, seed) for part in e.answer.parts + _asked(e) if part.kind == kind
        ]
        captions = [" · ".join(filter(None, (_words(e), str(e.meta.get("style") or "")))) for _, e in rows]
        shown = shelves["modalities"].load(kind).modality.overview([part for part, _ in rows], captions, folder)
        found |= {kind: shown.name} if shown else {}
    return report | {"overviews": found}


def _asked(example: Example) -> tuple[Part, ...]:
    return tuple(part for message in example.prompt for part in message.parts)


def _words(example: Example) -> str:
    return next((m.text for m in (*reversed(example.prompt), example.answer) if m.text), "")


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write report.json and report.md into `folder`."""
    write_text(folder / "report.json", json.dumps(report, ensure_ascii=False, indent=1))
    write_text(folder / "report.md", markdown(report))


def markdown(report: dict[str, Any]) -> str:
    """The report for people: counts, reasons, lengths as bars, random rows."""
    lines = ["# Data report", "", f"From {report['source']}, {report['rows_read']:,} rows read.", ""]
    for side in ("train", "held_out"):
        facts = report[side]
        lines.append(f"- {side.replace('_', '-')}: {facts['rows']:,} rows, sha256 `{facts['sha256'][:16]}…`")
    lines += [f"- {note}" for note in report["split"]["notes"]]
    lines += ["", "## Rows that could not be read", "", f"{report['rejected']['rows']:,} in `rejected.jsonl`.", ""]
    lines += [f"- {count:,} × {_one_line(reason)}" for reason, count in report["rejected"]["reasons"].items()]
    lines += ["", "## Refiners", "", "| refiner | in | out | dropped | changed |", "|---|---:|---:|---|---|"]
    for one in report["refiners"]:
        lost = "; ".join(f"{count:,} × {_one_line(reason)}" for reason, count in one["dropped"].items())
        mended = "; ".join(f"{count:,} × {_one_line(reason)}" for reason, count in one["changed"].items())
        lines.append(f"| {one['name']} | {one['rows_in']:,} | {one['rows_out']:,} | {lost} | {mended} |")
    lines += [f"- {one['name']}: {note}" for one in report["refiners"] for note in one["notes"]]
    if report["languages"]:
        lines += ["", "## Languages", ""] + [f"- {name}: {count:,}" for name, count in report["languages"].items()]
    rights = [f"- {one['name']}: {one['licence']}. {one['notice']}" for one in report["cards"]]
    rights += [f"- {_one_line(licence)}: {count:,} rows" for licence, count in report["licences"].items()]
    lines += ["", "## Licences", "", *rights] if rights else []
    if report.get("tokens"):
        lines += ["", "## Tokens", ""] + [f"- {name.replace('_', ' ')}: {v}" for name, v in report["tokens"].items()]
    for kind, facts in report["files"].items():
        lines += ["", f"## Files: {kind}", ""]
        lines += [f"- {name}: " + ", ".join(f"{v} {n:,}" for v, n in counts.items()) for name, counts in facts.items()]
        if name := report["overviews"].get(kind):
            lines += ["", f"![random training rows]({name})"]
    for side, units in report["lengths"].items():
        for unit, facts in units.items() if any(facts["longest"] for facts in units.values()) else ():
            lines += ["", f"## {side.capitalize()} length in {unit}", "", *_bars(facts)]
    lines += ["", f"## {len(report['samples'])} random training rows", ""]
    for row in report["samples"]:
        lines += [f"**{row.get('meta', {}).get('where', '')}**", "", *_quoted(row["messages"]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _bars(facts: dict[str, Any]) -> list[str]:
    most = max((count for _, _, count in facts["histogram"]), default=1) or 1
    lines = [f"mean {facts['mean']:,}, longest {facts['longest']:,}", "", "```"]
    for low, high, count in facts["histogram"]:
        span = str(low) if low == high else f"{low:,}–{high:,}"
        lines.append(f"{span:>17} {'█' * round(_BAR * count / most):<{_BAR}} {count:,}")
    return [*lines, "```"]


def _quoted(messages: list[dict[str, Any]]) -> list[str]:
    lines = []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        words = "".join(part.get("text", "") for part in parts if part["type"] == "text")
        short = words if len(words) <= 600 else words[:600] + " …"
        fence = "`" * (1 + max(2, *map(len, re.findall("`+", short)), 0))
        lines += [f"{message['role']}:", *([fence, short, fence] if words else [])]
        lines += [f"\n![{part['type']}](<{part['path']}>)" for part in parts if part.get("path")]
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
