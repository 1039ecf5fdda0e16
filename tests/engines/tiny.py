"""Tiny real models for the tests of engines: random weights, a tokenizer trained on a few lines."""

from genwright.core import Example, assistant, system, user
from genwright.engines import causal_lm

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "what is the capital of France? The capital of France is Paris.",
    "hello world, how are you today? 你好，世界！",
    '{"name": "Anna", "age": 31}',
] * 3
LLAMA = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
QWEN3 = LLAMA | {"model_type": "qwen3", "head_dim": 8}
GEMMA3 = LLAMA | {
    "model_type": "gemma3_text", "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip
DECODERS = {"llama": LLAMA, "gpt2": GPT2, "qwen3": QWEN3, "gemma3": GEMMA3}
CHAT = Example((user("what is the capital of France?"), assistant("The capital of France is Paris.")))
LONG_CHAT = Example(
    (system("be kind"), user("hello"), assistant("hello world"), user("how are you?"), assistant("the lazy dog"))
)


def decoder(kind="llama", *, seed=0, kind_of_tokenizer="bpe", **options):
    settings = causal_lm.Settings(
        config=DECODERS[kind], tokenizer={"train": kind_of_tokenizer, "vocab_size": 320}, **options
    )
    return causal_lm.load(None, settings, seed=seed, texts=TEXTS)
