"""Packed rows: the same losses and gradients as one sequence at a time, for every family of model."""

import math
import random

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genwright.core.errors import GenwrightError, UsageError
from genwright.nn.attention import NAME, embed, head, lm_loss, packed_hidden, use_packed_attention
from genwright.nn.losses import cross_entropy_sum
from genwright.nn.packing import IGNORE, causal_targets, pack, plan_rows

# PEFT asks transformers for a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
VOCAB = 97
LENGTHS = (7, 7, 12, 3, 1)
WIDE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCAB)
WIDE |= dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def make(kind):
    """A tiny random model of the family, every parameter moved away from its initial value."""
    import transformers as tf

    few = dict(num_key_value_heads=2, head_dim=8)
    sorts = {
        "gpt2": lambda: tf.GPT2LMHeadModel(
            tf.GPT2Config(
                n_embd=32, n_layer=2, n_head=4, vocab_size=VOCAB, n_positions=64, bos_token_id=1, eos_token_id=2
            )
        ),
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE, **few)),
        "llama-bias": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE, attention_bias=True, mlp_bias=True)),
        "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**WIDE, **few, sliding_window=5)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**WIDE, num_key_value_heads=2)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**WIDE, **few)),
        "gemma2": lambda: tf.Gemma2ForCausalLM(
            tf.Gemma2Config(**WIDE, **few, sliding_window=5, query_pre_attn_scalar=8)
        ),
        "gemma3": lambda: tf.Gemma3ForCausalLM(
            tf.Gemma3TextConfig(
                **WIDE,
                **few,
                sliding_window=5,
                query_pre_attn_scalar=8,
                final_logit_softcapping=5.0,
                layer_types=["sliding_attention", "full_attention"],
            )
        ),
        "granite": lambda: tf.GraniteForCausalLM(
            tf.GraniteConfig(
                **WIDE, num_key_value_heads=2, logits_scaling=3.0, residual_multiplier=0.5, attention_multiplier=0.2
            )
        ),
        "bert": lambda: tf.BertForMaskedLM(tf.BertConfig(**WIDE, max_position_embeddings=64)),
        "roberta": lambda: tf.RobertaForMaskedLM(tf.RobertaConfig(**WIDE, max_position_embeddings=64)),
        "distilbert": lambda: tf.DistilBertForMaskedLM(
            tf.DistilBertConfig(
                dim=32, hidden_dim=48, n_layers=2, n_heads=4, vocab_size=VOCAB, max_position_embeddings=64
            )
        ),
        "modernbert": lambda: tf.ModernBertForMaskedLM(
            tf.ModernBertConfig(
                **WIDE,
                local_attention=6,
                layer_types=["full_attention", "sliding_attention"],
                cls_token_id=1,
                sep_token_id=2,
            )
        ),
    }
    torch.manual_seed(5)
    model = sorts[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


CAUSAL = ("gpt2", "llama", "llama-bias", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "granite")
MASKED = ("bert", "roberta", "distilbert", "modernbert")


def rows(kind, lengths=LENGTHS):
    """Sequences for the family: half of the tokens supervised."""
    made = np.random.default_rng(3)
    found = []
    for length in lengths:
        tokens = made.integers(3, VOCAB, length)
        keep = made.random(length) < 0.6
        targets = (
            causal_targets(tokens, keep) if kind in CAUSAL else np.where(keep, made.integers(3, VOCAB, length), IGNORE)
        )
        found.append({"tokens": tokens, "targets": targets})
    return found


def one_by_one(model, sequences):
    """The reference: each sequence alone through the untouched model, all logits, losses summed."""
    total = 0.0
    for item in sequences:
        logits = model(input_ids=torch.tensor(item["tokens"])[None]).logits[0]
        total = total + cross_entropy_sum(logits, torch.tensor(item["targets"]))
    return total


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        scale = max(1.0, float(wanted[name].abs().max()))
        assert float((found[name] - wanted[name]).abs().max()) / scale < 2e-5, name


@pytest.mark.parametrize("kind", CAUSAL + MASKED)
def test_packed_loss_and_gradients_are_those_of_one_sequence_at_a_time(kind):
    model, sequences = make(kind), rows(kind)
    if kind == "gemma2":
        model.set_attn_implementation("eager")
    wanted = one_by_one(model, sequences)
    wanted.backward()
    slopes = gradients(model)
    model.zero_grad()
    use_packed_attention(model)
    packed = pack(sequences)
    loss = lm_loss(model, packed_hidden(model, packed), packed.targets)
    loss.backward()
    assert abs((loss - wanted).item()) / packed.weight < 1e-5
    assert_same_gradients(gradients(model), slopes)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3", "bert"])
def test_head_gives_the_models_own_logits(kind):
    model = make(kind)
    tokens = torch.tensor(rows(kind)[0]["tokens"])
    wanted = model(input_ids=tokens[None]).logits[0]
    hidden = packed_hidden(model, pack([{"tokens": tokens}]))
    torch.testing.assert_close(head(model, hidden), wanted, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "modernbert"])
