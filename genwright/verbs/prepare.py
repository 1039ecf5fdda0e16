"""Prepare: rows from wherever they lie become the training and held-out conversations of a run, with a report.

source → columns and templates → conversation → files → refiners → task's frame → split by hash → decontamination →
run/data. Rows stream; only their hashes stay in memory. What is no text lies in run/data/files and is asked of its
modality. A row that cannot be read is written to rejected.jsonl with its place and
the reason, one that a refiner drops to dropped.jsonl. run/data appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from genwright.core import (
    SILENT,
    Bad,
    Card,
    Chosen,
    DataError,
    Dataset,
    Example,
    Message,
    Recipe,
    Row,
    Run,
    Tell,
    UsageError,
    find_card,
    fingerprint,
)
from genwright.core.home import locked
from genwright.core.recipe import Data
from genwright.core.rows import KEPT, read_row
from genwright.core.words import identity, text_of

from .data_report import Filter, Lengths, add_overviews, add_token_facts, write_report
from .landing import Landing, is_as_it_was
from .split import Keys, held_out_rows, shared_with

__all__ = ["Prepared", "add_token_facts", "prepare"]

_FORMAT = 2  # of run/data; a change makes every run prepare anew
_FIRST_LOOK = 20  # rows before the rate of malformed ones means anything
_NAMED = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True)
class Prepared:
    """What a run learns from and is judged on, both read from disk row by row. `report` is run/data/report.json."""

    train: Dataset
    held_out: Dataset
    report: dict[str, Any]


def prepare(recipe: Recipe, run: Run, *, tell: Tell = SILENT) -> Prepared:
    """Fill run/data with train.jsonl, held_out.jsonl, rejected.jsonl, dropped.jsonl, report.json and report.md.

    Nothing is done anew when neither the recipe's data, refiners, task and seed nor the files have changed.
    Raises DataError: no rows, too many malformed ones, nothing left to learn, disk full; UsageError: unknown card.
    """
    data = recipe.data
    if bool(data.prompt) != bool(data.completion) and (data.completion or recipe.task.thing.gives == "text"):
        raise UsageError("`data.prompt` and `data.completion` are templates that need each other.", "Give both.")
    with locked(run.folder / ".prepare.lock", waiting=lambda: tell.note("Another process prepares this run.")):
        source = _resolved(data.source, tell)
        aside = _resolved(data.held_out_data, tell) if data.held_out_data else None
        key = _inputs(recipe, [source, *([aside] if aside else [])])
        report = _done_before(run, key)
        if report is None:
            with _new_folder(run) as folder:
                report = _prepare(recipe, source, aside, folder, run, tell) | {"fingerprint": key}
                write_report(folder, report)
            run.mark_done("prepare", key)
            facts = {side: report[side] for side in ("train", "held_out")}
            run.log("prepared", rows_read=report["rows_read"], rejected=report["rejected"]["rows"], **facts)
        else:
            tell.note(f"Data is as it was: {report['train']['rows']:,} rows to learn from.")
    return Prepared(Dataset.open(run.data / "train.jsonl"), Dataset.open(run.data / "held_out.jsonl"), report)


def _prepare(
    recipe: Recipe, source: Chosen, aside: Chosen | None, folder: Path, run: Run, tell: Tell
) -> dict[str, Any]:
    data = recipe.data
    landing = Landing(folder / "files", run.data / "files")
    with ExitStack() as files:
        rejected, dropped = (files.enter_context((folder / f"{f}.jsonl").open("wb")) for f in ("rejected", "dropped"))
        book = _Book(data.max_bad_rate, rejected, dropped)
        kept = _kept(source, recipe, book, landing, folder / "rows.jsonl", tell)
        held = _kept(aside, recipe, book, landing, folder / "held_out.jsonl", tell) if aside else None
        book.must_be_good()
        if not len(kept):
            raise _nothing_left(source, book)
        if held is None:
            mask, notes = held_out_rows(kept, data.held_out, recipe.seed)
            _deal(folder, mask)
        else:
            mask, notes = shared_with(kept, held), []
            _without(folder, mask, book, "its question or all of it is among the held-out rows")
        (folder / "rows.jsonl").unlink()
        _after_split(recipe, folder, book, landing, tell)
    train, held_out = Dataset.open(folder / "train.jsonl"), Dataset.open(folder / "held_out.jsonl")
    if not len(train):
        raise _nothing_left(source, book)
    landing.finish([train, held_out])
    report = {
        "source": _said(source), "rows_read": book.read, "rejected": book.as_dict(),
        "refiners": [one.as_dict() for one in book.filters],
        "split": {"held_out": data.held_out if held is None else _said(aside), "seed": recipe.seed, "notes": notes},
        "train": {"rows": len(train), "sha256": train.fingerprint},
        "held_out": {"rows": len(held_out), "sha256": held_out.fingerprint},
        "lengths": {side: {u: found.as_dict() for u, found in units.items()} for side, units in book.lengths.items()},
        "languages": dict(book.languages.most_common()), "licences": dict(book.licences.most_common(100)),
        "cards": _card_facts(data.source), "tokens": None,
        "samples": [example.as_dict(landing.relative) for example in train.sample(20, recipe.seed)],
        "files": landing.as_dict(),
    }  # fmt: skip
    return add_overviews(report, folder, train, recipe.seed)


# -- reading ---------------------------------------------------------------------------------------------------------


def _kept(source: Chosen | None, recipe: Recipe, book: _Book, landing: Landing, path: Path, tell: Tell) -> Keys:
    """Read, refine and frame the rows of a source into `path`; returns the hashes of those that are kept."""
    assert source is not None
    examples: Iterator[Example] = _examples(source, recipe, book, landing, tell)
    for refiner in recipe.refine:
        if not getattr(refiner.module, "after_split", False):
            examples = book.refined(refiner, examples)
    frame, settings, keys = recipe.task.thing.framed, recipe.task.settings, Keys()
    with path.open("wb") as file:
        for example in examples:
            try:
                framed = frame(example, settings)
                line = orjson.dumps(framed.as_dict(landing.relative))
            except (ValueError, TypeError) as error:  # a frame's objection, or a meta value that JSON does not know
                book.reject(Bad(str(example.meta.get("where", "")), str(error), text_of(example.messages)[:300]))
                continue
            file.write(line + b"\n")
            asked = [m for m in framed.prompt if m.role != "system"]
            # Equal words have many pictures: only what they share besides (copies, `group`) binds these.
            question = identity(asked) if asked and not framed.answer.has_files else 0
            keys.add(question, identity(framed.messages), framed.meta.get("group"))
            book.measure(text_of(asked), framed.answer.text, framed.meta)
    return keys


def _examples(source: Chosen, recipe: Recipe, book: _Book, landing: Landing, tell: Tell) -> Iterator[Example]:
    """The rows of a source as conversations that end in an answer, with their files; the others go to the book."""
    data, gives = recipe.data, recipe.task.thing.gives
    tell.stage("Reading rows", data.limit)
    plain = not (data.columns or data.prompt)
    rows = ((_base_of(part), row) for part in _parts(source) for row in part())
    for number, (base, row) in enumerate(rows, 1):
        book.read += 1
        if number % 1000 == 0:
            tell.advance(1000, rejected=book.rejected)
        if isinstance(row, Bad):
            book.reject(row)
        else:
            try:
                messages, meta = read_row(row.fields if plain else _mapped(row, data), gives)
                _must_teach(messages, meta)
                example = landing.land(Example(messages, meta | {"where": row.where}), base)
            except ValueError as error:
                book.reject(Bad(row.where, str(error), _shown(row.fields)))
            else:
                yield example
        if number == data.limit:
            break
    tell.advance(book.read % 1000, rejected=book.rejected)
    if not book.read:
        raise DataError(f"There are no rows in {_said(source)}.", "Is it the right file? It is empty.")


def _mapped(row: Row, data: Data) -> dict[str, Any]:
    """The row's fields with their columns renamed, and put through the templates. Raises ValueError."""
    fields = {data.columns.get(name, name): value for name, value in row.fields.items() if name not in data.columns}
    fields |= {data.columns[name]: value for name, value in row.fields.items() if name in data.columns}
    if not data.prompt:
        return fields

    def fill(template: str) -> str:
        def value(match: re.Match[str]) -> str:
            if match[1] not in fields:
                raise ValueError(f"the template names {{{match[1]}}}, but the row has {sorted(map(str, fields))[:12]}")
            found = fields[match[1]]
            return found if isinstance(found, str) else "" if found is None else str(found)

        return _NAMED.sub(value, template)

    others = {name: fields[name] for name in KEPT if name in fields}
    told = {"completion": fill(data.completion)} if data.completion else {}  # a picture is its own
    return others | {"prompt": fill(data.prompt)} | told


