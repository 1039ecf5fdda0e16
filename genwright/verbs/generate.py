"""Generate: the only place where a model answers, so the only place where guards stand.

The request is looked at first: a guard may redact it or refuse it. Then the answer streams through a window: text
leaves only when no guard could still object to it, so not one character of a blocked or redacted span gets out, however
the model cuts its answer. Parts that are no text (pictures, sound) pass the guards whole. Each answer leaves a row in
the ledger: complete, refused, cancelled or failed. When a guard fails or takes too long, the answer is refused, unless
its `on_error` is `allow`.

A refusal in the middle of a stream is raised after what was already clean; a server then ends with `content_filter`.

The words of an answer do not wait for the ledger's disk (4 ms here), its end does: what says that an answer is complete
(`finish_reason`) leaves when its row is written. Log-probabilities leave with the words that they are of; where a guard
takes words out, those of the piece around them do not leave at all.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from genwright.core import (
    SILENT,
    Batched,
    Chosen,
    Finding,
    GenwrightError,
    Message,
    Model,
    Part,
    Provenance,
    Refused,
    Request,
    Run,
    Tell,
    UsageError,
    Verdict,
    user,
    write_text,
)
from genwright.trust.ledger import Ledger

_CONTEXT = 400  # characters already sent that a guard still sees, to know what stands before


def generate(
    model: Model,
    request: Request,
    *,
    guards: Sequence[Chosen] = (),
    marks: Sequence[Chosen] = (),
    provenance: Provenance = Provenance(),  # noqa: B008 (frozen)
    ledger: Ledger | Path | None = None,
    model_name: str = "",
    purpose: str = "answer",
    run: Run | None = None,
) -> Iterator[Part]:
    """Stream an answer, guarded, marked and recorded. Text comes as deltas.

    `ledger` is a ledger or its path; None is the user's own. `purpose` is noted in it. The events of the `run` that
    the model came from get a line too, where they can be written. Closing the iterator early stops the model. Raises
    Refused (guard, rule and hint) and whatever the model raises.
    """
    if request.options and not hasattr(model, "options"):
        raise UsageError(f"This model knows no options, and was given {', '.join(request.options)}.", "Leave them out.")
    end: dict[str, Any] = {}
    with _Hall(guards, provenance, ledger, model_name, purpose, run) as hall:
        request = hall.checked_request(request, _unlike(model))
        with closing(_marked(hall.guarded(model.generate(request)), marks, hall.provenance)) as parts:
            for part in parts:
                hall.note_file(part)
                part, facts = _without_end(part)
                end |= facts
                if part.text or part.path or part.meta:
                    yield part
        hall.outcome = "complete"
    if end:
        yield Part(meta=end)


def answer(model: Model, request: Request, **more: Any) -> Message:
    """The whole answer at once; `more` as for `generate`. Neighbouring pieces of text are joined."""
    parts: list[Part] = []
    for part in generate(model, request, **more):
        if part.kind == "text" and part.path is None and parts and parts[-1].kind == "text" and parts[-1].path is None:
            parts[-1] = replace(parts[-1], text=parts[-1].text + part.text, meta=_merged(parts[-1], part))
        else:
            parts.append(part)
    return Message("assistant", tuple(parts))


def generate_many(
    model: Model,
    requests: Sequence[Request],
    *,
    guards: Sequence[Chosen] = (),
    provenance: Provenance = Provenance(),  # noqa: B008 (frozen)
    ledger: Ledger | Path | None = None,
    model_name: str = "",
    purpose: str = "evaluation",
) -> Iterator[tuple[int, Message]]:
    """Yield (index, answer) as they are ready, for evaluation. Without guards a model that can do so works in batches.

    A refused request's answer is an empty text whose meta says {"refused": guard, "rule": rule}.
    """
    facts: dict[str, Any] = {"ledger": ledger, "model_name": model_name, "purpose": purpose}
    if guards or not isinstance(model, Batched):
        for index, request in enumerate(requests):
            try:
                yield index, answer(model, request, guards=guards, provenance=provenance, **facts)
            except Refused as refusal:
                meta = {"refused": refusal.guard, "rule": refusal.rule}
                yield index, Message("assistant", (Part(meta=meta),))
        return
    with closing(_closable(model.generate_many(requests))) as answers:
        for index, message in answers:
            with _Hall((), provenance, ledger, model_name, purpose) as hall:
                hall.note_request(requests[index])
                for part in message.parts:
                    hall.note_sent(part)
                    hall.note_file(part)
                hall.outcome = "complete"
            yield index, message


def write_labelled(
    text: str, path: Path, *, marks: Sequence[Chosen] = (), provenance: Provenance = Provenance(), tell: Tell = SILENT  # noqa: B008
) -> Path:  # fmt: skip
    """Write an answer to a file with its labels (each mark sees the file when it is there; provenance comes last).

    Raises UsageError when the file cannot be written.
    """
    provenance = _dated(provenance)
    part = Part(text=text, path=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        for mark in sorted(marks, key=_comes_last):
            part = mark.thing(part, provenance, mark.settings)
            if warning := getattr(mark.module, "warning", lambda _: "")(mark.settings):
                tell.note(warning)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror}.", "Choose another place, or make room."
        ) from None
    return path


# -- the hall: what every answer passes -------------------------------------------------------------------------------


@dataclass
class _Hall:
    """One answer on its way: checks it, counts it, and writes its row in the ledger whatever happens."""

    guards: Sequence[Chosen]
    provenance: Provenance
    ledger: Ledger | Path | None
    model_name: str
    purpose: str
    run: Run | None = None
    outcome: str = "failed"
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> _Hall:
        self.ledger = self.ledger if isinstance(self.ledger, Ledger) else Ledger(self.ledger)
        self.ledger.check_writable()
        self.provenance = _dated(self.provenance, self.model_name)
        self.started = time.monotonic()
        self.asked: dict[str, Any] = {}
        self.said, self.chars = hashlib.sha256(), 0
        self.files: list[str] = []  # sha256 of each file as it left
        self.workers = ThreadPoolExecutor(1, "guard") if self.guards else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.workers:
            self.workers.shutdown(wait=False, cancel_futures=True)
        if isinstance(error, Refused):
            self.outcome = "refused"
        elif kind in (GeneratorExit, KeyboardInterrupt):
            self.outcome = "cancelled"
        assert isinstance(self.ledger, Ledger)
        self.ledger.append(
            "answer", request_id=self.provenance.request_id, model=self.model_name, purpose=self.purpose,
            outcome=self.outcome, error=kind.__name__ if kind and self.outcome == "failed" else "",
            request=self.asked, answer={"sha256": self.said.hexdigest(), "chars": self.chars, "files": self.files},
            guards=[chosen.name for chosen in self.guards], verdicts=self.verdicts,
            provenance=self.provenance.as_dict(), ms=round((time.monotonic() - self.started) * 1000),
        )  # fmt: skip
        if self.run:
            with suppress(OSError):  # the ledger has it; a run may lie where nothing can be written
                self.run.log("answer", request_id=self.provenance.request_id, outcome=self.outcome,
                             request=self.asked.get("sha256"), answer=self.said.hexdigest(),
                             provenance=self.provenance.as_dict())  # fmt: skip

    # the request

    def checked_request(self, request: Request, unlike: Sequence[str] = ()) -> Request:
        """The request as the guards let it pass, words in its options too, but for those that say what an answer should
        be `unlike`. Raises Refused."""
        self.note_request(request)
        guards = [g for g in self.guards if "request" in _sides(g)]
        if not guards:
            return request
        messages = tuple(self._message(m, guards) for m in request.messages)
        options = {
            name: self._message(user(value), guards).text
            if value and isinstance(value, str) and name not in unlike
            else value
            for name, value in request.options.items()
        }
        return request.model_copy(update={"messages": messages, "options": options})

    def note_request(self, request: Request) -> None:
        plain = json.dumps([message.as_dict() for message in request.messages]).encode()
        chars = sum(len(message.text) for message in request.messages)
        self.asked = {"sha256": hashlib.sha256(plain).hexdigest(), "messages": len(request.messages), "chars": chars}

    def _message(self, message: Message, guards: Sequence[Chosen]) -> Message:
        parts = message.parts
        text = "".join(part.text for part in parts)
        cuts: list[_Cut] = []
        for guard in guards:
            verdict = self.look(guard, parts, "request", len(text))
            if verdict.findings or verdict.action != "allow":
                self.note_verdict(guard, "request", verdict.action, _rules(verdict))
            if verdict.action == "block":
                raise _refusal("The request", guard, verdict)
            if verdict.action == "redact":
                cuts += [(f.start, f.end, _stand_in(verdict, f)) for f in verdict.findings]
        return replace(message, parts=_cut_parts(parts, cuts)) if cuts else message

    # the answer

    def guarded(self, parts: Iterator[Part]) -> Iterator[Part]:
        """Let out what no guard objects to. Closing it closes the model's iterator."""
        guards = [g for g in self.guards if "answer" in _sides(g)]
        with closing(_closable(parts)) as source:
            if not guards:
                for part in source:
                    self.note_sent(part)
                    yield part
                return
            window = _Window(self, guards)
            for part in source:
                for clean in window.put(part):
                    self.note_sent(clean)
                    yield clean
            for clean in window.finish():
                self.note_sent(clean)
                yield clean

    def note_sent(self, part: Part) -> None:
        self.said.update(part.text.encode("utf-8", "replace"))
        self.chars += len(part.text)

    def note_file(self, part: Part) -> None:
        if part.path is not None and part.path.is_file():
            self.files.append(hashlib.sha256(part.path.read_bytes()).hexdigest())

    def look(self, guard: Chosen, parts: Sequence[Part], side: str, size: int) -> Verdict:
        """Ask one guard, in its own thread so that it can be given up. A failure is a block, or noted if allowed."""
        assert self.workers
        asked = self.workers.submit(guard.thing, parts, guard.settings)
        failure, error = "", None
        try:
            error = asked.exception(getattr(guard.settings, "timeout", 5.0))
        except TimeoutError:
            failure = "took too long"
            self.workers.shutdown(wait=False, cancel_futures=True)
            self.workers = ThreadPoolExecutor(1, "guard")  # the old thread may never come back
        else:
            failure = f"failed ({type(error).__name__})" if error else ""
        verdict = Verdict() if failure else asked.result()
        if not failure and not _is_sound(verdict, size):
            failure = "gave a verdict that makes no sense"
        if failure:
            allowed = getattr(guard.settings, "on_error", "block") == "allow"
            self.note_verdict(guard, side, "allow" if allowed else "block", ["error"], failure)
            if not allowed and isinstance(error, GenwrightError):
                raise error  # it says itself what is wrong and what to do
            if not allowed:
                raise Refused(
                    f"The guard {guard.name} {failure}, and what it has not judged does not pass.",
                    "Try again; if it stays so, look at the guard's options (timeout, on_error).",
                    guard=guard.name, rule="error",
                )  # fmt: skip
            return Verdict()
        return verdict

    def note_verdict(self, guard: Chosen, side: str, action: str, rules: Sequence[str], reason: str = "") -> None:
        self.verdicts.append(
            {"guard": guard.name, "side": side, "action": action, "rules": list(rules), "note": reason}
        )


