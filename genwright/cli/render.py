"""Render: how the command line shows things: tables and words on stdout, progress on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from genwright.core import Tell


class Screen:
    """What a command writes to. With `as_json` only the result is printed, at the end, by `finish`."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False):
        self.as_json = as_json
        # A pipe has no width of its own: nothing is folded there before 200 columns.
        self.out = Console(quiet=as_json, highlight=False, width=None if sys.stdout.isatty() else 200)
        self.err = Console(stderr=True, highlight=False)
        self.tell: Tell = Tell() if quiet else Bars(self.err) if self.err.is_terminal else Lines()

    def say(self, text: str = "", *, style: str = "") -> None:
        self.out.print(escape(text), style=style or None)

    def stream(self, text: str) -> None:
        """A piece of an answer, at once and as it is."""
        if not self.as_json:
            sys.stdout.write(text)
            sys.stdout.flush()

    def show(self, modality: Any, part: Any) -> None:
        """A file as this terminal can show it: drawn, or not at all."""
        if not self.as_json and self.out.is_terminal and (drawn := modality.terminal(part, os.environ, self.out.width)):
            sys.stdout.write(drawn)
            sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", note: str = "") -> None:
        """A table of plain values; figures are set to the right."""
        rows = [[_cell(value) for value in row] for row in rows]
        table = Table(title=title or None, caption=note or None, title_justify="left", caption_justify="left", box=None)
        for number, name in enumerate(columns):
            right = bool(rows) and all(_is_figure(row[number]) for row in rows)
            table.add_column(
                name, justify="right" if right else "left", overflow="fold", header_style="bold", no_wrap=number == 0
            )
        for row in rows:
            table.add_row(*(escape(value) for value in row))
        self.out.print(table)

    def finish(self, result: Any) -> None:
        if isinstance(self.tell, Bars):
            self.tell.close()
        if self.as_json:
            sys.stdout.write(json.dumps(result, ensure_ascii=False, default=str) + "\n")


class Bars(Tell):
    """Progress on a terminal: one bar a stage, with what is left of the time."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True), TextColumn("{task.fields[facts]}"), console=console,
        )  # fmt: skip
        self.task: TaskID | None = None

    def stage(self, title: str, total: float | None = None) -> None:
        self._end_stage()
        self.progress.start()
        self.task = self.progress.add_task(escape(title), total=total, facts="")

    def advance(self, amount: float = 1, **facts: Any) -> None:
        if self.task is not None:
            self.progress.update(self.task, advance=amount)
            if facts:
                self.progress.update(self.task, facts=escape(_facts(facts)))

    def note(self, text: str) -> None:
        self.progress.console.print(escape(text), style="dim")

    def close(self) -> None:
        self._end_stage()
        self.progress.stop()

    def _end_stage(self) -> None:
        if self.task is not None:
            task = self.progress.tasks[self.progress.task_ids.index(self.task)]
            if task.total is None:
                self.progress.update(self.task, total=task.completed or 1, completed=task.completed or 1)


class Lines(Tell):
    """Progress where there is no terminal: a line a stage, and one every ten seconds of a long one."""

    def __init__(self) -> None:
        self.title, self.done = "", 0.0
        self.total: float | None = None
        self.began = self.last = time.monotonic()

    def stage(self, title: str, total: float | None = None) -> None:
        self.title, self.total, self.done = title, total, 0.0
        self.began = self.last = time.monotonic()
        print(title, file=sys.stderr, flush=True)

    def advance(self, amount: float = 1, **facts: Any) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last < 10:
            return
        self.last = now
        left = ""
        if self.total and self.done:
            seconds = (now - self.began) * max(0.0, self.total - self.done) / self.done
            left = f", {seconds:.0f} s left"
        share = f"{self.done:,.0f}/{self.total:,.0f}" if self.total else f"{self.done:,.0f}"
        print(f"  {self.title}: {share}{left} {_facts(facts)}".rstrip(), file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)


def figure(value: Any) -> str:
    """A number as a person writes it: 0.1234, 12.3, 1,234."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    size = abs(value)
    return (
        f"{value:,.0f}"
        if size >= 1000
        else f"{value:.1f}"
        if size >= 100
        else f"{value:.2f}"
        if size >= 1
        else f"{value:.3f}"
    )


def size(count: int) -> str:
    """Bytes as a person writes them."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _facts(facts: dict[str, Any]) -> str:
    return "  ".join(f"{name} {figure(value)}" for name, value in facts.items())


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else figure(value)


def _is_figure(text: str) -> bool:
    return bool(text) and (text == "–" or text.lstrip("+-−").replace(",", "").replace(".", "").split(" ")[0].isdigit())
