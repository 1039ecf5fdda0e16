"""How fast are tunes learned and written here, next to transformers' GPT-2 of the same width, depth and words?

    python benchmarks/music_speed.py --rounds 5 --json music.json

All contenders live in one process with one pinned thread. Each warms up once; then, a round, each works in turn, in an
order that moves on by one, and ratios are taken within a round, so that what else the machine does hits both sides.
The figures are words a second of processor time, real ones: padding counts for nobody. Everything is in fp32.

Training: the same tunes in the same batches, a whole step (batch made of encoded rows, loss, gradient, clip, AdamW).
GPT-2's batch is padded to its longest tune, as its own collator does it. Writing: temperature 0.9 and top-p 0.95 with
a cache on both sides, one tune and sixteen together; ours keeps to whole bars besides, and tells each word what is left
of its bar. Both write with random weights; GPT-2 writes as many words as our tunes had at most. Tunes are scales and
turns of notes, made here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = "1"
PAIRS = (("train", "ours", "gpt2"), ("write-1", "ours", "gpt2"), ("write-16", "ours", "gpt2"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16, help="tunes in a batch of training")
    parser.add_argument("--steps", type=int, default=2, help="steps of training a turn")
    parser.add_argument("--longest", type=int, default=128, help="most words of a tune that is written")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = THREADS
    import torch

    torch.set_num_threads(int(THREADS))
    torch.manual_seed(0)
    work = contenders(args)
    for turn in work.values():
        turn()
    found: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for number in range(args.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            started = time.process_time()
            words = work[name]()
            found[name].append(words / (time.process_time() - started))
            print(f"  round {number + 1} {name:16} {found[name][-1]:8.0f} words a processor second", flush=True)
    report(found, args)


def report(found: dict[str, list[float]], args: argparse.Namespace) -> None:
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, one thread, {args.rounds} rounds, medians")
    for part, ours, theirs in PAIRS:
        ratios = [a / b for a, b in zip(found[f"{part}-{ours}"], found[f"{part}-{theirs}"], strict=True)]
        middle = statistics.median
        print(f"  {part:9} {middle(found[f'{part}-{ours}']):8.0f} beside {middle(found[f'{part}-{theirs}']):8.0f}:"
              f" {middle(ratios):.2f} × ({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps({"command": sys.argv, "words_per_cpu_second": found}, indent=1))


def contenders(args: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """What each does in its turn; it gives the number of words."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from genwright.media.score import WORDS
    from genwright.nn.abc_lm import AbcLM
    from genwright.nn.abc_options import AbcConfig

    shape = {"width": args.width, "depth": args.depth, "heads": args.heads}
    ours, writer = AbcLM(AbcConfig(**shape, longest=512)), AbcLM(AbcConfig(**shape, longest=args.longest))
    theirs = GPT2LMHeadModel(GPT2Config(
        vocab_size=WORDS + 1, n_positions=512, n_embd=args.width, n_layer=args.depth, n_head=args.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=WORDS, eos_token_id=0, pad_token_id=0,
    ))  # fmt: skip
    for name, module in (("ours", ours.module), ("GPT-2", theirs)):
        print(f"{name}: {sum(p.numel() for p in module.parameters()):,} numbers")
    items = [ours.encode(row) for row in tunes(8 * args.rows)]
    batches = [items[start : start + args.rows] for start in range(0, len(items), args.rows)]
    learner = Steps(ours.module), Steps(theirs)

    def train_ours() -> float:
        words = 0
        for batch in learner[0].next(batches, args.steps):
            packed = ours.collate(batch)
            learner[0].step(lambda packed=packed: ours.loss(packed) / packed.weight)
            words += len(packed.tokens)
        return words

    def train_theirs() -> float:
        words = 0
        for batch in learner[1].next(batches, args.steps):
            rows = [torch.tensor([WORDS, *one.sequences[0]["told"], *one.sequences[0]["words"]]) for one in batch]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=WORDS)
            there = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
            labels = ids.masked_fill(~there, -100)
            learner[1].step(lambda i=ids, t=there, y=labels: theirs(i, attention_mask=t.long(), labels=y).loss)
            words += int(there.sum()) - len(rows)
        return words

    def write(count: int) -> tuple[Callable[[], float], Callable[[], float]]:
        longest = [0]

        def write_ours() -> float:
            from genwright.nn.abc_options import TuneOptions
            from genwright.nn.abc_writing import Wish, write

            made = write(writer, [Wish(k, TuneOptions(), {"metre": "6/8"}, k) for k in range(count)])
            longest[0] = max(one.chosen for one in made)
            return sum(one.chosen for one in made)

        def write_theirs() -> float:
            theirs.eval()
            begin = torch.full((count, 1), WORDS)
            with torch.no_grad():
                made = theirs.generate(
                    begin, attention_mask=torch.ones_like(begin), do_sample=True, temperature=0.9, top_p=0.95, top_k=0,
                    min_new_tokens=longest[0], max_new_tokens=longest[0], use_cache=True,
                )  # fmt: skip
            return float((made.shape[1] - 1) * count)

        return write_ours, write_theirs

    one, sixteen = write(1), write(16)
    return {"train-ours": train_ours, "train-gpt2": train_theirs, "write-1-ours": one[0], "write-1-gpt2": one[1],
            "write-16-ours": sixteen[0], "write-16-gpt2": sixteen[1]}  # fmt: skip


class Steps:
    """The plain training step of the field, the same for both."""

    def __init__(self, module: Any):
        import torch

        self.module, self.at = module, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def next(self, batches: list[Any], count: int) -> list[Any]:
        self.module.train()
        some = [batches[(self.at + step) % len(batches)] for step in range(count)]
        self.at += count
        return some

    def step(self, loss: Callable[[], Any]) -> None:
        import torch

        loss().backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def tunes(count: int) -> list[Any]:
    """Rows of tunes of 8 to 32 bars in 6/8 and 4/4."""
    from genwright.core import Example, assistant, user

    chance, rows = random.Random(0), []
    for _ in range(count):
        metre, notes = chance.choice((("6/8", 6), ("4/4", 8)))
        bars, at = [], 4
        for _ in range(chance.choice((8, 16, 16, 24, 32))):
            bar = []
            for _ in range(notes):
                at = min(13, max(0, at + chance.choice((-2, -1, -1, 1, 1, 2))))
                bar.append("CDEFGABcdefgab"[at])
            bars.append("".join(bar))
        text = f"X:1\nT:Made\nR:jig\nM:{metre}\nL:1/8\nK:G\n{'|'.join(bars)}||\n"
        rows.append(Example((user("a tune"), assistant(text))))
    return rows


if __name__ == "__main__":
    main()
