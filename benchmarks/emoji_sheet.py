"""What do picture models paint for common words, in English and in Chinese? A sheet to be looked at, nothing chosen.

    python benchmarks/emoji_sheet.py emoji --out docs/pictures/emoji.jpg
    python benchmarks/emoji_sheet.py runs/emoji runs/emoji_dalle runs/emoji_stylegan --styles twemoji --seed 7

Every word is asked once in each style with the same seed; all that comes is on the sheet, model by model: English
words, then the same things in Chinese. Whether a thing can be recognised is for a person to say. Printed: processor
seconds a picture, and for runs a table of what training took and of how `genwright evaluate` judged them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

THINGS = {
    "red heart": "红心", "grinning face": "笑脸", "crying face": "哭脸", "red apple": "红苹果",
    "cat face": "猫脸", "dog face": "狗脸", "sun": "太阳", "pizza": "披萨",
    "red car": "红色汽车", "tree": "树", "rose": "玫瑰", "house": "房子",
    "soccer ball": "足球", "fire": "火焰", "banana": "香蕉", "fish": "鱼",
    "crescent moon": "弯月", "airplane": "飞机", "birthday cake": "生日蛋糕", "ghost": "幽灵",
    "star": "星星", "umbrella": "雨伞", "cup of coffee": "一杯咖啡", "book": "书",
}  # fmt: skip


def main() -> None:
    from genwright.media.picture import contact_sheet

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="runs, cards or folders")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--styles", nargs="*", help="the first two that a model knows if not told")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    options = {key: json.loads(value) for key, _, value in (pair.partition("=") for pair in args.option)}
    pictures, captions, taken = list[Path](), list[str](), {}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(args.models):
            made, taken[name] = painted(name, args.styles, options, args.seed, Path(folder, str(number)))
            pictures += made
            captions += captions_of(len(made))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(pictures, captions, args.out, side=72, columns=len(THINGS) // 2)
    print(f"Seed {args.seed}, {options or 'as they ship'}; look at {args.out}. Processor seconds a picture:")
    for name, seconds in taken.items():
        print(f"  {name}: {seconds:.2f}")
    runs = [Path(name) for name in args.models if Path(name, "report.json").is_file()]
    if runs:
        print("\n" + side_by_side(runs))


def painted(name: str, styles: list[str] | None, options: dict[str, Any], seed: int, folder: Path) -> tuple[Any, float]:
    """A picture of every thing in both languages and each style, and the processor seconds that one took."""
    from genwright.core import user
    from genwright.verbs.ask import open_answerer

    folder.mkdir()
    answerer, made = open_answerer(name, task="text_to_image"), list[Path]()
    used = time.process_time()
    for language in (0, 1):
        for style in styles or list(answerer.model.styles)[:2]:
            for words in THINGS.items():
                made.append(folder / f"{len(made)}.png")
                for _ in answerer.ask(
                    [user(words[language])], options={"style": style, **options}, seed=seed, out=made[-1]
                ):
                    pass
    return made, (time.process_time() - used) / len(made)


def captions_of(count: int) -> list[str]:
    """Of that many pictures, half of them asked for in English and half in Chinese."""
    rounds = count // 2 // len(THINGS)
    return [*THINGS] * rounds + [*THINGS.values()] * rounds


def side_by_side(runs: list[Path]) -> str:
    """A Markdown table of runs: what training took, and each metric with its interval."""
    columns = [facts_of(run) for run in runs]
    keys = list(dict.fromkeys(key for facts in columns for key in facts))
    lines = [["", *(run.name for run in runs)], ["---"] * (len(runs) + 1)]
    lines += [[key, *(facts.get(key, "") for facts in columns)] for key in keys]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def facts_of(run: Path) -> dict[str, str]:
    from genwright.core import Run

    report = json.loads((run / "report.json").read_text())
    ends = list(Run(run).events("tune.end"))
    facts = {}
    if ends:
        end = ends[-1]
        facts = {
            "numbers learned": f"{end['trainable'] / 1e6:.1f} M",
            "pictures seen": f"{end['epochs'] * end['rows']:,.0f}",
            "seconds of learning": f"{end['seconds']:,.0f}",
        }
    for row in report["rows"]:
        score = row["tuned"] or row["base"]
        facts[f"{row['metric']} ({score['unit']})"] = (
            f"{score['value']:.3g} ({score['low']:.3g} to {score['high']:.3g})"
        )
    return facts


if __name__ == "__main__":
    main()
