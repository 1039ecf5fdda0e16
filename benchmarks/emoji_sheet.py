"""What does a picture model paint for common words, in English and in Chinese? A sheet to be looked at, nothing chosen.

    python benchmarks/emoji_sheet.py emoji --out docs/pictures/emoji.png
    python benchmarks/emoji_sheet.py runs/emoji --styles twemoji noto --seed 7 --option guidance=4

Every word is asked once in each style with the same seed; all that comes is on the sheet, row by row: English words,
then the same things in Chinese. Whether a thing can be recognised is for a person to say. Printed: processor seconds
a picture.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

THINGS = {
    "red heart": "红心", "grinning face": "笑脸", "crying face": "哭脸", "red apple": "红苹果",
    "cat face": "猫脸", "dog face": "狗脸", "sun": "太阳", "pizza": "披萨",
    "red car": "红色汽车", "tree": "树", "rose": "玫瑰", "house": "房子",
    "soccer ball": "足球", "fire": "火焰", "banana": "香蕉", "fish": "鱼",
    "crescent moon": "弯月", "airplane": "飞机", "birthday cake": "生日蛋糕", "ghost": "幽灵",
    "star": "星星", "umbrella": "雨伞", "cup of coffee": "一杯咖啡", "book": "书",
}  # fmt: skip


def main() -> None:
    from genwright.core import user
    from genwright.media.picture import contact_sheet
    from genwright.verbs.ask import open_answerer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a run, card or folder")
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--styles", nargs="*", help="the first two that it knows if not told")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    answerer = open_answerer(args.model, task="text_to_image")
    styles = args.styles or list(answerer.model.styles)[:2]
    options = {key: float(value) for key, _, value in (pair.partition("=") for pair in args.option)}
    pictures, captions = [], []
    with tempfile.TemporaryDirectory() as folder:
        used = time.process_time()
        for language in (0, 1):
            for style in styles:
                for number, words in enumerate(THINGS.items()):
                    out = Path(folder, f"{language}-{style}-{number}.png")
                    asked = [user(words[language])]
                    for _ in answerer.ask(asked, options={"style": style, **options}, seed=args.seed, out=out):
                        pass
                    pictures.append(out)
                    captions.append(words[language])
        used = time.process_time() - used
        args.out.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(pictures, captions, args.out, side=72, columns=len(THINGS) // 2)
    print(f"{len(pictures)} pictures in the styles {', '.join(styles)}, seed {args.seed}, {options or 'as it ships'}:")
    print(f"{used / len(pictures):.2f} processor seconds each. Look at {args.out}")


if __name__ == "__main__":
    main()
