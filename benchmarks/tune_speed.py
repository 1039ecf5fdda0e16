"""How fast does LoRA tuning of a SmolLM2-135M go here, next to the tools people use for it?

    python benchmarks/tune_speed.py --model FOLDER --peer-python /venv/bin/python --data instruct --rounds 5

Every contender runs in a process of its own with the same number of pinned threads, the same saved model, the same rows
in batches of 8 (LoRA rank 8 on every linear layer, AdamW, constant learning rate), once a round, one after the other; a
ratio is taken within a round, so that what else the machine does hits both sides. On a busy machine look at the tokens
a processor second, with one thread (threads that wait for each other burn time too). The first step is left out of the
speeds, and told as the time to the first step, from the start of the process. The rows are slices of Python's own
documentation (`pydoc_data.topics`): lengths log-normal, median 120, at most 512, the first 40 to 75 % of a row prompt;
with `--data packed`, full rows of 512 tokens, all supervised.

Without --model, a random model of that shape is made. A peer that cannot be imported or fails is reported with the
reason. Peers: `pip install torch trl peft accelerate datasets` (and `litgpt`) into a venv of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

STARTED = time.perf_counter()
IGNORE, BATCH, LONGEST, RATE, RANK = -100, 8, 512, 5e-4, 8
SHAPE = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    head_dim=64, vocab_size=49152, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    rope_parameters={"rope_theta": 1e5, "rope_type": "default"},
)  # fmt: skip
CONTENDERS = {  # name: (interpreter, what it is)
    "ours": ("own", "Genwright, bf16"),
    "ours-fp32": ("own", "Genwright, fp32"),
    "naive": ("own", "padded to 512, all logits, fp32"),
    "hf": ("peer", "HF Trainer + PEFT, defaults (fp32, padded to the longest)"),
    "hf-bf16": ("peer", "HF Trainer + PEFT, bf16 autocast, grouped by length"),
    "hf-best": ("peer", "HF Trainer + PEFT, bf16 weights, grouped by length"),
    "hf-single": ("peer", "HF Trainer + PEFT, bf16 weights, batches of 1 accumulated (no padding)"),
    "trl": ("peer", "TRL SFTTrainer, defaults (bf16, checkpointing, chunked loss)"),
    "trl-best": ("peer", "TRL SFTTrainer, bf16 weights, no checkpointing, grouped by length, chunked loss"),
    "trl-packing": ("peer", "TRL SFTTrainer, packing='wrapped', bf16 weights, no checkpointing"),
    "litgpt": ("litgpt", "LitGPT's model, LoRA and chunked loss, bf16, batches of 1 accumulated (no padding)"),
}
SHORT = {"naive": 3}  # steps a round after the first round: it is slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="folder of a SmolLM2-135M in transformers format, with its tokenizer"
    )
    parser.add_argument("--peer-python", help="interpreter with transformers, peft, trl")
    parser.add_argument("--litgpt-python", help="interpreter with litgpt")
    parser.add_argument("--data", choices=["instruct", "packed"], default="instruct")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of 8 rows each, the first not timed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="contenders; all if not told")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, json.loads(args.job.read_text()))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


# ---- the parent: rows, rounds, table -------------------------------------------------------------------------------


def compare(args: argparse.Namespace, folder: Path) -> None:
    job = {"threads": args.threads, "data": args.data, "steps": args.steps, "folder": str(folder)}
    job["model"] = str(args.model or folder / "model")
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    ceiling = run_child(sys.executable, "prepare", path, args.threads)
    job |= {"ceiling": ceiling}
    print(
        f"Matrix products, {args.threads} threads: "
        + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in ceiling["ceiling"].items())
    )
    print(
        f"Rows: {ceiling['rows']} to learn, {ceiling['held_out']} held out, their loss before: {ceiling['loss']:.4f}\n"
    )
    interpreters = {"own": sys.executable, "peer": args.peer_python, "litgpt": args.litgpt_python}
    names = args.only or list(CONTENDERS)
    results: dict[str, list[dict]] = {name: [] for name in names}
    missing: dict[str, str] = {}
    for number in range(args.rounds):
        for name in names:
            if name in missing:
                continue
            python = interpreters[CONTENDERS[name][0]]
            steps = min(args.steps, SHORT.get(name, args.steps)) if number else args.steps
            path.write_text(json.dumps(job | {"steps": steps}))
            found = run_child(python, name, path, args.threads) if python else {"error": "no interpreter given for it"}
            if "error" in found:
                missing[name] = found["error"]
                print(f"  {name}: not measured: {found['error']}", flush=True)
                continue
            results[name].append(found)
            print(
                f"  round {number + 1} {name:12} {found['real_per_s']:7.1f} real tokens/s"
                f" {found['real_per_cpu_s']:7.1f} a processor second", flush=True,
            )  # fmt: skip
    report(args, ceiling, {name: rows for name, rows in results.items() if rows}, missing)


def run_child(python: str, name: str, job: Path, threads: int) -> dict:
    env = os.environ | {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env |= {
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
        "HF_DATASETS_CACHE": str(job.parent / "cache"),
    }
    done = subprocess.run(
        [python, __file__, "--child", name, "--job", str(job)], env=env, capture_output=True, text=True, cwd=job.parent
    )
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}


def report(args: argparse.Namespace, ceiling: dict, results: dict[str, list[dict]], missing: dict[str, str]) -> None:
    def middle(name: str, key: str) -> float:
        return statistics.median(r[key] for r in results[name])

    print(f"\n{args.data} data, {args.rounds} rounds, medians; share = of the matrix-product ceiling of the dtype\n")
    print(
        f"{'contender':12} {'real/s':>8} {'superv./s':>9} {'slots/s':>8} {'share':>6}"
        f" {'1st step s':>10} {'RSS GB':>7} {'loss':>7}"
    )
    for name, rows in results.items():
        share = middle(name, "gflops_per_s") / ceiling["ceiling"][rows[0]["dtype"]]
        print(
            f"{name:12} {middle(name, 'real_per_s'):8.1f} {middle(name, 'supervised_per_s'):9.1f}"
            f" {middle(name, 'slots_per_s'):8.1f} {share:6.0%} {middle(name, 'first_step_s'):10.1f}"
            f" {middle(name, 'peak_gb'):7.2f} {rows[0]['loss']:7.4f}  {CONTENDERS[name][1]}"
        )
    ratios: dict[str, dict[str, list[float]]] = {}
    for mine in [name for name in ("ours", "ours-fp32") if name in results]:
        print(f"\n{mine} ÷ other, real tokens, within a round; memory: other ÷ {mine}")
        print(f"  {'':12} a second: min  median     max   a processor second: median   memory")
        ratios[mine] = {}
        for name, rows in results.items():
            if name != mine:
                pairs = list(zip(results[mine], rows, strict=True))
                each = [a["real_per_s"] / b["real_per_s"] for a, b in pairs]
                used = statistics.median(a["real_per_cpu_s"] / b["real_per_cpu_s"] for a, b in pairs)
                ratios[mine][name] = each
                memory = middle(name, "peak_gb") / middle(mine, "peak_gb")
                middling = statistics.median(each)
                print(f"  {name:12} {min(each):13.2f} {middling:7.2f} {max(each):7.2f} {used:28.2f} {memory:8.2f}")
    for name, reason in missing.items():
        print(f"\nNot measured: {name}: {reason}")
    if args.json:
        facts = {"command": sys.argv, "ceiling": ceiling, "results": results, "ratios": ratios, "missing": missing}
        args.json.write_text(json.dumps(facts, indent=1))


# ---- rows and model ------------------------------------------------------------------------------------------------


def prepare(job: dict) -> dict:
    """Save the rows (and a random model, if none was given); measure the ceiling and the untouched model's loss."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    if not Path(job["model"]).exists():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(job["model"])
    count = job["steps"] * BATCH
    rows = make_rows(job, count, seed=1)
    held_out = make_rows(job, 16, seed=2)
    for name, each in (("rows", rows), ("held_out", held_out)):
        Path(job["folder"], f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in each))
    loss = held_out_loss(AutoModelForCausalLM.from_pretrained(job["model"]), held_out)
    return {"ceiling": measure_ceiling(), "rows": len(rows), "held_out": len(held_out), "loss": loss}


