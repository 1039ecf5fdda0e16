"""Numbers, dates, money and signs read aloud: how much is heard wrong with and without `media/spoken_form.py`.

    python benchmarks/spoken_numbers.py --language en --count 30
    python benchmarks/spoken_numbers.py --language zh --count 30 --phonemes-only

Texts and what is to be heard are the tables of tests/media. First the phonemes: of how many texts the front end makes
the same as of the words themselves. Then said, heard by Whisper, what was heard put into words too, and counted in
characters.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
from pathlib import Path

from genwright.core import Example, Judged, Message, Part, Request, assistant, choose, user
from genwright.media.spoken_form import spoken_form
from genwright.nn.voices import Phonemes
from genwright.verbs.models import open_model

TABLES = Path(__file__).parent.parent / "tests" / "media"
VOICES = {"en": "hibari", "zh": "kokoro-82m"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phonemes-only", action="store_true")
    args = parser.parse_args()
    pairs = table(args.language)
    phonemes = Phonemes()
    for name, change in (("without", lambda text: text), ("with", lambda text: spoken_form(text, args.language))):
        same = sum(
            bare(phonemes.of(change(text), args.language)) == bare(phonemes.of(said, args.language))
            for text, said in pairs
        )
        print(f"{args.language}: phonemes as of the words {name} normalisation: {same} of {len(pairs)}")
    if not args.phonemes_only:
        heard(random.Random(args.seed).sample(pairs, min(args.count, len(pairs))), args.language)


def table(language: str) -> list[tuple[str, str]]:
    """Those rows in which something changes."""
    name = {"en": "english", "zh": "chinese"}[language]
    lines = (TABLES / f"spoken_{name}.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|") for line in lines if line and not line.startswith("#")]
    return [(text.strip(), said.strip()) for text, said in rows if text.strip() != said.strip()]


def bare(phonemes: str) -> str:
    """Without punctuation, which is not heard, and stress, which depends on the words around."""
    return re.sub(r"[\s.,;:!?ˈˌ—“”]", "", phonemes)


def heard(pairs: list[tuple[str, str]], language: str) -> None:
    voice = open_model(VOICES[language], task=choose("tasks", "text_to_speech"))
    ear = open_model("whisper-base", task=choose("tasks", "transcribe"))
    for normalise in (False, True):
        judged = []
        with tempfile.TemporaryDirectory() as folder:
            for number, (text, said) in enumerate(pairs):
                out = Path(folder) / f"{number}.wav"
                how = {"normalise": normalise, "language": language}
                list(voice.generate(Request(messages=(user(text),), seed=0, out=out, options=how)))
                asked = user(Part("audio", path=out))
                how = {"language": language, "beams": 1}
                found = "".join(part.text for part in ear.generate(Request(messages=(asked,), seed=0, options=how)))
                told = Message("assistant", (Part(text=spoken_form(found, language).replace("-", " ")),))
                judged.append(Judged(Example((asked, assistant(said.replace("-", " ")))), told))
        score = choose("metrics", "cer")(judged)
        name = "with" if normalise else "without"
        print(f"{language}: CER {name}: {score.value:.1%} ({score.low:.1%}–{score.high:.1%}), {len(judged)} texts")
        for one in sorted(judged, key=lambda one: -choose("metrics", "cer")([one], bootstrap=0).value)[:5]:
            print(f"    to say {one.wanted!r}, heard {one.said!r}")


if __name__ == "__main__":
    main()