def _shown(fields: dict[str, Any]) -> str:
    """The first characters of a row; bytes are counted, not shown."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        return f"<{len(value):,} bytes>" if isinstance(value, bytes) else value

    return str(short(fields))[:300]


def _must_teach(messages: Sequence[Message], meta: dict[str, Any]) -> None:
    answer = messages[-1]
    if answer.role != "assistant":
        raise ValueError(f"the last message is by the {answer.role}, so there is no answer to learn")
    if not answer.text.strip() and all(part.kind == "text" for part in answer.parts):
        raise ValueError("the answer is empty")
    if meta.get("rejected") == answer:
        raise ValueError("the chosen and the rejected answer are the same")


# -- splitting -------------------------------------------------------------------------------------------------------


def _deal(folder: Path, held: Any) -> None:
    """Copy rows.jsonl to the two sides."""
    with (
        (folder / "rows.jsonl").open("rb") as rows,
        (folder / "train.jsonl").open("wb") as train,
        (folder / "held_out.jsonl").open("wb") as held_out,
    ):
        for line, aside in zip(rows, held.tolist(), strict=True):
            (held_out if aside else train).write(line)


def _without(folder: Path, gone: Any, book: _Book, reason: str) -> None:
    """Copy rows.jsonl to the training side, but for the rows that are `gone`."""
    report = Filter("held_out_data", book.dropped)
    with (folder / "rows.jsonl").open("rb") as rows, (folder / "train.jsonl").open("wb") as train:
        for line, drop in zip(rows, gone.tolist(), strict=True):
            report.rows_in += 1
            if drop:
                report.drop(Example.from_dict(orjson.loads(line)), reason)
            else:
                report.rows_out += 1
                train.write(line)
    book.filters.append(report)


def _after_split(recipe: Recipe, folder: Path, book: _Book, landing: Landing, tell: Tell) -> None:
    """Refiners that must see what is held out, such as decontamination, work on the training rows alone."""
    train = folder / "train.jsonl"
    for refiner in recipe.refine:
        if getattr(refiner.module, "after_split", False):
            tell.stage(f"{refiner.name}: training rows against held-out ones")
            held_out = Dataset.open(folder / "held_out.jsonl")
            before = Dataset.open(train)
            with (folder / "train.next").open("wb") as file:
                for example in book.refined(refiner, iter(before), held_out=held_out):
                    file.write(orjson.dumps(example.as_dict(landing.relative)) + b"\n")
            os.replace(folder / "train.next", train)


# -- the book: what became of every row ------------------------------------------------------------------------------


@dataclass
class _Book:
    """Counts every row and keeps the places of those that are lost."""

    max_bad_rate: float
    rejected_file: BinaryIO
    dropped: BinaryIO
    read: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)
    filters: list[Filter] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, dict[str, Lengths]] = field(
        default_factory=lambda: {s: {u: Lengths() for u in ("characters", "words")} for s in ("prompt", "answer")}
    )

    def reject(self, bad: Bad) -> None:
        """Write a malformed row down with its reason. Raises DataError when there are too many."""
        self.rejected += 1
        self.reasons[re.sub(r"\d+", "N", bad.reason)[:120]] += 1
        self.first += [f"{bad.where}: {bad.reason}"] if len(self.first) < 3 else []
        line = {"where": bad.where, "reason": bad.reason, "raw": bad.raw[:300]}
        self.rejected_file.write(json.dumps(line).encode() + b"\n")
        if self.read >= _FIRST_LOOK:
            self.must_be_good()

    def must_be_good(self) -> None:
        if self.rejected > self.max_bad_rate * self.read:
            first = "".join(f"\n  {line[:200]}" for line in self.first)
            raise DataError(
                f"{self.rejected:,} of {self.read:,} rows are malformed, more than max_bad_rate allows "
                f"({self.max_bad_rate:.0%}):{first}",
                "All are listed in data/rejected.jsonl of the run. Mend them, or raise data.max_bad_rate.",
            )

    def refined(self, refiner: Chosen, examples: Iterator[Example], **more: Any) -> Iterator[Example]:
        """A refiner's work, counted."""
        report = Filter(refiner.name, self.dropped)
        self.filters.append(report)
        return report.leaving(refiner.thing(report.entering(examples), refiner.settings, report=report, **more))

    def measure(self, prompt: str, answer: str, meta: dict[str, Any]) -> None:
        for side, text in (("prompt", prompt), ("answer", answer)):
            self.lengths[side]["characters"].add(len(text))
            self.lengths[side]["words"].add(len(text.split()))
        if language := meta.get("language") or meta.get("lang"):
            self.languages[str(language)] += 1
        if licence := meta.get("licence"):
            self.licences[": ".join(str(one) for one in (licence, meta.get("attribution")) if one)] += 1

    def as_dict(self) -> dict[str, Any]:
        """What was malformed, with the commonest reasons."""
        return {"rows": self.rejected, "file": "rejected.jsonl", "reasons": dict(self.reasons.most_common(20))}


