"""Does a GGUF file answer like the model that it was made from?

    python benchmarks/gguf_round_trip.py FOLDER [--rows held_out.jsonl] [--json]

FOLDER is a causal LM in Hugging Face's layout. It is written as GGUF in several precisions, each file is answered by
llama.cpp, and both are compared on the same conversations (rows of a prepared dataset, or the dozen below):

- perplexity of reference answers (the rows' own, or the float32 model's greedy ones), by transformers in float32 and
  by llama.cpp, over exactly the same tokens;
- agreement: along the float32 model's greedy answers, how often the file's likeliest token is theirs;
- same start: the share of those tokens that the file repeats before its first difference (one near tie ends it).

Exit code 1 when a file is outside its bound. The bounds of f16 and q8_0 say that nothing was lost; those of fewer bits
are what such a small model loses by the quantisation itself (SmolLM2-135M: a matrix is off by 4.6 % at q5_1, 8.5 % at
q4_0) with some room, and would catch a tensor written wrongly. A model that was dequantised from Q4_1 loses nothing at
q4_1, for its weights lie on that grid.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from genwright.core import Dataset, Example, Request, assistant, user
from genwright.engines import causal_lm, gguf
from genwright.nn.gguf_writer import write_gguf
from genwright.nn.grammar import only

# precision -> (largest relative change of perplexity, smallest agreement)
BOUNDS = {"f16": (0.005, 0.99), "q8_0": (0.02, 0.95), "q5_1": (0.3, 0.7), "q4_1": (0.35, 0.7), "q4_0": (0.6, 0.65)}
QUESTIONS = [
    "What is photosynthesis?", "Write a short poem about the sea.", "List three uses of a paper clip.",
    "Explain gravity to a child.", "Who wrote Hamlet?", "How do I boil an egg?", "Translate 'good morning' to French.",
    "Give me a name for a cat and say why.", "What is 17 + 25?", "Describe a market in the early morning.",
    "Why is the sky blue?", "Write a polite email asking for a day off.",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, help="a prepared dataset (canonical JSON lines)")
    parser.add_argument("--count", type=int, default=12, help="conversations compared")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of a greedy answer")
    parser.add_argument("--precisions", nargs="+", default=list(BOUNDS), choices=list(BOUNDS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    learner = causal_lm.load(args.folder, causal_lm.Settings(dtype="float32"))
    asked = [e.prompt for e in Dataset.open(args.rows)[: args.count]] if args.rows else [(user(q),) for q in QUESTIONS]
    requests = [Request(messages=messages, max_new_tokens=args.tokens) for messages in asked[: args.count]]
    told = [learner.tokenizer(_answer(learner, request), add_special_tokens=False).input_ids for request in requests]
    answers = [learner.tokenizer.decode(ids) for ids in told]
    pairs = zip(requests, answers, strict=True)
    own = [Example((*request.messages, assistant(said))) for request, said in pairs]
    examples = list(Dataset.open(args.rows)[: args.count]) if args.rows else own
    reference = _perplexity(learner, examples)
    rows = [_compare(learner, precision, requests, told, examples, reference) for precision in args.precisions]
    if args.json:
        print(json.dumps({"model": str(args.folder), "perplexity": reference, "files": rows}, indent=1))
    else:
        print(f"float32 perplexity {reference:.3f} over {len(examples)} answers")
        names = ("file", "MB", "ppl", "change", "bound", "agreement", "bound", "same start")
        print("{:6} {:>7} {:>8} {:>8} {:>7} {:>10} {:>6} {:>11}  ok".format(*names))
        for row in rows:
            print(f"{row['precision']:6} {row['bytes'] / 1e6:7.1f} {row['perplexity']:8.3f} {row['change']:+8.2%} "
                  f"{row['largest_change']:7.1%} {row['agreement']:10.3f} {row['smallest_agreement']:6.2f} "
                  f"{row['same_start']:11.3f}  {row['ok']}")  # fmt: skip
    return 0 if all(row["ok"] for row in rows) else 1


def _compare(
    learner: Any,
    precision: str,
    requests: list[Request],
    told: list[list[int]],
    examples: list[Example],
    reference: float,
) -> dict[str, Any]:
    """One file: written, answered, measured."""
    largest, smallest = BOUNDS[precision]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{precision}.gguf"
        started = time.monotonic()
        write_gguf(path, learner.module.state_dict(), learner.module.config, learner.tokenizer, quantization=precision)
        seconds, size = time.monotonic() - started, path.stat().st_size
        model = gguf.load(path, gguf.Settings(runner="llama.cpp", context=2048))
        try:
            perplexity = _perplexity(model, examples)
            agreement = _agreement(model, requests, told)
            found = dict(model.generate_many(requests))
            same = total = 0
            for number, wanted in enumerate(told):
                ids = learner.tokenizer(found[number].text, add_special_tokens=False).input_ids
                pairs = zip(ids, wanted, strict=False)
                alike = min(len(ids), len(wanted))
                same += next((i for i, (a, b) in enumerate(pairs) if a != b), alike)
                total += max(len(ids), len(wanted))
        finally:
            model.close()
    change = perplexity / reference - 1
    return {"precision": precision, "bytes": size, "write_seconds": round(seconds, 2), "perplexity": perplexity,
            "change": change, "largest_change": largest, "agreement": agreement, "smallest_agreement": smallest,
            "same_start": same / total,
            "ok": abs(change) <= largest and agreement >= smallest}  # fmt: skip


def _agreement(model: Any, requests: list[Request], told: list[list[int]]) -> float:
    """Led along the answers by a grammar of their tokens, what would the file have said at each place?"""
    alike = total = 0
    for request, wanted in zip(requests, told, strict=True):
        prompt = model.prompt(request.messages).ids
        for event in model.runner.complete(
            prompt, n_predict=len(wanted), temperature=0.0, n_probs=1, grammar=only(wanted)
        ):
            for place in event.get("completion_probabilities", []):
                alike += place["top_logprobs"][0]["id"] == place["id"]
                total += 1
    return alike / total


def _answer(model: Any, request: Request) -> str:
    return "".join(part.text for part in model.generate(request))


def _perplexity(model: Any, examples: list[Example]) -> float:
    """Over all tokens of all answers, their ends included."""
    found = list(model.likelihood(examples))
    return math.exp(sum(one.nll for one in found) / sum(one.tokens for one in found))


if __name__ == "__main__":
    sys.exit(main())
