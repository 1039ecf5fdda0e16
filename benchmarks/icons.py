"""What a model of icons is worth: do its words count, does it copy, and sheets to look at.

    python benchmarks/icons.py runs/icons [--model icons] [--sheet FOLDER] [--json FILE]

Bits a word by what is told: icons that are called as an emoji is (emojibase's label) have a Chinese name by people,
which no icon was learned with. Each is read under its English name, its Chinese name, the name of another, and told
nothing: what the right name saves is what the model understood of it; on held-out icons, and on learned ones.

Copies: answers nearer to a learned icon than 95 of 100 held-out icons are (`copied_pictures`), of 24 things that people
ask for in two languages, and of the held-out icons' names that were learned. Where the held-out icons are a set that
the model never saw, that is what another hand draws for the same things.

With --sheet only the sheets are made, by one seed, and nothing is picked.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genwright.core import Dataset, Example, Judged, Part, Request, assistant, choose, user
from genwright.core.home import store
from genwright.core.model import Unlearnable
from genwright.media.picture import contact_sheet
from genwright.nn.svg_lm import packed
from genwright.verbs.models import open_model

COMMON = {
    "arrow right": "向右箭头", "heart": "爱心", "house": "房子", "star": "星星", "cloud with rain": "下雨的云",
    "calendar": "日历", "user": "用户", "shopping cart": "购物车", "lock": "锁", "cat": "猫", "smiling face": "笑脸",
    "document with a check mark": "打勾的文件", "bar chart": "柱状图", "battery": "电池", "phone": "手机", "tree": "树",
    "camera": "相机", "bell": "铃铛", "a cup of coffee": "一杯咖啡", "car": "汽车", "rocket": "火箭", "moon": "月亮",
    "envelope": "信封", "trash can": "垃圾桶",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run, whose rows are read")
    parser.add_argument("--model", help="a model or card in place of the run's own")
    parser.add_argument("--sheet", type=Path, help="a folder for the sheets")
    parser.add_argument("--seed", type=int, default=1, help="of the sheets")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model: Any = open_model(args.model or str(args.run))
    held_out, train = (list(Dataset.open(args.run / "data" / f"{name}.jsonl")) for name in ("held_out", "train"))
    if args.sheet:
        sheets(model, held_out, args.sheet, args.seed)
        return
    found = {"copies": copies(model, train, held_out), "held out": languages(model, held_out),
             "learned": languages(model, Dataset(train).sample(2000, 0))}  # fmt: skip
    for side, values in found.items():
        for name, value in values.items():
            print(f"{side:9} {name:34} {value:.3f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2))


def languages(model: Any, rows: Sequence[Example]) -> dict[str, float]:
    """Bits a word by what is told."""
    known = chinese()
    called = [row for row in rows if str(row.meta.get("concept")) in known]
    both = [(str(row.meta["concept"]), read) for row in called if (read := encoded(model, row))]
    named = [read for _, read in both]
    told = {"english": [name for name, _ in both]}
    told["chinese"] = [known[name] for name in told["english"]]
    told["another's, english"] = told["english"][1:] + told["english"][:1]
    told["another's, chinese"] = told["chinese"][1:] + told["chinese"][:1]
    found: dict[str, float] = {"icons": len(named)}
    bits = {name: bits_of(model, named, words) for name, words in told.items()}
    bits["nothing"] = bits_of(model, named, ["" for _ in named])
    for name, each in bits.items():
        found[f"bits a word: {name}"] = float(each[:, 0].sum() / each[:, 1].sum())
    for name in ("english", "chinese"):
        better = bits[name][:, 0] < bits[f"another's, {name}"][:, 0]
        found[f"right name likelier: {name}"] = float(better.mean())
    return found


def encoded(model: Any, row: Example) -> Any:
    """The words of a row's drawing; None where the model cannot read it."""
    try:
        return model.encode(row).sequences[0]
    except Unlearnable:
        return None


def copies(model: Any, train: Sequence[Example], held_out: Sequence[Example]) -> dict[str, float]:
    """Shares of near copies, and the median distance to the nearest learned icon."""
    learned = {row.meta.get("concept") for row in train}
    known = [str(row.meta["concept"]) for row in held_out if row.meta.get("concept") in learned]
    asked = {"english": list(COMMON), "chinese": list(COMMON.values()), "another hand's names": known}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, prompts in asked.items():
            made = [drawn(model, words, Path(folder) / f"{name}-{n}.svg", 0) for n, words in enumerate(prompts)]
            pairs = [Judged(held_out[0], assistant(Part("image", path=path))) for path in made]
            score = choose("metrics", "copied_pictures")(pairs, train=train, held_out=held_out)
            found |= {f"{name}: share": score.value, f"{name}: at least": score.low, f"{name}: at most": score.high}
            found[f"{name}: median distance"] = score.details["median_distance"]
    found["held-out icons: median distance"] = score.details["references_median_distance"]
    found["distance below which it is a copy"] = score.details["threshold"]
    return found


def bits_of(model: Any, rows: Sequence[dict[str, Any]], words: Sequence[str]) -> np.ndarray:
    """(rows, 2): bits and words of each encoded drawing under these words; blank ones tell nothing."""
    import torch

    found = []
    for row, said in zip(rows, words, strict=True):
        batch = packed([row], list(model.reader([said])))
        with model.answering(), torch.no_grad():
            chances = model._chances(batch, torch.tensor([not said])).gather(1, batch.targets[:, None])
        found.append((-float(chances.sum()) / math.log(2), len(batch.targets)))
    return np.array(found)


def chinese() -> dict[str, str]:
    """English label of an emoji -> its Chinese label."""
    folder = store() / "cards" / "emoji-noto"
    both = [json.loads((folder / f"emojibase.{language}.json").read_text("utf-8")) for language in ("en", "zh")]
    labels = {row["hexcode"]: row["label"] for row in both[1]}
    return {row["label"].lower(): labels[row["hexcode"]] for row in both[0] if row["hexcode"] in labels}


def sheets(model: Any, rows: Sequence[Example], folder: Path, seed: int) -> None:
    """common.png: 24 prompts in English and Chinese, with the names that they were taken for; held_out.png: true icons
    and what their names give."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = [words for pair in COMMON.items() for words in pair]
    common = [drawn(model, words, folder / f"common-{n}.svg", seed) for n, words in enumerate(prompts)]
    taken = [model.understood(words, 0.6) for words in prompts]
    said = [
        f"{english}{zh}: {taken[2 * n + k]}" for n, english in enumerate(COMMON) for k, zh in enumerate(("", " zh"))
    ]
    contact_sheet(common, said, folder / "common.png", columns=12)
    some = rows[:: max(1, len(rows) // 40)][:40]
    names = [str(row.meta["concept"]) for row in some]
    made = [drawn(model, words, folder / f"held_out-{n}.svg", seed) for n, words in enumerate(names)]
    both = [path for row, path in zip(some, made, strict=True) for path in (row.answer.parts[0].path, path)]
    contact_sheet(
        both, [words for name in names for words in (f"{name} (true)", name)], folder / "held_out.png", columns=8
    )


def drawn(model: Any, words: str, path: Path, seed: int) -> Path:
    asked = Request(messages=(user(words),), seed=seed, out=path)
    return next(part.path for part in model.generate(asked) if part.path)


if __name__ == "__main__":
    main()