def _nothing_left(source: Chosen, book: _Book) -> DataError:
    lines = [f"\n  {book.rejected:,} could not be read"] if book.rejected else []
    for one in book.filters:
        lines += [f"\n  {one.name} dropped {count:,}: {reason}" for reason, count in one.dropped.most_common(5)]
    return DataError(
        f"Nothing is left to learn of the {book.read:,} rows in {_said(source)}:{''.join(lines)}",
        "Loosen the refiner that dropped most, or give more data.",
    )


# -- inputs and folders ----------------------------------------------------------------------------------------------


def _resolved(source: Chosen, tell: Tell) -> Chosen:
    """The source itself, or for a card the source that it names, with its files fetched."""
    if not hasattr(source.module, "resolve"):
        return source
    from .models import pull

    def fetch(card: Card) -> Path:
        return pull(card, tell=tell)

    resolved: Chosen = source.module.resolve(source.settings, fetch)
    return resolved


def _parts(source: Chosen) -> list[Chosen]:
    """The source itself, or those that it puts together."""
    found = getattr(source.module, "parts", None)
    return [inner for one in found(source.settings) for inner in _parts(one)] if found else [source]


def _card_facts(source: Chosen) -> list[dict[str, str]]:
    cards = [find_card(one.settings.card) for one in _parts(source) if one.name == "card"]
    return [{"name": card.name, "licence": card.licence, "notice": card.notice} for card in cards]