def make_rows(job: dict, count: int, seed: int) -> list[dict]:
    """Rows as token ids and labels; held-out rows (seed 2) come from the last tenth of the text."""
    ids = text_ids(job["model"])
    edge = len(ids) * 9 // 10
    ids = ids[edge:] if seed == 2 else ids[:edge]
    made, rows = random.Random(seed), []
    for _ in range(count):
        length = (
            LONGEST
            if job["data"] == "packed"
            else max(16, min(LONGEST, round(made.lognormvariate(math.log(120), 0.7))))
        )
        start = made.randrange(len(ids) - length)
        tokens = ids[start : start + length]
        prompt = 0 if job["data"] == "packed" else round(length * made.uniform(0.40, 0.75))
        rows.append({"input_ids": tokens, "labels": [IGNORE] * prompt + tokens[prompt:]})
    return rows


def text_ids(model: str) -> list[int]:
    import pydoc_data.topics

    text = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    if Path(model, "tokenizer.json").exists():
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(Path(model, "tokenizer.json"))).encode(text).ids
    return [10 + zlib.crc32(word.encode()) % 49000 for word in text.split()]


def measure_ceiling() -> dict[str, float]:
    """Best speed of a matrix product of 2048³, GFLOP/s."""
    import torch

    best = {}
    for name in ("float32", "bfloat16"):
        a = torch.randn(2048, 2048, dtype=getattr(torch, name))
        times = []
        for _ in range(20):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
        best[name] = 2 * 2048**3 / min(times) / 1e9
    return best


