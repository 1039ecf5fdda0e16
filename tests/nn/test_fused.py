"""The fast way: the numbers and slopes of the model's own way, and back to it whenever something is not known."""

import copy

import pytest
import torch

from genwright.nn import fused
from genwright.nn.attention import head, lm_loss, packed_hidden
from genwright.nn.packing import causal_targets, pack

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
VOCAB = 97
WIDE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCAB)
WIDE |= dict(num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def make(kind="llama", **more):
    import transformers as tf

    torch.manual_seed(5)
    model = {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE, **more)),
        "llama-bias": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**WIDE, attention_bias=True, mlp_bias=True, **more)),
        "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**WIDE, **more)),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**WIDE, **more)),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**WIDE, head_dim=16, **more)),
    }[kind]()
    return shaken(model)


def shaken(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def adapted(model, **more):
    import peft

    settings = dict(r=4, target_modules="all-linear", task_type="CAUSAL_LM") | more
    return shaken(peft.get_peft_model(model, peft.LoraConfig(**settings)))


def row(lengths=(200, 7, 7, 12, 3, 1)):
    torch.manual_seed(2)
    ids = [torch.randint(3, VOCAB, (n,)).numpy() for n in lengths]
    return pack([{"tokens": t, "targets": causal_targets(t, torch.rand(len(t)).numpy() < 0.6)} for t in ids])


def learn(model, packed):
    model.zero_grad()
    loss = lm_loss(model, packed_hidden(model, packed), packed.targets)
    (loss / packed.weight).backward()
    return loss.item() / packed.weight, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found, wanted, tolerance=1e-5):
    assert abs(found[0] - wanted[0]) < tolerance
    assert found[1].keys() == wanted[1].keys()
    for name, slope in wanted[1].items():
        assert (found[1][name] - slope).abs().max() <= tolerance * max(1.0, slope.abs().max()), name