def _base_of(source: Chosen) -> Path:
    """Where relative paths in a source's rows lead from: the folder that it reads, or that of the file."""
    given = dict(source.settings).get("path")
    if not isinstance(given, Path):
        return Path.cwd()
    fixed = next((p for p in (given, *given.parents) if not set(str(p)) & set("*?[")), given)
    return (fixed if fixed.is_dir() else fixed.parent).resolve()


def _inputs(recipe: Recipe, sources: Sequence[Chosen]) -> str:
    plain = recipe.as_dict()
    parts = {part: plain.get(part) for part in ("data", "refine", "task")}
    return fingerprint(_FORMAT, recipe.seed, parts, [[s.as_dict(), *map(_files_of, _parts(s))] for s in sources])


def _files_of(source: Chosen) -> list[list[Any]]:
    """What is known of every file that a source names: its content's hash, above 64 MB its size and time."""
    facts = []
    for path in (value for value in dict(source.settings).values() if isinstance(value, Path)):
        for one in _expanded(path):
            status = one.stat()
            small = status.st_size <= 64_000_000
            known = hashlib.sha256(one.read_bytes()).hexdigest() if small else [status.st_size, status.st_mtime_ns]
            facts.append([str(one), known])
    return facts


def _expanded(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file())
    if path.exists():
        return [path] if os.access(path, os.R_OK) else []
    fixed = next((p for p in path.parents if not set(str(p)) & set("*?[")), path)
    return sorted(p for p in fixed.glob(str(path.relative_to(fixed))) if p.is_file()) if fixed != path else []


def _said(source: Chosen | None) -> str:
    if source is None:
        return ""
    named = [v.name for part in _parts(source) for v in dict(part.settings).values() if isinstance(v, Path)]
    return f"{source.name} {', '.join(named)}".strip()


def _done_before(run: Run, key: str) -> dict[str, Any] | None:
    """The report of an earlier, finished preparation with the same inputs."""
    files = [run.data / name for name in ("train.jsonl", "held_out.jsonl", "report.json")]
    if not run.is_done("prepare", key) or not all(file.is_file() for file in files):
        return None
    report: dict[str, Any] = json.loads(files[-1].read_text(encoding="utf-8"))
    return report if report.get("fingerprint") == key and is_as_it_was(run.data) else None


def _to_disk(files: Sequence[Path]) -> None:
    """Many files at once where the system can: one by one took 4 ms each."""
    if len(files) > 100 and hasattr(os, "sync"):
        os.sync()
        return
    for path in files:
        with path.open("rb") as written:
            os.fsync(written.fileno())


@contextmanager
def _new_folder(run: Run) -> Iterator[Path]:
    """A folder that becomes run/data at once when all went well. When not, the rejected rows are still kept."""
    folder, old = run.folder / ".data.new", run.folder / ".data.old"
    try:
        for left_over in (folder, old):
            shutil.rmtree(left_over, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        _to_disk([path for path in folder.rglob("*") if path.is_file()])
        if run.data.exists():
            os.rename(run.data, old)
        os.rename(folder, run.data)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"The prepared data could not be written to {run.data}: {error.strerror or error}.",
            "Make room or choose another folder with --out; a second run begins anew.",
        ) from None
    finally:
        if (folder / "rejected.jsonl").is_file():
            with suppress(OSError):
                run.data.mkdir(exist_ok=True)
                os.replace(folder / "rejected.jsonl", run.data / "rejected.jsonl")
        shutil.rmtree(folder, ignore_errors=True)
