"""Tiny models with random weights, and runs around them: real files, made in a second."""

from __future__ import annotations

import copy
import json
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from genwright.core import Example, Recipe, Run, assistant, user

SENTENCES = [
    "The ferry leaves at seven in the morning and returns at dusk.",
    "Bring water, bread and a warm coat; the island has no shop.",
    "In 1987 the lighthouse keeper counted 214 birds on one rock.",
    "你好,海岛上没有商店。 Naïve café 🎉",
    "Ask the captain before you climb the tower, please.",
]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
EXAMPLES = [Example((user(a), assistant(b))) for a, b in pairwise(SENTENCES)]


@cache
def tokenizer() -> Any:
    """A byte-level BPE with ChatML's marks."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(SENTENCES * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = TEMPLATE
    return fast


def model(kind: str = "llama", *, seed: int = 0, **changes: Any) -> Any:
    """A random causal LM whose answers depend strongly on the prompt."""
    import torch
    import transformers

    torch.manual_seed(seed)
    shape = dict(vocab_size=416, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 intermediate_size=128, max_position_embeddings=512, initializer_range=0.15, tie_word_embeddings=True,
                 bos_token_id=0, eos_token_id=2, pad_token_id=0)  # fmt: skip
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(vocab_size=416, n_embd=64, n_layer=2, n_head=4, n_positions=512,
                                              initializer_range=0.15, bos_token_id=0, eos_token_id=2)  # fmt: skip
    elif kind == "gemma3_text":
        config = transformers.Gemma3TextConfig(**shape | dict(num_hidden_layers=6, head_dim=32, sliding_window=16,
                                                              query_pre_attn_scalar=32) | changes)  # fmt: skip
    else:
        names = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}
        config = getattr(transformers, names[kind])(**shape | ({"head_dim": 32} if kind == "qwen3" else {}) | changes)
    made = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in made.named_parameters():
        if weight.ndim == 1:  # biases and norms that are not all zero or one
            torch.nn.init.normal_(weight, mean=0.0 if "bias" in name or kind == "gemma3_text" else 1.0, std=0.2)
    return made.eval()


def taught(kind: str, seed: int = 0) -> Any:
    """The model after it has learned `EXAMPLES` by heart, so that its greedy answers do not hang on rounding."""
    return copy.deepcopy(_taught(kind, seed))


@cache
def _taught(kind: str, seed: int, steps: int = 60) -> Any:
    import torch

    torch.set_num_threads(1)
    made = model(kind, seed=seed)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3, weight_decay=0.0)
    rows = [tokenizer().apply_chat_template([m.as_dict() for m in e.messages], return_dict=False) for e in EXAMPLES]
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    targets = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    torch.manual_seed(0)
    for _ in range(steps):
        made(tokens, attention_mask=(targets != -100).long(), labels=targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return made.eval()


def tiny_run(
    folder: Path, kind: str = "llama", *, adapter: bool | dict[str, Any] = False, teach: bool = False, seed: int = 0,
    **changes: Any,
) -> Run:  # fmt: skip
    """A run as `tune` leaves it: full tuning, or a LoRA (`adapter`: its options) whose base lies in `folder/base`."""
    from genwright.core import Dataset
    from genwright.nn.weights import weights_digest

    recipe = Recipe.from_dict({"name": "tiny", "data": {"source": "table", "path": "rows.csv"}, "task": "chat",
                               "model": str(folder / "base"), "method": "lora" if adapter else "full"})  # fmt: skip
    run = Run.create(recipe, folder / "run")
    Dataset(EXAMPLES).save(run.data / "held_out.jsonl")
    made = taught(kind, seed) if teach else model(kind, seed=seed, **changes)
    made.save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    base = {"source": "tiny-base", "path": str(folder / "base"), "sha256": weights_digest(folder / "base")}
    facts = {"engine": "causal_lm", "method": "full", "task": "chat", "data": "d" * 64, "recipe": "e" * 64,
             "base": base}  # fmt: skip
    if adapter:
        import peft
        import torch

        from genwright.nn.pretrained import quiet

        torch.manual_seed(seed + 1)
        options = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"]}
        config = peft.LoraConfig(**options | (adapter if isinstance(adapter, dict) else {}))
        with quiet():
            made = peft.get_peft_model(made, config)
        for name, weight in made.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.15)
        facts["method"] = "lora"
    made.save_pretrained(run.model)
    tokenizer().save_pretrained(run.model)
    (run.model / "genwright.json").write_text(json.dumps(facts))
    return run