@pytest.mark.parametrize("kind", ["llama", "llama-bias", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tuned", ["full", "lora", "some"])
def test_fast_equals_slow_in_fp32(kind, tuned):
    model, packed = make(kind), row()
    if tuned == "lora":
        model = adapted(model)
    if tuned == "some":
        model = adapted(model, target_modules=["q_proj", "v_proj", "down_proj"], r=3, layers_to_transform=[1])
    wanted = learn(model, packed)
    fused.speed_up(model)
    assert fused.takes_the_fast_way(model, packed)
    assert_same(learn(model, packed), wanted)
    fused.slow_down(model)
    assert not fused.takes_the_fast_way(model, packed)


def test_bf16_is_as_near_to_fp32_as_the_models_own_bf16():
    model, packed = adapted(make()), row()
    exact = learn(model, packed)
    fused.speed_up(model, torch.bfloat16)
    fast = learn(model, packed)
    fused.slow_down(model)
    model.get_base_model().to(torch.bfloat16)
    slow = learn(model, packed)
    assert abs(fast[0] - exact[0]) < 0.02
    worst_fast = max((fast[1][n] - g).norm() / g.norm() for n, g in exact[1].items())
    worst_slow = max((slow[1][n].float() - g).norm() / g.norm() for n, g in exact[1].items())
    assert worst_fast < max(1.1 * worst_slow, 0.02)
    assert all(g.dtype == torch.float32 for g in fast[1].values())


def test_under_autocast_it_is_the_same_as_without():
    model, packed = adapted(make()), row()
    fused.speed_up(model, torch.bfloat16)
    wanted = learn(model, packed)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = lm_loss(model, packed_hidden(model, packed), packed.targets) / packed.weight
    loss.backward()
    assert loss.item() == pytest.approx(wanted[0], rel=1e-6)
    assert all(torch.equal(p.grad, wanted[1][n]) for n, p in model.named_parameters() if p.grad is not None)


def test_no_parameter_and_no_saved_name_changes():
    model = adapted(make())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused.speed_up(model, torch.bfloat16)
    learn(model, row())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_steps_change_what_the_next_forward_sees():
    model, twin, packed = adapted(make()), adapted(make()), row()
    twin.load_state_dict(model.state_dict())
    fused.speed_up(model)
    for _ in range(2):
        for each in (model, twin):
            learn(each, packed)
            torch.optim.SGD([p for p in each.parameters() if p.requires_grad], lr=0.1).step()
    assert_same(learn(model, packed), learn(twin, packed))
    with torch.no_grad():
        for each in (model, twin):
            each.get_base_model().model.layers[0].self_attn.q_proj.base_layer.weight.mul_(0.5)
    assert_same(learn(model, packed), learn(twin, packed))


def test_an_adapter_switched_off_is_off():
    model, packed = adapted(make()), row()
    with model.disable_adapter(), torch.no_grad():
        wanted = packed_hidden(model, packed)
    fused.speed_up(model)
    learn(model, packed)
    with model.disable_adapter(), torch.no_grad():
        found = packed_hidden(model, packed)
        assert fused.takes_the_fast_way(model, packed)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_another_adapter_before_the_backward_does_not_disturb_it():
    import peft

    model, packed = adapted(make()), row()
    model.add_adapter("reference", peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    wanted = learn(model, packed)
    fused.speed_up(model)
    loss = lm_loss(model, packed_hidden(model, packed), packed.targets)
    model.set_adapter("reference")
    with torch.no_grad():
        packed_hidden(model, packed)
    model.set_adapter("default")
    model.zero_grad()
    (loss / packed.weight).backward()
    assert_same((wanted[0], {n: p.grad for n, p in model.named_parameters() if p.grad is not None}), wanted)


def test_an_adapter_merged_in_place_is_seen():
    model, packed = adapted(make()), row()
    wanted = packed_hidden(model, packed).detach()
    fused.speed_up(model)
    with model.disable_adapter(), torch.no_grad():
        packed_hidden(model, packed)
    model.merge_adapter()
    with torch.no_grad():
        torch.testing.assert_close(packed_hidden(model, packed), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("odd", ["dora", "dropout", "hook", "window", "checkpointing", "family"])
def test_what_it_does_not_know_goes_the_models_own_way(odd):
    packed = row()
    base = make("mistral", sliding_window=9) if odd == "window" else make()
    model = adapted(base, use_dora=odd == "dora", lora_dropout=0.5 if odd == "dropout" else 0.0).train()
    inner = model.get_base_model()
    if odd == "hook":
        inner.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: None)
    if odd == "checkpointing":
        inner.activation_checkpointing_enable({"use_reentrant": False})
    if odd == "family":
        inner.config.model_type = "unheard-of"
    fused.speed_up(model)
    assert not fused.takes_the_fast_way(model, packed)
    torch.manual_seed(0)
    found = learn(model, packed)
    fused.slow_down(model)
    torch.manual_seed(0)
    assert_same(found, learn(model, packed), 1e-7)


def test_the_same_row_twice_is_bit_equal():
    model, packed = adapted(make("qwen3")), row()
    fused.speed_up(model, torch.bfloat16)
    first, second = learn(model, packed), learn(model, packed)
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_two_rows_before_one_backward():
    model, first, second = adapted(make()), row(), row((20, 5))
    fused.speed_up(model)
    wanted = [learn(model, packed)[1] for packed in (first, second)]
    model.zero_grad()
    losses = [lm_loss(model, packed_hidden(model, p), p.targets) / p.weight for p in (first, second)]
    sum(losses).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, wanted[0][name] + wanted[1][name], atol=1e-6, rtol=1e-5)


def test_nothing_is_kept_below_the_first_trainable_layer():
    model = adapted(make(), target_modules=["q_proj", "up_proj"], layers_to_transform=[1])
    fused.speed_up(model)
    hidden = packed_hidden(model, row())
    assert hidden.requires_grad
    names, todo = set(), [hidden.grad_fn]
    while todo:
        node = todo.pop()
        names.add((id(node), node.name()))
        todo += [n for n, _ in node.next_functions if n is not None]
    assert sum(name == "_AttentionBackward" for _, name in names) == 1


def test_a_sped_up_model_can_be_copied_and_read_by_its_head():
    model, packed = make(), row()
    fused.speed_up(model, torch.bfloat16)
    twin = copy.deepcopy(model)
    assert fused.takes_the_fast_way(twin, packed)
    with torch.no_grad():
        logits = head(model, packed_hidden(model, packed)[:3])
    assert logits.shape == (3, VOCAB)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_packed_attention_function_equals_the_formula(causal, heads):
    torch.manual_seed(0)
    lengths, (h, g) = (150, 5, 1, 33), heads
    q = torch.randn(1, h, 189, 8, requires_grad=True)
    k, v = (torch.randn(1, g, 189, 8, requires_grad=True) for _ in "kv")
    found = fused.PackedAttention.apply(q, k, v, fused.blocks(lengths, causal, 64), 0.3)
    parts = [
        torch.nn.functional.scaled_dot_product_attention(a, b, c, is_causal=causal, scale=0.3, enable_gqa=True)
        for a, b, c in zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True)
    ]
    wanted = torch.cat(parts, 2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    slope = torch.randn_like(wanted)
    for a, b in zip(
        torch.autograd.grad(found, (q, k, v), slope), torch.autograd.grad(wanted, (q, k, v), slope), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