def held_out_loss(model, rows: list[dict]) -> float:
    """Mean loss a supervised token, one unpadded row at a time, fp32, through the model's plain forward."""
    import torch

    model = model.float().eval()
    total = weight = 0.0
    with torch.no_grad():
        for row in rows:
            out = model(torch.tensor([row["input_ids"]]))
            logits = out.logits if hasattr(out, "logits") else out
            wanted = torch.tensor(row["labels"][1:])
            total += torch.nn.functional.cross_entropy(
                logits[0, :-1], wanted, reduction="sum", ignore_index=IGNORE
            ).item()
            weight += int((wanted != IGNORE).sum())
    return total / weight


# ---- the children: one contender each ------------------------------------------------------------------------------


def child(name: str, job: dict) -> None:
    import torch

    torch.set_num_threads(job["threads"])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    torch.manual_seed(0)
    if name == "prepare":
        print("RESULT " + json.dumps(prepare(job)))
        return
    rows = [json.loads(line) for line in Path(job["folder"], "rows.jsonl").read_text().splitlines()]
    rows = rows[: job["steps"] * BATCH]
    clock = Clock()
    family = name.split("-")[0]
    model, dtype = {"ours": ours, "naive": naive, "hf": hf, "trl": trl, "litgpt": litgpt}[family](
        name, job, rows, clock
    )
    held_out = [json.loads(line) for line in Path(job["folder"], "held_out.jsonl").read_text().splitlines()]
    found = clock.result(dtype)
    found["loss"] = held_out_loss(model, held_out)
    print("RESULT " + json.dumps(found))


