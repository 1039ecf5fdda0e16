"""From rows to a model that answers, in Python: a recipe as plain data, a run, a report, a conversation.

    python examples/01_from_rows_to_a_model.py            about 2 minutes on 2 cores
    python examples/01_from_rows_to_a_model.py --small    a few seconds, to see that it works

It needs nothing but what is installed: the rows are Python's own keywords and their documentation, and the model
begins with random weights, so expect it to learn the style, not to be wise.
"""

import json
import sys
from pathlib import Path
from pydoc_data.topics import topics

import genwright as gw

SMALL = "--small" in sys.argv


def main() -> None:
    rows = Path("python_topics.jsonl")
    with rows.open("w", encoding="utf-8") as file:
        for name, text in sorted(topics.items()):
            for paragraph in text.split("\n\n"):
                words = " ".join(paragraph.split())
                if 40 < len(words) < 400:
                    file.write(json.dumps({"prompt": f"Python, {name}:", "completion": words}) + "\n")

    recipe = gw.Recipe.from_dict(
        {
            "name": "python-topics",
            "data": {"path": str(rows.resolve()), "held_out": 0.05, "limit": 300 if SMALL else None},
            "refine": ["dedupe"],
            "task": {"name": "instruct", "max_length": 160, "max_new_tokens": 40},
            "model": {
                "config": {"model_type": "llama", "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4,
                           "num_attention_heads": 4, "num_key_value_heads": 2},
                "tokenizer": {"train": "bpe", "vocab_size": 2000},
            },
            "method": "full",
            "train": {"learning_rate": 2e-3, "max_steps": 5 if SMALL else 300},
            "metrics": ["perplexity", "chrf"],
            "evaluate": {"max_rows": 4 if SMALL else 40},
        }
    )  # fmt: skip
    run = gw.run(recipe, "runs/python-topics")
    report = json.loads(run.report_file.read_text())
    for row in report["rows"]:
        print(row["metric"], row["tuned"])

    say = gw.chat(run)
    print(say("Python, while:"))
    say.close()


if __name__ == "__main__":
    main()
