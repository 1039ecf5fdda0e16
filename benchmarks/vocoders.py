"""Sound made again from its mel bands: a WaveNet taught by recipes/audio/vocoder.yaml beside Griffin-Lim and the sound.

    python benchmarks/vocoders.py --run runs/vocoder --count 12
    python benchmarks/vocoders.py --folder my_voice --count 12        # Griffin-Lim alone

Sounds are held-out rows of the run, or those of a folder as the source `audio_folder` reads it. Told of each way: the
distance of its mel bands from the true ones (`mel_error`, dB), how good it sounds (`dnsmos`, 1 to 5), what the packaged
Whisper mishears (`wer`, against the rows' words), and processor seconds a second of sound.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genwright.core import (
    Dataset,
    Example,
    Judged,
    Message,
    Part,
    Request,
    Row,
    Run,
    assistant,
    choose,
    find_card,
    user,
)
from genwright.core.rows import read_row
from genwright.media.mel import RATE, mel_of, vocode
from genwright.media.sound import Sound, open_sound, save_sound
from genwright.verbs.models import open_model, pull

Way = Callable[[Path, Path], None]  # makes the second file from the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run of the task vocode")
    parser.add_argument("--folder", type=Path, help="a folder of sounds with their words, instead of held-out rows")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=48, help="of Griffin-Lim")
    args = parser.parse_args()
    if not (args.run or args.folder):
        parser.error("name --run or --folder")
    import torch

    torch.set_num_threads(1)
    for card in ("dnsmos", "whisper-base"):
        if not find_card(card).is_here:
            pull(find_card(card))
    ways: dict[str, Way] = {
        "the sound itself": lambda given, made: keep(open_sound(given).mono().at(RATE), made),
        f"Griffin-Lim, {args.rounds} rounds": lambda given, made: keep(
            vocode(mel_of(open_sound(given)), rounds=args.rounds), made
        ),
    }
    if args.run:
        model: Any = open_model(str(args.run), task=choose("tasks", "vocode"))
        ways["WaveNet"] = lambda given, made: ask(model, given, made)
    ear = open_model("whisper-base", task=choose("tasks", "transcribe"))
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, way) in enumerate(ways.items()):
            print(f"{name:24} {told(way, sounds(args), ear, Path(folder, str(number)))}", flush=True)


def sounds(args: argparse.Namespace) -> list[tuple[Path, str]]:
    """The first files, and what is said in them."""
    if args.folder:
        rows = choose("sources", {"source": "audio_folder", "path": str(args.folder)}, key="source")()
        examples = [Example(*read_row(row.fields, "audio")) for row in rows if isinstance(row, Row)]
    else:
        examples = list(Dataset.open(Run(args.run).data / "held_out.jsonl"))
    found = []
    for example in examples[: args.count]:
        path = next(part.path for part in example.answer.parts if part.path)
        found.append((path, example.prompt[-1].text if example.prompt else ""))
    return found


def told(way: Way, given: list[tuple[Path, str]], ear: Any, folder: Path) -> str:
    folder.mkdir()
    way(given[0][0], folder / "warm-up.wav")
    seconds, began = 0.0, time.process_time()
    for number, (path, _) in enumerate(given):
        way(path, folder / f"{number}.wav")
        seconds += open_sound(path).seconds
    spent = (time.process_time() - began) / seconds
    pairs, heard = [], []
    for number, (path, words) in enumerate(given):
        true, made = Part("audio", path=path), Part("audio", path=folder / f"{number}.wav")
        pairs.append(Judged(Example((user(words), assistant(true))), Message("assistant", (made,))))
        asked = Request(messages=(user(made),), seed=0, options={"language": "en"})
        said = assistant("".join(part.text for part in ear.generate(asked)))
        heard.append(Judged(Example((user(made), assistant(words))), said))
    error, mos, wer = (
        choose("metrics", name)(some).value for name, some in (("mel_error", pairs), ("dnsmos", pairs), ("wer", heard))
    )
    return f"mel error {error:5.2f} dB  DNSMOS {mos:4.2f}  WER {wer:6.1%}  {spent:6.3f} CPU s/s  ({len(given)} sounds)"


def keep(sound: Sound, path: Path) -> None:
    save_sound(sound, path)


def ask(model: Any, given: Path, made: Path) -> None:
    sound = Part("audio", path=given)
    list(model.generate(Request(messages=(user(sound),), seed=0, options={"temperature": 0.8}, out=made)))


if __name__ == "__main__":
    main()