class _Window:
    """The end of an answer that is held back until no guard could still object to it."""

    def __init__(self, hall: _Hall, guards: Sequence[Chosen]):
        self.hall, self.guards = hall, guards
        self.before, self.held = "", ""  # text already sent (its end), text not sent yet
        self.meta: dict[str, Any] = {}
        self.figures: list[tuple[int, int, list[Any]]] = []  # (begin, end, log-probabilities) of pieces of `held`
        self.noted: set[tuple[str, str, int]] = set()
        self.place = 0  # how much of the answer lies before `before`

    def put(self, part: Part) -> Iterator[Part]:
        if part.kind == "text" and part.path is None:
            begin = len(self.held)
            self.held += part.text
            meta = dict(part.meta or {})
            if figures := meta.pop("logprobs", None):
                self.figures.append((begin, len(self.held), figures))
            self.meta |= meta
            if part.text:
                yield from self._release(final=False)
            return
        yield from self.finish()
        if part.text or part.path:  # else it only tells how far the work has come
            self._must_pass(part)
        yield part

    def _must_pass(self, part: Part) -> None:
        """A file passes whole, or does not stay. Raises Refused."""
        for guard in self.guards:
            verdict = self.hall.look(guard, [part], "answer", len(part.text))
            action = "allow" if verdict.action == "allow" else "block"  # a file cannot be redacted
            if verdict.findings or action == "block":
                self.hall.note_verdict(guard, "answer", action, _rules(verdict))
            if action == "block":
                if part.path:
                    part.path.unlink(missing_ok=True)
                raise _refusal("The answer", guard, verdict)

    def finish(self) -> Iterator[Part]:
        if self.held:
            yield from self._release(final=True)
        if self.meta or self.figures:
            yield self._part("", self._figures(0, spoilt=False))

    def _release(self, *, final: bool) -> Iterator[Part]:
        """Send what is decided, with the findings in it replaced. Raises Refused when a guard blocks."""
        text, sent = self.before + self.held, len(self.before)
        until = len(text) if final else min(_undecided(guard, text, sent) for guard in self.guards)
        if until <= sent:
            return
        cuts: list[_Cut] = []
        for guard in self.guards:
            verdict = self._look(guard, text, sent)
            sure = [finding for finding in verdict.findings if sent < finding.end <= until]
            self._note(guard, verdict, sure)
            if verdict.action == "block" and (sure or not verdict.findings):
                raise _refusal("The answer", guard, verdict)
            if verdict.action != "allow":
                cuts += [(f.start, f.end, _stand_in(verdict, f)) for f in verdict.findings if f.end > sent]
        for start, end, _ in sorted(cuts, reverse=True):
            if end > until:
                until = max(sent, min(until, start))  # what is not decided yet stays, from its first character on
        done = [(max(start, sent), end, stand_in) for start, end, stand_in in cuts if end <= until]
        clean = _cut_text(text[:until], done)[sent:]
        self.place += max(0, until - _CONTEXT)
        self.before, self.held = text[:until][-_CONTEXT:], text[until:]
        figures = self._figures(until - sent, spoilt=bool(done))
        if clean:
            yield self._part(clean, figures)

    def _figures(self, released: int, *, spoilt: bool) -> list[Any]:
        """Log-probabilities of the first `released` characters that were held: those of pieces that have left whole.

        Of a spoilt release none leave, not even of a piece that has only begun to.
        """
        gone = [entries for _, end, entries in self.figures if end <= released]
        kept = [piece for piece in self.figures if piece[1] > released and not (spoilt and piece[0] < released)]
        self.figures = [(begin - released, end - released, entries) for begin, end, entries in kept]
        return [] if spoilt else [entry for entries in gone for entry in entries]

    def _look(self, guard: Chosen, text: str, sent: int) -> Verdict:
        """The guard's verdict on what is held and as much before it as it needs; findings are places in `text`."""
        base = _begin(guard, sent)
        verdict = self.hall.look(guard, [Part(text=text[base:])], "answer", len(text) - base)
        moved = tuple(Finding(f.rule, f.start + base, f.end + base) for f in verdict.findings)
        return replace(verdict, findings=moved)

    def _part(self, text: str, figures: list[Any]) -> Part:
        meta, self.meta = self.meta | ({"logprobs": figures} if figures else {}), {}
        return Part(text=text, meta=meta or None)

    def _note(self, guard: Chosen, verdict: Verdict, sure: Sequence[Finding]) -> None:
        """Each finding goes into the ledger once, though a guard sees it again as context."""
        new = [f for f in sure if (guard.name, f.rule, self.place + f.start) not in self.noted]
        self.noted |= {(guard.name, f.rule, self.place + f.start) for f in new}
        if new or (verdict.action == "block" and not verdict.findings):
            self.hall.note_verdict(guard, "answer", verdict.action, sorted({f.rule for f in new}))