class Clock:
    """Counts tokens of each batch as it is made, and notes when each step ended."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []  # real, supervised, slots
        self.ends: list[float] = []
        self.used: list[float] = []  # processor seconds

    def count(self, real: int, supervised: int, slots: int) -> None:
        self.batches.append((int(real), int(supervised), int(slots)))

    def tick(self) -> None:
        self.ends.append(time.perf_counter())
        self.used.append(time.process_time())

    def result(self, dtype: str) -> dict:
        each = len(self.batches) // len(self.ends)
        timed = self.batches[each : each * len(self.ends)]
        seconds, used = self.ends[-1] - self.ends[0], self.used[-1] - self.used[0]
        real, supervised, slots = (sum(column) for column in zip(*timed, strict=True))
        layers = (
            SHAPE["num_hidden_layers"]
            * SHAPE["hidden_size"]
            * (SHAPE["hidden_size"] * 2 + 64 * 6 + 3 * SHAPE["intermediate_size"])
        )
        flops = 4 * (layers * real + SHAPE["hidden_size"] * SHAPE["vocab_size"] * supervised)  # what has to be done
        return {
            "dtype": dtype, "seconds": seconds, "real": real, "supervised": supervised, "slots": slots,
            "real_per_s": real / seconds, "supervised_per_s": supervised / seconds, "slots_per_s": slots / seconds,
            "gflops_per_s": flops / seconds / 1e9, "real_per_cpu_s": real / used,
            "first_step_s": self.ends[0] - STARTED, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }  # fmt: skip


def lora(model):
    import peft

    return peft.get_peft_model(
        model, peft.LoraConfig(r=RANK, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def load(job: dict, dtype: str):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, dtype))


def ours(name: str, job: dict, rows: list[dict], clock: Clock):
    """The product's own engine, method, objective and loop; only the tokens are given, to be the same for all."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from genwright.core import Dataset, Example, Recipe
    from genwright.core.content import assistant, user
    from genwright.nn.loop import fit
    from genwright.nn.text import Tokens, encoded
    from genwright.verbs.models import open_model

    dtype = "float32" if name == "ours-fp32" else "bfloat16"
    plan = dict(rows_per_batch=BATCH, epochs=1, learning_rate=RATE, schedule="constant", warmup=0, dtype=dtype)
    recipe = Recipe.from_dict({
        "data": {"source": "jsonl", "path": "rows.jsonl", "held_out": 0}, "task": "instruct", "model": job["model"],
        "method": {"name": "lora", "rank": RANK, "alpha": 16}, "train": plan | {"threads": job["threads"]},
    }, folder=Path(job["folder"]))  # fmt: skip
    learner = recipe.method(open_model(recipe.model, task=recipe.task, purpose="tune"), seed=0)

    def encode(example, **_):
        row = rows[int(example.messages[-1].text)]
        return encoded([Tokens(row["input_ids"], [label != IGNORE for label in row["labels"]])])

    def log(event: str, **facts) -> None:
        if event == "step":
            kinds, seconds = ("real", "supervised", "slots"), facts["seconds"]
            clock.count(*(round(facts[f"{kind}_per_second"] * seconds) for kind in kinds))
            clock.tick()

    learner.encode = encode
    train = Dataset(Example((user("a row"), assistant(str(i)))) for i in range(len(rows)))
    with tempfile.TemporaryDirectory() as folder:
        fit(
            learner, train, Dataset(), objective=recipe.chosen_objective, settings=recipe.train, seed=3,
            folder=Path(folder), log=log,
        )  # fmt: skip
    torch.use_deterministic_algorithms(False)
    return learner.module, dtype


def naive(name: str, job: dict, rows: list[dict], clock: Clock):
    import torch

    model = lora(load(job, "float32")).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        ids = torch.tensor([r["input_ids"] + [2] * (LONGEST - len(r["input_ids"])) for r in batch])
        labels = torch.tensor([r["labels"] + [IGNORE] * (LONGEST - len(r["labels"])) for r in batch])
        mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (LONGEST - len(r["input_ids"])) for r in batch])
        clock.count(mask.sum(), (labels != IGNORE).sum(), ids.numel())
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
    return model, "float32"


