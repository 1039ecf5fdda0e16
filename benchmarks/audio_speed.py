"""How fast is sound made and written down here, next to the obvious way and to the libraries people use for it?

    python benchmarks/audio_speed.py --rounds 5
    python benchmarks/audio_speed.py --only wavenet-1 naive-1 --rounds 5 --json wavenet.json

Contenders work in turn, a round each, in one process with one thread; a figure is the median over the rounds of units a
processor second (children included), and a ratio is taken within a round, so that what else the machine does hits both
sides. A contender is a function below with `@contender`: it makes ready, then yields how many units it has made, each
time it is asked.

`wavenet-N` draws N sounds together from cached queues with compiled loops, `torch-N` the same queues by torch,
`naive-N` by the whole convolution for each sample. The network has 0.23 million numbers and sees 2,047 samples, as
recipes/audio/wavenet.yaml has it; its weights are random, which changes no time.

`speak` says sentences by Hibari through our door, `speak-theirs` by its own package with the same network; `first` is
from words to the first sentence that can be heard. `transcribe` writes down what it said by the packaged Whisper, and
`transcribe-theirs` by faster-whisper where that is installed: the same weights, five beams, int8, Silero's gate, no
times of words. They need the cards hibari and whisper-base.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Work = Callable[[], Iterator[float]]
CONTENDERS: dict[str, tuple[str, str, Work]] = {}  # name: (what it is, its unit, how it works)
PAIRS = [  # ours, theirs
    ("wavenet-1", "naive-1"), ("wavenet-16", "naive-16"), ("torch-1", "naive-1"), ("torch-16", "naive-16"),
    ("wavenet-1", "torch-1"), ("speak", "speak-theirs"), ("transcribe", "transcribe-theirs"),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="contenders; all if not told")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    facts: dict[str, Any] = {"command": sys.argv, "machine": machine(), "missing": {}, "results": {}}
    with torch.no_grad():
        play(args.only or list(CONTENDERS), args.rounds, facts)
    print(table(facts))
    if args.json:
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


def play(names: list[str], rounds: int, facts: dict[str, Any]) -> None:
    """Each warms up once; then all work in turn. What cannot begin is told of, and left out."""
    there: dict[str, Iterator[float]] = {}
    for name in names:
        work = CONTENDERS[name][2]()
        try:
            next(work)
        except Exception as error:  # a peer that is not installed, whatever it raises
            facts["missing"][name] = f"{type(error).__name__}: {error}"
            continue
        there[name], facts["results"][name] = work, []
    for _ in range(rounds):
        for name, work in there.items():
            began = cpu()
            units = next(work)
            facts["results"][name].append(units / (cpu() - began))


def cpu() -> float:
    """Processor seconds of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def table(facts: dict[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in facts["machine"].items()]
    for name, found in facts["results"].items():
        what, unit, _ = CONTENDERS[name]
        lines.append(f"{name:14} {statistics.median(found):12,.1f} {unit} a processor second  ({what})")
    for ours, theirs in PAIRS:
        if both := list(zip(*(facts["results"].get(name, ()) for name in (ours, theirs)), strict=False)):
            ratios = [one / other for one, other in both]
            lines.append(
                f"{ours} / {theirs}: x{statistics.median(ratios):,.1f} ({min(ratios):,.1f} to {max(ratios):,.1f})"
            )
    if rate := facts["results"].get("wavenet-1"):
        lines.append(f"16 kHz as it is heard, one sound, one core: x{statistics.median(rate) / 16_000:.2f}")
    if rate := facts["results"].get("first"):
        lines.append(f"from words to the first sentence: {1000 / statistics.median(rate):,.0f} ms of a processor")
    lines += [f"{name} was not there: {why}" for name, why in facts["missing"].items()]
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    import torch

    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {"machine": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, one used",
            "load": round(os.getloadavg()[0], 1), "torch": torch.__version__}  # fmt: skip


def contender(name: str, what: str, unit: str) -> Callable[[Work], Work]:
    def kept(work: Work) -> Work:
        CONTENDERS[name] = (what, unit, work)
        return work

    return kept


# ---- WaveNet -------------------------------------------------------------------------------------------------------


def network() -> Any:
    import torch

    from genwright.nn.wavenet_net import WaveNet
    from genwright.nn.wavenet_options import WaveNetConfig

    torch.manual_seed(0)
    return WaveNet(WaveNetConfig(channels=32, skip=32)).eval()


def cached(count: int, *, compiled: bool) -> Iterator[float]:
    import torch

    from genwright.nn.wavenet_compiled import Compiled
    from genwright.nn.wavenet_options import HOP
    from genwright.nn.wavenet_sampling import Queues, Wish

    wishes = [Wish(HOP, number) for number in range(count)]
    queues = (Compiled if compiled else Queues)(network(), wishes)
    chance = torch.rand(HOP, count)
    queues.hop(chance)
    hops = 8 if compiled else 1
    while True:
        yield float(HOP * count * hops)
        for _ in range(hops):
            queues.hop(chance)


def naive(count: int) -> Iterator[float]:
    """Each sample from all that it sees, as the convolutions are written."""
    import torch

    net = network()
    levels, nothing = torch.full((count, net.shape.sees), 128), torch.zeros(count, 0, 0)
    styles = torch.zeros(count, dtype=torch.long)
    while True:
        yield float(2 * count)
        for _ in range(2):
            drawn = net(levels, nothing, styles)[:, -1].softmax(1).multinomial(1)
            levels = torch.cat([levels[:, 1:], drawn], 1)


for rows in (1, 16):
    contender(f"wavenet-{rows}", f"queues, compiled loops, {rows} at once", "samples")(
        lambda rows=rows: cached(rows, compiled=True)
    )
    contender(f"torch-{rows}", f"queues, torch, {rows} at once", "samples")(
        lambda rows=rows: cached(rows, compiled=False)
    )
    contender(f"naive-{rows}", f"whole convolutions, {rows} at once", "samples")(lambda rows=rows: naive(rows))


# ---- speech --------------------------------------------------------------------------------------------------------

SAID = "The weather will be sunny today. Please hold the line. Your order has left and it will arrive on Monday."


def asked(*parts: Any, **more: Any) -> Any:
    from genwright.core import Request, user

    return Request(messages=(user(*parts),), seed=1, **more)


def seconds_of(path: Path) -> float:
    from genwright.media.sound import open_sound

    return open_sound(path).seconds


def voice() -> Any:
    from genwright.core import find_card
    from genwright.nn.voices import open_speaker

    return open_speaker(find_card("hibari").folder, threads=1)


@contender("speak", "Hibari through our door", "seconds of speech")
def speak() -> Iterator[float]:
    speaker, place = voice(), _place()
    list(speaker.generate(asked(SAID, out=place)))
    while True:
        yield seconds_of(place)
        list(speaker.generate(asked(SAID, out=place)))


@contender("speak-theirs", "Hibari by its own package", "seconds of speech")
def speak_theirs() -> Iterator[float]:
    import hibari

    from genwright.core import find_card

    speaker, place = hibari.Hibari(model=str(find_card("hibari").folder / "hibari.onnx"), threads=1), _place()
    speaker.save(SAID, str(place), seed=1)
    while True:
        yield seconds_of(place)
        speaker.save(SAID, str(place), seed=1)


@contender("first", "words to the first sentence, streamed, Hibari", "first sentences")
def first() -> Iterator[float]:
    speaker = voice()
    while True:
        parts = speaker.generate(asked(SAID, out=_place(), options={"partial": True}))
        next(part for part in parts if part.path)
        yield 1.0


@contender("transcribe", "Whisper base through our door", "seconds of speech")
def transcribe() -> Iterator[float]:
    from genwright.core import Part, find_card
    from genwright.nn.whisper import Listener

    listener, place = Listener(find_card("whisper-base").folder, threads=1), _said()
    while True:
        list(listener.generate(asked(Part("audio", path=place), options={"language": "en"})))
        yield seconds_of(place)


@contender("transcribe-theirs", "Whisper base by faster-whisper", "seconds of speech")
def transcribe_theirs() -> Iterator[float]:
    from faster_whisper import WhisperModel  # type: ignore[import-not-found]

    from genwright.core import find_card

    place = _said()
    model = WhisperModel(str(find_card("whisper-base").folder), compute_type="int8", cpu_threads=1)
    while True:
        list(model.transcribe(str(place), language="en", beam_size=5, vad_filter=True)[0])
        yield seconds_of(place)


def _place() -> Path:
    return Path(tempfile.mkdtemp()) / "said.wav"


def _said() -> Path:
    place = _place()
    list(voice().generate(asked(SAID, out=place)))
    return place


if __name__ == "__main__":
    main()