def _unlike(model: Model) -> list[str]:
    """Options that say what the answer should be unlike: fields marked {"unlike": True}."""
    fields = getattr(getattr(model, "options", None), "model_fields", {})
    return [name for name, field in fields.items() if dict(field.json_schema_extra or {}).get("unlike")]


# -- small things -----------------------------------------------------------------------------------------------------

_Cut = tuple[int, int, str]


def _sides(guard: Chosen) -> Sequence[str]:
    return getattr(guard.settings, "sides", ("request", "answer"))


def _begin(guard: Chosen, sent: int) -> int:
    """Where the text begins that a guard is shown: `context(settings)` characters before what is held."""
    ask = getattr(guard.module, "context", None)
    return max(0, sent - (int(ask(guard.settings)) if ask else _CONTEXT))


def _undecided(guard: Chosen, text: str, sent: int) -> int:
    """From where on a guard could still find something that begins in `text`."""
    ask, base = getattr(guard.module, "undecided", None), _begin(guard, sent)
    if ask:
        return base + int(ask(text[base:], guard.settings))
    return len(text) - int(getattr(guard.module, "window", 0))


def _is_sound(verdict: Any, size: int) -> bool:
    return (
        isinstance(verdict, Verdict)
        and verdict.action in ("allow", "redact", "block")
        and all(0 <= f.start <= f.end <= size for f in verdict.findings)
        and (verdict.action != "redact" or bool(verdict.findings))
    )


