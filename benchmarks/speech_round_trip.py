"""Text → speech → text: word and character errors of packaged voices heard by the packaged Whisper, and their speed.

    python benchmarks/speech_round_trip.py --language en --count 200
    python benchmarks/speech_round_trip.py --language zh --count 200

    python benchmarks/speech_round_trip.py --language zh --count 200 --resume zh.jsonl     in pieces, stopped at will

The first eighty sentences a language lie beside this file: questions, names, numbers, dates and money. The rest are of
the ChatterBot corpus (BSD), those that are long enough and hold no digits. What was said and what was heard are both
put into words (`media/spoken_form.py`), for how a number is written down is not what is measured. An error may be the
voice's or the ear's; real speech stands beside where a folder of it is given (`--real FOLDER`, read as the source
`audio_folder` does).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genwright.core import Example, Judged, Message, Part, Request, Row, assistant, choose, find_card, user
from genwright.core.rows import read_row
from genwright.media.sound import sound_facts
from genwright.media.spoken_form import spoken_form
from genwright.verbs.models import open_model, pull

VOICES = {"en": "hibari", "zh": "kokoro-82m"}
CORPUS = {"en": "chatterbot-english", "zh": "chatterbot-chinese"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--voice", help="a voice of the model; default: its usual one")
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--real", type=Path, help="a folder of real speech with its words")
    parser.add_argument("--resume", type=Path, help="a file that keeps what was heard, and is gone on from")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    voice = open_model(VOICES[args.language], task=choose("tasks", "text_to_speech"))
    ear = open_model("whisper-base", task=choose("tasks", "transcribe"))
    facts: dict[str, Any] = {"language": args.language, "voice": VOICES[args.language], "ear": "whisper-base"}
    texts = sentences(args.language, args.count)
    rows = list(round_trips(voice, ear, texts, args))
    facts["synthetic"] = judged(rows, args.language)
    seconds = sum(row["seconds"] for row in rows)
    facts |= {
        "voice_real_time_factor": sum(row["voice_cpu"] for row in rows) / seconds,
        "ear_real_time_factor": sum(row["ear_cpu"] for row in rows) / seconds,
        "first_sound_ms": 1000 * statistics.median(row["first"] for row in rows),
    }
    if args.real:
        facts["real"] = judged([listened(ear, *one, args) for one in real(args.real)], args.language)
    print(json.dumps(facts, indent=1) if args.json else table(facts))


def round_trips(voice: Any, ear: Any, texts: list[str], args: Any) -> Iterator[dict[str, Any]]:
    """A row for each text: what was heard and what it took; kept in the file of --resume, a line each."""
    kept = {}
    if args.resume and args.resume.is_file():
        lines = args.resume.read_text(encoding="utf-8").splitlines()
        kept = {row["text"]: row for row in map(json.loads, lines)}
    for number, text in enumerate(texts):
        if text not in kept:
            with tempfile.TemporaryDirectory() as folder:
                said = spoken(voice, text, Path(folder) / "a.wav", number, args.voice)
                kept[text] = listened(ear, Path(folder) / "a.wav", text, args) | said
            if args.resume:
                with args.resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(kept[text], ensure_ascii=False) + "\n")
        yield kept[text]


def sentences(language: str, count: int) -> list[str]:
    """Those beside this file, then the first of the corpus that are no fragments."""
    own = (Path(__file__).parent / f"sentences_{language}.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, None] = dict.fromkeys(own[:count])
    if len(found) == count:
        return list(found)
    card = find_card(CORPUS[language])
    pull(card)
    for row in choose("sources", {**card.read, "path": str(card.path)}, key="source")():
        for text in words_of(row.fields) if isinstance(row, Row) else ():
            long = len(text.split()) >= 5 if language == "en" else len(re.findall(r"[\u4e00-\u9fff]", text)) >= 6
            plain = re.fullmatch(r"[A-Za-z ,.'?!-]+" if language == "en" else r"[\u4e00-\u9fff，。？！、]+", text)
            if long and plain and len(text) < 150:
                found[text] = None
            if len(found) == count:
                return list(found)
    return list(found)


def words_of(fields: dict[str, Any]) -> list[str]:
    messages, _ = read_row(fields)
    return [message.text.strip() for message in messages]


def spoken(voice: Any, text: str, out: Path, seed: int, name: str | None) -> dict[str, float]:
    """CPU seconds of saying it, and seconds to the first sound."""
    options: dict[str, Any] = {"partial": True} | ({"voice": name} if name else {})
    began, cpu, first = time.perf_counter(), time.process_time(), 0.0
    for part in voice.generate(Request(messages=(user(text),), seed=seed, options=options, out=out)):
        first = first or (time.perf_counter() - began if part.path else 0.0)
    return {"voice_cpu": time.process_time() - cpu, "first": first}


def listened(ear: Any, sound: Path, text: str, args: Any) -> dict[str, Any]:
    """What is heard of it, and what that took."""
    cpu = time.process_time()
    options = {"language": args.language, "beams": args.beams}
    parts = list(ear.generate(Request(messages=(user(Part("audio", path=sound)),), seed=0, options=options)))
    heard = "".join(part.text for part in parts).strip()
    return {
        "text": text,
        "heard": heard,
        "ear_cpu": time.process_time() - cpu,
        "seconds": sound_facts(sound)["seconds"],
    }


def real(folder: Path) -> list[tuple[Path, str]]:
    rows = choose("sources", {"source": "audio_folder", "path": str(folder)}, key="source")()
    return [(row.fields["audio"], row.fields["text"]) for row in rows if isinstance(row, Row) and "text" in row.fields]


def judged(rows: list[dict[str, Any]], language: str) -> dict[str, Any]:
    """WER and CER with their intervals (bootstrap over sentences)."""
    pairs = []
    for row in rows:
        wanted, heard = (spoken_form(row[name], language).replace("-", " ") for name in ("text", "heard"))
        pairs.append(Judged(Example((user("?"), assistant(wanted))), Message("assistant", (Part(text=heard),))))
    scores = {name: choose("metrics", name)(pairs) for name in ("wer", "cer")}
    worst = sorted(pairs, key=lambda pair: choose("metrics", "cer")([pair], bootstrap=0).value)[-5:]
    shown = {
        name: {"value": s.value, "low": s.low, "high": s.high, "signature": s.signature} for name, s in scores.items()
    }
    return shown | {
        "sentences": len(pairs), "seconds": sum(row["seconds"] for row in rows),
        "worst": [[pair.wanted, pair.said] for pair in worst],
    }  # fmt: skip


def table(facts: dict[str, Any]) -> str:
    lines = [f"{facts['voice']} → {facts['ear']}, {facts['language']}"]
    for name in ("synthetic", "real"):
        if found := facts.get(name):
            wer, cer = found["wer"], found["cer"]
            lines.append(
                f"  {name:9} {found['sentences']} sentences, {found['seconds']:.0f} s: "
                f"WER {wer['value']:.2%} ({wer['low']:.2%}–{wer['high']:.2%}), "
                f"CER {cer['value']:.2%} ({cer['low']:.2%}–{cer['high']:.2%})"
            )
            lines += [f"    said {wanted!r}, heard {said!r}" for wanted, said in found["worst"] if wanted != said]
    lines.append(
        f"  CPU seconds a second of sound: voice {facts['voice_real_time_factor']:.2f}, "
        f"ear {facts['ear_real_time_factor']:.2f}; first sound after {facts['first_sound_ms']:.0f} ms (median)"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
