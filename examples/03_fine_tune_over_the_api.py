"""Upload, fine-tune, chat: OpenAI's own client against a server on this machine.

    python examples/03_fine_tune_over_the_api.py            SmolLM2-135M learns to answer in a word; a minute on 2 cores
    python examples/03_fine_tune_over_the_api.py --small    a random model of a few kilobytes, to see that it works

A program that fine-tunes by OpenAI's API needs one change: `base_url`.
"""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import openai

import genwright as gw

SMALL = "--small" in sys.argv
CITIES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Egypt": "Cairo", "Japan": "Tokyo", "Peru": "Lima",
          "Kenya": "Nairobi", "Norway": "Oslo", "Cuba": "Havana", "Greece": "Athens", "Chile": "Santiago",
          "Poland": "Warsaw"}  # fmt: skip


def main() -> None:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "genwright", "serve", base_model(), "--port", str(port),
                               "--data", "server-data"], stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        tune_and_ask(client, first_model(client))
    finally:
        server.terminate()
        server.wait()


def tune_and_ask(client: openai.OpenAI, base: str) -> None:
    """What a program would do anywhere."""
    rows = [{"messages": [{"role": "user", "content": f"What is the capital of {country}?"},
                          {"role": "assistant", "content": city}]} for country, city in CITIES.items()]  # fmt: skip
    data = "\n".join(map(json.dumps, rows)).encode()
    file = client.files.create(file=("capitals.jsonl", data), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=base, training_file=file.id, suffix="capitals",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2 if SMALL else 6}}},
    )  # fmt: skip
    while job.status not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
        print(event.message)
    if job.status != "succeeded":
        raise SystemExit(f"The job {job.status}: {job.error}")
    question = "What is the capital of France?"
    for model in (base, job.fine_tuned_model):
        answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": question}],
                                                temperature=0, max_tokens=30)  # fmt: skip
        print(f"{model}: {answer.choices[0].message.content}")


def base_model() -> str:
    """The demo's model; with --small one with random weights, made here by a recipe."""
    if not SMALL:
        return "smollm2-135m-instruct"
    rows = Path("rows.jsonl").resolve()
    rows.write_text("\n".join(json.dumps({"prompt": f"{a}?", "completion": b}) for a, b in CITIES.items()))
    shape = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
             "num_attention_heads": 2, "num_key_value_heads": 2}  # fmt: skip
    recipe = {
        "name": "small", "data": {"path": str(rows), "held_out": 0.0}, "task": {"name": "chat", "max_length": 64},
        "model": {"config": shape, "tokenizer": {"train": "bpe", "vocab_size": 300}}, "method": "full",
        "train": {"max_steps": 2},
    }  # fmt: skip
    return str(gw.run(gw.Recipe.from_dict(recipe), "runs/small", until="tune").folder)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])


def first_model(client: openai.OpenAI) -> str:
    """The name of the served model, once the server is there."""
    while True:
        try:
            return client.models.list().data[0].id
        except openai.APIConnectionError:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