def _rules(verdict: Verdict) -> list[str]:
    return sorted({finding.rule for finding in verdict.findings})


def _stand_in(verdict: Verdict, finding: Finding) -> str:
    return verdict.replacement.replace("{rule}", finding.rule)


def _refusal(what: str, guard: Chosen, verdict: Verdict) -> Refused:
    rule = ", ".join(_rules(verdict))
    return Refused(
        f"{what} was stopped by the guard {guard.name}{': ' + verdict.reason if verdict.reason else ''}.",
        "Put it differently. Who runs the model can change the rule in the recipe's `guards`.",
        guard=guard.name, rule=rule,
    )  # fmt: skip


def _cut_text(text: str, cuts: Sequence[_Cut]) -> str:
    """Put the stand-ins in place of the spans; of spans that overlap, one stand-in (the first's) covers all."""
    pieces, at = [], 0
    for start, end, stand_in in sorted(cuts):
        if start >= at:
            pieces += [text[at:start], stand_in]
        at = max(at, end)
    return "".join([*pieces, text[at:]])


def _cut_parts(parts: Sequence[Part], cuts: Sequence[_Cut]) -> tuple[Part, ...]:
    """The same over parts, whose joined text the spans are of. A stand-in goes into the part where its span begins."""
    done, base = [], 0
    for part in parts:
        size = len(part.text)
        own = [
            (max(0, start - base), min(size, end - base), stand_in if start >= base else "")
            for start, end, stand_in in cuts
            if start < base + size and end > base
        ]
        done.append(replace(part, text=_cut_text(part.text, own)) if own else part)
        base += size
    return tuple(done)


