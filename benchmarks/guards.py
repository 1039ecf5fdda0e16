"""How well the keyword guard sees through disguises, what it takes for a word wrongly, and how long it takes.

    python benchmarks/guards.py

Texts are those of two dataset cards (fetched if need be): about 2.3 million characters of harmless English. Disguises
are drawn at random, 40 for each word of four letters and more.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from genwright.core import Bad, Part, choose
from genwright.trust.guards import keywords
from genwright.verbs.models import pull

WORDS = (
    "ass cunt penis hell tit cum sex bomb kill rape anal cock dick fag nazi porn weed meth coke shit fuck slut whore "
    "heroin cocaine suicide terrorist gun murder piss"
)
LOOK = {
    "a": "аα",
    "e": "еε",
    "i": "іι",
    "o": "оο",
    "p": "рρ",
    "s": "ѕ",
    "t": "т",
    "k": "кκ",
    "n": "ո",
    "u": "υս",
    "c": "с",
}
LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8", "l": "1"}
chance = random.Random(0)

DISGUISES = {
    "none": lambda w: w,
    "full width": lambda w: "".join(chr(ord(c) + 0xFEE0) for c in w),
    "invisible": lambda w: chance.choice("\u200b\u200d\u2060\u00ad").join(w),
    "separated": lambda w: chance.choice([" ", ".", "-", "_", "*", "·", "|", " . "]).join(w),
    "look-alikes": lambda w: "".join(chance.choice([c, *LOOK.get(c, "")]) for c in w),
    "digits and signs": lambda w: "".join(chance.choice([c, *LEET.get(c, "")]) for c in w),
    "stretched": lambda w: (lambda i: w[:i] + w[i] * chance.randint(3, 6) + w[i + 1 :])(chance.randrange(len(w))),
    "bold letters": lambda w: "".join(chr(0x1D400 + 26 + ord(c) - 97) for c in w),
    "case": lambda w: "".join(chance.choice([c, c.upper()]) for c in w),
    "accents": lambda w: "".join(c + chance.choice(["", "\u0301", "\u0308"]) for c in w),
}


def main() -> None:
    guard = keywords.Settings(words=tuple(WORDS.split()))
    for name, disguise in DISGUISES.items():
        texts = [f"Tell me about {disguise(w)} and more" for w in WORDS.split() if len(w) > 3 for _ in range(40)]
        seen = sum(keywords.check([Part(text=text)], guard).action == "block" for text in texts)
        print(f"{name:>18}: {seen} of {len(texts)} seen ({seen / len(texts):.1%})")
    harmless(guard)


def harmless(guard: keywords.Settings) -> None:
    texts = []
    for card in ("aws-cli-examples", "chatterbot-english"):
        for row in choose("sources", {"source": "card", "card": card}, key="source")(fetch=lambda card: pull(card)):
            if not isinstance(row, Bad):
                texts += [row.fields["prompt"], row.fields["completion"]]
    found, times = Counter(), []
    for text in texts:
        begun = time.process_time()
        verdict = keywords.check([Part(text=text)], guard)
        times.append(time.process_time() - begun)
        found.update(text[f.start : f.end] for f in verdict.findings)
    other = {word: count for word, count in found.items() if word.lower() not in WORDS.split()}
    print(
        f"{len(texts):,} harmless texts, {sum(map(len, texts)):,} characters: found {dict(found)}; not words: {other}"
    )
    print(f"time of one look (CPU): p50 {1e3 * sorted(times)[len(times) // 2]:.2f} ms, "
          f"p95 {1e3 * sorted(times)[int(len(times) * 0.95)]:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
