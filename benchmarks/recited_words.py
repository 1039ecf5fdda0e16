"""Are words that are spoken over a tune understood through it? Whisper-base hears the mixed sound.

    python benchmarks/recited_words.py

Four tunes with English words (Hibari), two with Chinese (Kokoro), as `genwright compose --lyrics --chords` makes them.
Errors are of words, in Chinese of characters, against the lyric.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

RAIN = """The morning came with silver rain
and washed the dust from every street,
we walked along the quiet lane
with little stones beneath our feet.

The river carried leaves away,
the windows opened one by one,
and all the children came to play
together in the early sun."""
SHIPS = """A lantern hangs above the door
and seven ships are on the sea.
My father says that winter comes,
he says it every night to me.

[Chorus]
Sing, brother, sing, the road is long,
the fire is warm, the bread is good.
Sing, sister, sing the oldest song
that anybody understood."""
SUN = """清晨的阳光照在窗前，
小鸟在树上唱着歌。
我们沿着河边慢慢走，
看见孩子们放风筝。

晚风吹过金色的稻田，
奶奶讲起从前的故事。"""
CASES = (
    ("en", RAIN, "a waltz in G major", 3), ("en", SHIPS, "a reel in D major", 5), ("en", RAIN, "a jig in E minor", 7),
    ("en", SHIPS, "an air in A minor, 16 bars", 9), ("zh", SUN, "圆舞曲，F大调", 4),
    ("zh", SUN, "a reel in D major", 5),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duck", type=float, default=12, help="decibels by which the tune goes down (default 12)")
    parser.add_argument("--only", type=int, nargs="*", help="which of the six")
    args = parser.parse_args()
    from genwright.core import Example, Judged, Part, assistant, choose, user
    from genwright.verbs.compose import compose

    with tempfile.TemporaryDirectory() as folder:
        for number, (language, lyrics, prompt, seed) in enumerate(CASES):
            if args.only and number not in args.only:
                continue
            out, options = Path(folder) / "a.wav", {"chords": True, "duck": args.duck}
            (found,) = compose(prompt, out, lyrics=lyrics, seed=seed, options=options)
            said = " ".join(line["text"] for line in found["lines"])
            metric = choose("metrics", {"name": "heard_words", "language": language})
            sound = Part("audio", path=Path(found["file"]))
            wrong = metric([Judged(Example((user(said), assistant(""))), assistant(sound))], bootstrap=0).value
            hurried = sum(line["speed"] > 1 for line in found["lines"])
            print(f"{prompt:28} {len(found['lines'])} lines, {hurried} said faster, {found['seconds']:.0f} s, played"
                  f" {found['times']} times: {100 * wrong:.1f} % misheard", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
