"""Mix: voices over music, at a known loudness; a mix that holds generated sound is labelled so, in the ledger too."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.core import SILENT, Part, Provenance, Request, Tell, UsageError, choose, user
from genwright.trust.ledger import Ledger
from genwright.trust.sidecar import sidecar, write_sidecar

if TYPE_CHECKING:
    from genwright.media.mix import MixOptions
    from genwright.media.sound import Sound

LONGEST = 1_800.0  # seconds of one sound that is mixed


@dataclass(frozen=True)
class Source:
    """What went into a mix. `label` is what its own label says ("1" is generated, "2" may be, "3" is suspected to be,
    "" nothing), `producer` the code in it, `model` and `request_id` where they are known."""

    file: str
    sha256: str
    label: str = ""
    producer: str = ""
    model: str = ""
    request_id: str = ""
    signed: bool = False


def mix(
    voices: Sequence[Path],
    out: Path,
    *,
    bed: Path | None = None,
    pause: float = 0.5,
    options: Mapping[str, Any] | None = None,
    ledger: Ledger | Path | None = None,
    tell: Tell = SILENT,
) -> dict[str, Any]:
    """The voices, one after the other with `pause` seconds between, over the bed, written as the suffix of `out` says.

    `options` are those of `media.mix.MixOptions`. Returns {"file", "seconds", "loudness" (LUFS), "peak" (dBTP),
    "label", "sources"}. Raises UsageError for options that are not right and for a place that cannot be written,
    DataError for a file that is no sound, or longer than half an hour.
    """
    from genwright.media.mix import Placed, mixed, timeline
    from genwright.media.sound import writable

    how = mix_options(options or {})
    writable([out])
    if not voices:
        raise UsageError("There is nothing to mix.", "Name a sound.")
    sounds, start, placed = [opened(path) for path in voices], 0.0, list[Placed]()
    for sound in sounds:
        placed.append(Placed(start, sound))
        start += sound.seconds + pause
    tell.stage(f"Mixing {out.name}")
    voice = timeline(placed, rate=max(s.rate for s in sounds), channels=max(s.channels for s in sounds))
    whole = mixed(voice, opened(bed) if bed else None, how)
    files = [*voices, *([bed] if bed else [])]
    return finish(whole, out, [source_of(path, ledger) for path in files], ledger=ledger, tell=tell)


def mix_options(given: Mapping[str, Any]) -> MixOptions:
    """Raises UsageError with all that is wrong."""
    from genwright.media.mix import MixOptions

    return Request(messages=(user(""),), options=dict(given)).options_as(MixOptions)


def opened(path: Path) -> Sound:
    """A sound of up to half an hour. Raises DataError."""
    from genwright.media.sound import Limits, open_sound

    return open_sound(path, limits=Limits(seconds=LONGEST, bytes=1_000_000_000))


def source_of(path: Path, ledger: Ledger | Path | None = None) -> Source:
    """What is known of a file: by its label, inside or beside it, and by the ledger, which knows what lost its own."""
    from .provenance import look_up

    found, beside = look_up(path, ledger=ledger), _beside(path)
    label = found["label"] or beside.get("AIGC") or ({"Label": "1"} if found["answers"] else {})
    known = [answer["provenance"] or {} for answer in found["answers"]] or [beside.get("provenance") or {}]
    return _source(path, found["sha256"], label, known[0], signed=bool(found["c2pa"]))


def source_beside(path: Path) -> Source:
    """What is known of a file that was answered here a moment ago, by what lies beside it."""
    beside = _beside(path)
    return _source(path, str(beside.get("sha256", "")), beside.get("AIGC") or {}, beside.get("provenance") or {})


def _source(
    path: Path, sha256: str, label: Mapping[str, Any], facts: Mapping[str, Any], *, signed: bool = False
) -> Source:
    return Source(path.name, sha256, str(label.get("Label", "")), str(label.get("ContentProducer", "")),
                  str(facts.get("model", "")), str(facts.get("request_id", "")), signed)  # fmt: skip


def _beside(path: Path) -> dict[str, Any]:
    """The file's sidecar; empty where there is none, or one of other bytes."""
    with suppress(OSError, ValueError):
        read = json.loads(sidecar(path).read_text(encoding="utf-8"))
        if isinstance(read, dict) and read.get("sha256") == hashlib.sha256(path.read_bytes()).hexdigest():
            return read
    return {}


def finish(
    sound: Sound, out: Path, sources: Sequence[Source], *, ledger: Ledger | Path | None = None, tell: Tell = SILENT
) -> dict[str, Any]:
    """Write the sound with the label that its sources ask for: the file appears when it is whole and labelled."""
    from genwright.media.loudness import loudness, true_peak
    from genwright.media.sound import save_sound

    labels = sorted(source.label for source in sources if source.label in ("1", "2", "3"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            made = save_sound(sound, Path(folder) / out.name)
            if labels:
                _label(made, labels[0], sources, ledger, tell)
                os.replace(sidecar(made), sidecar(out))
            else:
                sidecar(out).unlink(missing_ok=True)
                tell.note("None of the sources says that it is generated, so the mix carries no label.")
            os.replace(made, out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.", "Choose another place, or make room.") from None
    for lost in {source.file for source in sources if source.signed}:
        tell.note(f"The signature in {lost} is of that file alone: the mix is not signed.")
    facts = {"file": str(out), "seconds": round(sound.seconds, 3), "loudness": _rounded(loudness(sound)),
             "peak": _rounded(true_peak(sound)), "label": labels[0] if labels else ""}  # fmt: skip
    return facts | {"sources": [asdict(source) for source in sources]}


def _label(made: Path, label: str, sources: Sequence[Source], ledger: Ledger | Path | None, tell: Tell) -> None:
    """The mix's own label and number; the producer is that of its sources where they agree. A row in the ledger says
    which files it was made of."""
    labelled = [source for source in sources if source.label]
    producers = {source.producer for source in labelled if source.producer}
    settings = {"producer": producers.pop()} if len(producers) == 1 else {}
    try:
        mark = choose("marks", {"name": "metadata", **settings})
    except ValueError:  # a code that nobody may write
        mark = choose("marks", "metadata")
    models = dict.fromkeys(source.model for source in labelled if source.model)
    provenance = Provenance(
        model=" + ".join(models),
        request_id=f"gw-{uuid.uuid4().hex}",
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    mark.thing(Part("audio", path=made, meta={"label": label}), provenance, mark.settings)
    facts = json.loads(sidecar(made).read_text(encoding="utf-8"))
    write_sidecar(made, {"AIGC": facts["AIGC"], "provenance": facts["provenance"],
                         "sources": [asdict(source) for source in sources]})  # fmt: skip
    if warning := mark.module.warning(mark.settings):
        tell.note(warning)
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    book = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    book.append(
        "mix", request_id=provenance.request_id, model=provenance.model, outcome="complete",
        answer={"sha256": "", "chars": 0, "files": [digest]}, provenance=provenance.as_dict(),
        sources=[{"sha256": source.sha256, "label": source.label} for source in sources],
    )  # fmt: skip


def _rounded(level: float) -> float | None:
    """Silence has none."""
    return None if level == float("-inf") else round(level, 2)