def test_without_a_packed_row_the_model_attends_as_before(kind):
    model = make(kind)
    model.set_attn_implementation("eager")
    tokens = torch.randint(3, VOCAB, (2, 9))
    mask = torch.ones_like(tokens)
    mask[0, 6:] = 0
    wanted = model(input_ids=tokens, attention_mask=mask).logits[mask.bool()]
    use_packed_attention(model)
    packed_hidden(model, pack(rows(kind)))
    found = model(input_ids=tokens, attention_mask=mask).logits[mask.bool()]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_generate_with_a_cache_works_on_the_same_model():
    model = make("llama")
    start = torch.randint(3, VOCAB, (1, 5))
    wanted = model.generate(start, max_new_tokens=6, do_sample=False)
    use_packed_attention(model)
    assert torch.equal(model.generate(start, max_new_tokens=6, do_sample=False), wanted)


def test_the_attention_name_is_not_saved_with_the_model(tmp_path):
    model = make("llama")
    use_packed_attention(model)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()


def peft_model(model, kind):
    import peft

    common = dict(task_type="CAUSAL_LM" if not kind.endswith("bert") else None)
    layers = {"gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "v_proj", "down_proj"], "bert": ["query", "value"]}
    configs = {
        "lora": lambda: peft.LoraConfig(r=4, target_modules=layers[kind], fan_in_fan_out=kind == "gpt2", **common),
        "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "up_proj"], **common),
        "ia3": lambda: peft.IA3Config(
            target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **common
        ),
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=3, **common),
        "p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=16, **common),
        "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=3, **common),
    }
    return lambda method: peft.get_peft_model(model, configs[method]())


@pytest.mark.parametrize(
    ("kind", "method"),
    [(k, m) for m in ("lora", "prompt", "p-tuning", "prefix") for k in ("gpt2", "llama")]
    + [("llama", "dora"), ("llama", "ia3")],
)
def test_every_peft_method_trains_packed_as_unpacked(kind, method):
    model = peft_model(make(kind), kind)(method).eval()
    model.active_peft_config.inference_mode = False
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    sequences = rows(kind)
    total = 0.0
    for item in sequences:
        logits = model(input_ids=torch.tensor(item["tokens"])[None]).logits[0][-len(item["tokens"]) :]
        total = total + cross_entropy_sum(logits, torch.tensor(item["targets"]))
    total.backward()
    slopes = gradients(model)
    assert slopes
    model.zero_grad()
    use_packed_attention(model)
    packed = pack(sequences)
    loss = lm_loss(model, packed_hidden(model, packed), packed.targets)
    loss.backward()
    assert abs((loss - total).item()) / packed.weight < 1e-5
    assert_same_gradients(gradients(model), slopes)


def test_embeddings_can_be_given_and_get_a_gradient():
    model = make("gemma3")
    packed = pack(rows("gemma3"))
    rows_in = embed(model, packed.tokens).detach().requires_grad_()
    hidden = packed_hidden(model, packed, inputs_embeds=rows_in)
    torch.testing.assert_close(hidden, packed_hidden(model, packed), atol=1e-6, rtol=1e-5)
    hidden.square().sum().backward()
    assert rows_in.grad is not None
    assert float(rows_in.grad.abs().sum()) > 0