def hf(name: str, job: dict, rows: list[dict], clock: Clock):
    from datasets import Dataset
    from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainingArguments

    options = {
        "hf": {},
        "hf-bf16": dict(bf16=True, train_sampling_strategy="group_by_length"),
        "hf-best": dict(train_sampling_strategy="group_by_length"),
        "hf-single": dict(per_device_train_batch_size=1, gradient_accumulation_steps=BATCH),
    }[name]
    dtype = "bfloat16" if name in ("hf-best", "hf-single") else "float32"
    settings = TrainingArguments(**common(job) | options)
    trainer = Trainer(
        model=lora(load(job, dtype)), args=settings, train_dataset=Dataset.from_list(rows),
        data_collator=counting(DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(job["model"])), clock),
        callbacks=[ticking(clock)],
    )  # fmt: skip
    trainer.train()
    return trainer.model, "float32" if name == "hf" else "bfloat16"


def trl(name: str, job: dict, rows: list[dict], clock: Clock):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    options = {
        "trl": {},
        "trl-best": dict(gradient_checkpointing=False, bf16=False, train_sampling_strategy="group_by_length"),
        "trl-packing": dict(gradient_checkpointing=False, bf16=False, packing=True, packing_strategy="wrapped"),
    }[name]
    if name == "trl-packing":  # blocks of 512 without padding: about as many tokens a step
        real = sum(len(r["input_ids"]) for r in rows) / len(rows) * BATCH
        options["per_device_train_batch_size"] = max(1, round(real / LONGEST))
    settings = SFTConfig(**common(job) | dict(max_length=LONGEST, dataset_num_proc=None) | options)
    trainer = SFTTrainer(
        model=lora(load(job, "float32" if name == "trl" else "bfloat16")), args=settings,
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(job["model"]),
        callbacks=[ticking(clock)],
    )  # fmt: skip
    trainer.data_collator = counting(trainer.data_collator, clock)
    trainer.train()
    return trainer.model, "bfloat16"


def common(job: dict) -> dict:
    return dict(
        output_dir=job["folder"] + "/out", per_device_train_batch_size=BATCH, num_train_epochs=1, learning_rate=RATE,
        lr_scheduler_type="constant", save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True, seed=3,
    )  # fmt: skip


def counting(collate, clock: Clock):
    """The same collator, which also counts what it makes."""

    def collated(features, *args, **more):
        batch = collate(features, *args, **more)
        ids, labels, mask = batch["input_ids"], batch["labels"], batch.get("attention_mask")
        clock.count(ids.numel() if mask is None else mask.sum(), (labels != IGNORE).sum(), ids.numel())
        return batch

    return collated


def ticking(clock: Clock):
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_end(self, *args, **more):
            clock.tick()

    return Ticking()


def litgpt(name: str, job: dict, rows: list[dict], clock: Clock):
    """What litgpt/finetune/lora.py does in its loop, on our rows: one row a pass, chunked head, chunked loss."""
    import torch
    from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    from litgpt.scripts.convert_hf_checkpoint import copy_weights_hf_llama
    from litgpt.utils import chunked_cross_entropy
    from safetensors.torch import load_file

    every = dict(lora_query=True, lora_key=True, lora_value=True, lora_projection=True, lora_mlp=True)
    config = Config.from_name("SmolLM2-135M", lora_r=RANK, lora_alpha=16, lora_dropout=0.0, **every)
    converted: dict = {}
    copy_weights_hf_llama(config, {}, converted, load_file(Path(job["model"], "model.safetensors")))
    model = GPT(config)
    model.load_state_dict(converted, strict=False)
    model = model.to(torch.bfloat16).train()
    model.lm_head.weight = model.transformer.wte.weight
    mark_only_lora_as_trainable(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    order = list(range(len(rows)))
    random.Random(3).shuffle(order)
    for number, index in enumerate(order):
        ids, labels = (torch.tensor([rows[index][key]]) for key in ("input_ids", "labels"))
        clock.count(ids.numel(), (labels != IGNORE).sum(), ids.numel())
        logits = model(ids, lm_head_chunk_size=128)
        logits[-1] = logits[-1][..., :-1, :]
        (chunked_cross_entropy(logits, labels[..., 1:]) / BATCH).backward()
        if number % BATCH == BATCH - 1:
            optimizer.step()
            optimizer.zero_grad()
            clock.tick()
    return model, "bfloat16"


if __name__ == "__main__":
    main()