def _marked(parts: Iterator[Part], marks: Sequence[Chosen], provenance: Provenance) -> Generator[Part]:
    """Files are labelled before they leave; a mark may also put words around an answer (`around`)."""
    around = [m.module.around(provenance, m.settings) for m in marks if hasattr(m.module, "around")]
    yield from (Part(text=before) for before, _ in around if before)
    with closing(_closable(parts)) as source:
        for part in source:
            if part.path is not None:
                for mark in sorted(marks, key=_comes_last):
                    part = mark.thing(part, provenance, mark.settings)
            yield part
    yield from (Part(text=after) for _, after in around if after)


def _comes_last(mark: Chosen) -> int:
    """Marks that hold a file's hash see it when the others are done (`last` = 1), a signature after these (2)."""
    return int(getattr(mark.module, "last", 0))


def _closable(parts: Iterator[Any]) -> Any:
    """A generator as it is; another iterator wrapped in one, so that it can be closed."""
    return parts if hasattr(parts, "close") else (part for part in parts)


def _merged(left: Part, right: Part) -> dict[str, Any] | None:
    one, other = left.meta or {}, right.meta or {}
    both = {"logprobs": [*one["logprobs"], *other["logprobs"]]} if "logprobs" in one and "logprobs" in other else {}
    return {**one, **other, **both} or None


def _without_end(part: Part) -> tuple[Part, dict[str, Any]]:
    """A part without the facts that tell of the whole answer (numbers and words), and these; else as it is."""
    if "finish_reason" not in (part.meta or {}):
        return part, {}
    assert part.meta
    facts = {name: fact for name, fact in part.meta.items() if not isinstance(fact, (list, dict))}
    return replace(part, meta={k: v for k, v in part.meta.items() if k not in facts} or None), facts


def _dated(provenance: Provenance, model_name: str = "") -> Provenance:
    """With a request id, the time and the model's name where they are not given."""
    return replace(
        provenance,
        model=provenance.model or model_name,
        request_id=provenance.request_id or f"gw-{uuid.uuid4().hex}",
        time=provenance.time or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