def test_token_types_travel_with_the_row():
    model = make("bert")
    item = rows("bert")[2] | {"token_type_ids": [0] * 5 + [1] * 7, "label": 1}
    packed = pack([item, item])
    assert packed.extra["label"].tolist() == [1, 1]
    types = torch.tensor(item["token_type_ids"])[None]
    wanted = model.bert(input_ids=torch.tensor(item["tokens"])[None], token_type_ids=types).last_hidden_state[0]
    torch.testing.assert_close(packed_hidden(model, packed)[12:], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "gemma3"])
def test_bf16_packed_is_as_near_to_fp32_as_bf16_one_by_one(kind):
    model, sequences = make(kind), rows(kind, (150, 20, 20, 5))
    if kind in ("gpt2", "bert"):
        sequences = rows(kind, (60, 20, 20, 5))
    packed = pack(sequences)
    exact = one_by_one(model, sequences).item()
    with torch.autocast("cpu", torch.bfloat16):
        plain = one_by_one(model, sequences).item()
        found = lm_loss(model, packed_hidden(model, packed), packed.targets)
    found.backward()
    assert abs(found.item() - exact) / packed.weight < max(2 * abs(plain - exact) / packed.weight, 0.01)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_gradient_checkpointing_changes_nothing():
    model, packed = make("llama").train(), pack(rows("llama"))
    lm_loss(model, packed_hidden(model, packed), packed.targets).backward()
    wanted = gradients(model)
    model.zero_grad()
    model.activation_checkpointing_enable({"use_reentrant": False})
    lm_loss(model, packed_hidden(model, packed), packed.targets).backward()
    assert_same_gradients(gradients(model), wanted)


def test_twice_the_same_row_is_bit_equal():
    model, packed = make("qwen3"), pack(rows("qwen3"))
    seen = []
    for _ in range(2):
        model.zero_grad()
        lm_loss(model, packed_hidden(model, packed), packed.targets).backward()
        seen.append(gradients(model))
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_a_model_that_cannot_pack_says_so():
    import transformers as tf

    config = tf.MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=VOCAB, state_size=4)
    with pytest.raises(GenwrightError):
        packed_hidden(tf.MambaForCausalLM(config), pack([{"tokens": [1, 2]}]))


def test_pack_lays_end_to_end():
    packed = pack([{"tokens": [5, 6, 7], "targets": [6, 7, IGNORE]}, {"tokens": [8, 9], "targets": [9, IGNORE]}])
    assert packed.tokens.tolist() == [5, 6, 7, 8, 9]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1]
    assert (packed.lengths, packed.starts, packed.segment_ends, packed.weight) == ((3, 2), (0, 3), (3, 5), 3)
    assert packed.to("cpu").targets.tolist() == [6, 7, IGNORE, 9, IGNORE]


@pytest.mark.parametrize(
    "bad",
    [[], [{"tokens": []}], [{"tokens": [1], "targets": [1, 2]}], [{"tokens": [1]}, {"tokens": [1], "label": 2}]],
)
def test_pack_refuses_what_does_not_fit(bad):
    with pytest.raises(UsageError):
        pack(bad)


def test_causal_targets_shift_by_one():
    assert causal_targets([4, 5, 6]).tolist() == [5, 6, IGNORE]
    assert causal_targets([4, 5, 6], [True, False, True]).tolist() == [IGNORE, 6, IGNORE]


def test_rows_hold_every_item_once_and_waste_little():
    made = random.Random(1)
    lengths = [max(1, min(900, int(made.lognormvariate(4.8, 0.7)))) for _ in range(2000)]
    plan = plan_rows(lengths, 512)
    assert sorted(i for row in plan for i in row) == list(range(2000))
    assert all(sum(lengths[i] for i in row) <= 512 or len(row) == 1 for row in plan)
    fair = math.ceil(sum(min(n, 512) for n in lengths) / 512)
    assert len(plan) <= fair * 1.02 + 1
    assert plan == plan_rows(lengths, 512)
    with pytest.raises(UsageError):
        plan_rows([1], 0)


def test_soft_labels_of_the_reference_loss_agree_with_torch():
    logits, targets = torch.randn(6, 11), torch.tensor([1, 2, IGNORE, 4, 5, 6])
    wanted = F.cross_entropy(
        logits[targets != IGNORE], targets[targets != IGNORE], reduction="sum", label_smoothing=0.1
    )
    torch.testing.assert_close(cross_entropy_sum(logits, targets, 0.1), wanted)
