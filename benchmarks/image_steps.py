"""How few steps from noise to picture are enough? Euler and Heun at 1 to 20 steps, by one model that learns here first.

    python benchmarks/image_steps.py --budget 60
    python benchmarks/image_steps.py --model emoji --guidance 3 --sheet steps.png

The model learns the drawn shapes of image_speed.py for `--budget` processor seconds, or is a card or run that paints
the things of emoji_sheet.py. Then each way paints the same pictures from the same noise. `asks` counts what a picture
asks of the network (twice where it is guided). `apart` is the root mean square distance, in grey levels of 255, to the
same pictures painted in 100 steps of Heun; `odd` is that to the nearest of 4,096 drawn pictures of the same kind,
beside what held-out drawn pictures have.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from emoji_sheet import THINGS
from image_speed import KINDS, caption, drawn, machine, our_fit, our_model, our_rows

WAYS = [(sampler, steps) for steps in (1, 2, 4, 8, 20) for sampler in ("euler", "heun")]
SHAPE = {"size": 32, "patch": 8, "width": 96, "depth": 3, "heads": 3, "batch": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=60, help="processor seconds of learning")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--guidance", type=float, nargs="*", default=[1.0, 3.0])
    parser.add_argument("--model", help="a card or run of pictures, instead of learning")
    parser.add_argument(
        "--sheet", type=Path, help="everything painted, a line for each way; its name is given the guidance"
    )
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    print("\n".join(f"{key}: {value}" for key, value in machine().items()))
    with tempfile.TemporaryDirectory() as folder:
        job = SHAPE | {"threads": args.threads, "folder": folder}
        learner = shipped(args.model) if args.model else taught(job, args.budget)
        for guidance in args.guidance:
            compare(learner, job, guidance, args)


def taught(job: dict[str, Any], budget: float) -> Any:
    rows, when = our_rows(job, 2048), []
    our_fit(job, our_model(job, shipped=True), rows, 7, lambda *_, **__: when.append(time.process_time()))
    steps = max(1, round(budget / statistics.median(b - a for a, b in zip(when[-6:], when[-5:], strict=False))))
    learner, began = our_model(job, shipped=True), time.process_time()
    our_fit(job, learner, rows, steps, lambda *_, **__: None)
    print(f"Learned {steps} steps of {job['batch']} in {time.process_time() - began:.0f} processor seconds.")
    return learner


def shipped(name: str) -> Any:
    from genwright.verbs.models import open_model

    return open_model(name)


def compare(learner: Any, job: dict[str, Any], guidance: float, args: argparse.Namespace) -> None:
    import numpy as np

    from genwright.media.picture import contact_sheet

    def seen(made: Any) -> str:
        return f"{odd(made, range(len(KINDS)), known):6.1f}" if known else ""

    known: dict[int, Any] = {}
    if not args.model:
        pictures, kinds = drawn(job["size"], 4096, 1)
        known = {kind: pictures[np.array(kinds) == kind].astype(np.float32) for kind in range(len(KINDS))}
    words = list(THINGS) if args.model else [caption(kind) for kind in range(len(KINDS))]
    print(
        f"\nguidance {guidance:g}"
        + ("" if args.model else f"; odd of real: {odd(*drawn(job['size'], 30, 2), known):.1f}")
    )
    best, _, _, files = painted(learner, job, "heun", 100, guidance, words)
    print(f"  {'':10} {'asks':>5} {'apart':>6} {'pictures a CPU s':>17} {'odd' if known else '':>6}")
    print(f"  {'heun 100':10} {'':5} {'':6} {'':17} {seen(best)}")
    for sampler, steps in WAYS:
        made, asks, speed, some = painted(learner, job, sampler, steps, guidance, words)
        apart = float(np.sqrt(np.square(made.astype(np.float32) - best).mean()))
        print(f"  {sampler:5}{steps:5} {asks:5.1f} {apart:6.1f} {speed:17.1f} {seen(made)}", flush=True)
        files += some
    if args.sheet:
        said = [f"{way} {word}" for way in ("heun 100", *(f"{a} {b}" for a, b in WAYS)) for word in words]
        contact_sheet(files, said, args.sheet.with_stem(f"{args.sheet.stem}-{guidance:g}"), columns=len(words))


def painted(
    learner: Any, job: dict[str, Any], sampler: str, steps: int, guidance: float, words: list[str]
) -> tuple[Any, float, float, list[Path]]:
    """One picture of each, what one asks of the network, pictures a processor second, and their files."""
    import numpy as np
    from PIL import Image

    from genwright.core import Request, user

    options = {"steps": steps, "sampler": sampler, "guidance": guidance, "snap": 0}
    place = Path(job["folder"], f"{sampler}-{steps}")
    place.mkdir(exist_ok=True)
    asked = [
        Request(messages=(user(said),), seed=number, options=options, out=place / f"{number}.png")
        for number, said in enumerate(words)
    ]
    counts: list[int] = []
    with learner.answering() as module:
        hook = module.register_forward_hook(lambda _, given, found: counts.append(len(found)))
    began = time.process_time()
    answers = dict(learner.generate_many(asked))
    used = time.process_time() - began
    hook.remove()
    files = [answers[number].parts[0].path for number in range(len(words))]
    made = np.stack([np.asarray(Image.open(file)) for file in files])
    return made, sum(counts) / len(words), len(words) / used, files


def odd(made: Any, kinds: Any, known: dict[int, Any]) -> float:
    """Mean over the pictures of the root mean square distance to the nearest known one of its kind."""
    import numpy as np

    near = [np.sqrt(np.square(known[kind] - one).mean((1, 2, 3)).min()) for one, kind in zip(made, kinds, strict=True)]
    return float(np.mean(near))


if __name__ == "__main__":
    main()
