"""Text → speech → text: word and character errors of packaged voices heard by the packaged Whisper, and their speed.

    python benchmarks/speech_round_trip.py --language en --count 200
    python benchmarks/speech_round_trip.py --language zh --count 200

Sentences are those of the ChatterBot corpus (BSD), the first that are long enough and hold no digits: how numbers are
written is not what is measured. An error may be the voice's or the ear's; real speech stands beside where a folder of
it is given (`--real FOLDER`, as the source `audio_folder` reads it).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from genwright.core import Example, Judged, Message, Part, Request, Row, assistant, choose, find_card, user
from genwright.core.rows import read_row
from genwright.media.sound import sound_facts
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
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    voice = open_model(VOICES[args.language], task=choose("tasks", "text_to_speech"))
    ear = open_model("whisper-base", task=choose("tasks", "transcribe"))
    facts: dict[str, Any] = {"language": args.language, "voice": VOICES[args.language], "ear": "whisper-base"}
    with tempfile.TemporaryDirectory() as folder:
        spoken = list(say_all(voice, sentences(args.language, args.count), Path(folder), args.voice, facts))
        facts["synthetic"] = judged(ear, spoken, args.language, args.beams, facts)
    if args.real:
        facts["real"] = judged(ear, real(args.real), args.language, args.beams, {})
    print(json.dumps(facts, indent=1) if args.json else table(facts))


def sentences(language: str, count: int) -> list[str]:
    """The first of the corpus that are no fragments."""
    card = find_card(CORPUS[language])
    pull(card)
    found: dict[str, None] = {}
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


def say_all(voice: Any, texts: list[str], folder: Path, name: str | None, facts: dict[str, Any]) -> Any:
    """(sound, words) of each; facts get real-time factor and the time to the first sound."""
    seconds, first, work = 0.0, [], 0.0
    options: dict[str, Any] = {"partial": True} | ({"voice": name} if name else {})
    for number, text in enumerate(texts):
        out = folder / f"{number}.wav"
        began, cpu = time.perf_counter(), time.process_time()
        heard = None
        for part in voice.generate(Request(messages=(user(text),), seed=number, options=options, out=out)):
            heard = heard or (part.path and time.perf_counter() - began)
        work += time.process_time() - cpu
        first.append(heard or 0.0)
        seconds += sound_facts(out)["seconds"]
        yield out, text
    facts |= {"voice_real_time_factor": work / seconds, "first_sound_ms": 1000 * statistics.median(first)}


def real(folder: Path) -> list[tuple[Path, str]]:
    rows = choose("sources", {"source": "audio_folder", "path": str(folder)}, key="source")()
    return [(row.fields["audio"], row.fields["text"]) for row in rows if isinstance(row, Row) and "text" in row.fields]


def judged(
    ear: Any, spoken: list[tuple[Path, str]], language: str, beams: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """WER and CER with their intervals (bootstrap over sentences)."""
    pairs, work, seconds = [], 0.0, 0.0
    for path, text in spoken:
        asked = user(Part("audio", path=path))
        began = time.process_time()
        parts = list(ear.generate(Request(messages=(asked,), seed=0, options={"language": language, "beams": beams})))
        work += time.process_time() - began
        seconds += parts[-1].meta["duration"]
        said = "".join(part.text for part in parts)
        pairs.append(Judged(Example((asked, assistant(text))), Message("assistant", (Part(text=said),))))
    facts["ear_real_time_factor"] = work / seconds
    scores = {name: choose("metrics", name)(pairs) for name in ("wer", "cer")}
    worst = sorted(pairs, key=lambda pair: choose("metrics", "cer")([pair], bootstrap=0).value)[-3:]
    shown = {
        name: {"value": s.value, "low": s.low, "high": s.high, "signature": s.signature} for name, s in scores.items()
    }
    return shown | {
        "sentences": len(pairs), "seconds": seconds, "worst": [[pair.wanted, pair.said] for pair in worst],
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
