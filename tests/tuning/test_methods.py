"""Methods: the right weights learn, the loss falls, the adapter comes back from disk, every option does something."""

import json

import pytest
import torch

from genwright.core import Example, Request, UsageError, assistant, choose, shelves, user
from genwright.core.plugin import PluginProblems
from genwright.nn.attention import use_packed_attention
from genwright.nn.quantised import quantise_layers

from .tiny import TinyLearner, batch_of, engine_learner, llama, rows, teach

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
ADAPTERS = ["lora", "dora", "rslora", "qlora", "ia3", "prefix", "prompt", "p_tuning"]
RATE = {"full": 0.005, "freeze": 0.005, "ia3": 0.1, "prefix": 0.1, "prompt": 0.2, "p_tuning": 0.02}


def attach(name, learner=None, seed=0, **options):
    chosen = choose("methods", {"name": name, **options})
    return chosen.thing(learner or TinyLearner(), chosen.settings, seed=seed)


def learning(learner):
    return {name for name, p in learner.module.named_parameters() if p.requires_grad}


def logits(learner):
    with torch.no_grad():
        return learner.logits(batch_of(learner))


@pytest.mark.parametrize("name", ["full", "freeze", *ADAPTERS])
def test_the_loss_falls_and_only_what_learns_has_moved(name):
    learner = attach(name)
    before = {n: p.detach().clone() for n, p in learner.module.named_parameters()}
    first, last = teach(learner, 20, RATE.get(name, 0.02))
    assert last < first * 0.9
    moved = {n for n, p in learner.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= learning(learner)
    assert len(moved) > 0.9 * len(learning(learner))
    assert learner.method == name


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_comes_back_from_disk_with_the_same_logits(name, tmp_path):
    from peft import PeftModel

    learner = attach(name)
    teach(learner, 3, RATE.get(name, 0.02))
    learner.module.save_pretrained(tmp_path, save_embedding_layers=False)
    again = TinyLearner()
    if name == "qlora":
        quantise_layers(again.module)
    again.module = PeftModel.from_pretrained(again.module, tmp_path).eval()
    again.method = name
    assert torch.equal(logits(again), logits(learner))
    assert not torch.allclose(logits(again), logits(TinyLearner()), atol=1e-3)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_same_seed_draws_the_same_adapter_and_leaves_the_global_one_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    learner = TinyLearner()
    torch.set_rng_state(before)
    one = attach(name, learner, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    two = attach(name, seed=3)
    for (n, p), (_, q) in zip(one.module.named_parameters(), two.module.named_parameters(), strict=True):
        assert torch.equal(p, q), n


@pytest.mark.parametrize("name", ["lora", "rslora", "dora", "ia3"])
def test_before_the_first_step_nothing_is_changed(name):
    assert torch.allclose(logits(attach(name)), logits(TinyLearner()), atol=1e-5)


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_untuned_model_is_within_reach(name):
    learner = attach(name)
    base = TinyLearner()
    if name == "qlora":
        quantise_layers(base.module)
    teach(learner, 3, RATE.get(name, 0.02))
    with learner.untuned():
        inside = logits(learner)
    assert torch.allclose(inside, logits(base), atol=1e-5)
    assert not torch.allclose(inside, logits(learner), atol=1e-3)


@pytest.mark.parametrize(("bits", "least"), [(4, 7.4), (8, 3.5)])
def test_a_quantised_base_takes_a_fraction_of_the_memory(bits, least):
    big = dict(hidden_size=128, intermediate_size=256, head_dim=32)
    plain, small = TinyLearner(llama(**big)), attach("qlora", TinyLearner(llama(**big)), bits=bits)
    names = [n for n, m in plain.module.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    before = sum(plain.module.get_submodule(n).weight.nbytes for n in names)
    inner = small.module.get_base_model()
    after = sum(inner.get_submodule(n).base_layer.bytes for n in names)
    assert before / after > least
    assert f"{after / 2**20:.1f} MB instead of {before / 2**20:.1f} MB" in small.notes[0]
    held = {
        id(t): t.nbytes
        for m in inner.modules()
        for t in (*m._parameters.values(), *m._buffers.values())
        if t is not None
    }
    all_before = sum(p.nbytes for p in plain.module.parameters())
    added = sum(p.nbytes for n, p in inner.named_parameters() if "lora_" in n)
    assert sum(held.values()) < all_before - before + after + added + 4096


@pytest.mark.parametrize(("bits", "block", "most"), [(4, 64, 0.11), (4, 16, 0.09), (8, None, 0.009)])
def test_a_quantised_weight_is_near_the_weight(bits, block, most):
    from genwright.nn.quantised import QuantisedLinear

    torch.manual_seed(0)
    layer = torch.nn.Linear(100, 70)
    small = QuantisedLinear.of(layer, bits=bits, block=block or 64)
    assert small.weight.shape == layer.weight.shape
    assert (small.weight - layer.weight).norm() / layer.weight.norm() < most
    x = torch.randn(5, 100, requires_grad=True)
    small(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    torch.nn.functional.linear(y, small.weight, layer.bias).square().sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-5)


def test_no_restored_weight_is_kept_for_the_backward_pass():
    from genwright.nn.quantised import QuantisedLinear

    small, kept = QuantisedLinear.of(torch.nn.Linear(64, 64), bits=4), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t):
        small(torch.randn(3, 64, requires_grad=True)).sum()
    assert (64, 64) not in kept


def test_merging_restores_the_quantised_layers():
    from genwright.tuning.adapters import merged

    learner = attach("qlora", block=32)
    teach(learner, 3)
    tuned = logits(learner)
    merged(learner)
    assert torch.allclose(logits(learner), tuned, atol=1e-4)
    assert all(type(m) is torch.nn.Linear for m in learner.module.modules() if isinstance(m, torch.nn.Linear))


def test_qlora_refuses_a_block_with_eight_bits():
    with pytest.raises(PluginProblems, match="belongs to 4 bits"):
        attach("qlora", bits=8, block=32)


# -- options ----------------------------------------------------------------------------------------------------------


def test_full_merges_an_adapter_it_came_with():
    learner = attach("lora")
    teach(learner, 3)
    tuned = logits(learner)
    attach("full", learner)
    assert not hasattr(learner.module, "peft_config")
    assert torch.allclose(logits(learner), tuned, atol=1e-4)
    assert learning(learner) == {n for n, _ in learner.module.named_parameters()}


def test_freeze_counts_blocks_from_either_end():
    def trained(**options):
        return {n.split(".")[2] for n in learning(attach("freeze", **options)) if ".layers." in n}

    assert trained() == {"1", "2"}
    assert trained(train_last=1) == {"2"}
    assert trained(freeze_first=1) == {"1", "2"}
    assert trained(train_last=0) == set()


def test_freeze_leaves_out_head_and_embeddings_when_told():
    assert "lm_head.weight" in learning(attach("freeze"))
    assert "lm_head.weight" not in learning(attach("freeze", head=False))
    assert "model.embed_tokens.weight" not in learning(attach("freeze"))
    assert "model.embed_tokens.weight" in learning(attach("freeze", embeddings=True))


def test_freeze_says_when_a_shared_head_stays_frozen():
    learner = TinyLearner(llama(tie_word_embeddings=True))
    assert "shares its weights" in attach("freeze", learner).notes[0]


def test_freeze_refuses_what_cannot_be():
    with pytest.raises(UsageError, match="3 blocks, not 9"):
        attach("freeze", train_last=9)
    with pytest.raises(UsageError, match="Nothing would be trained"):
        attach("freeze", train_last=0, head=False)
    with pytest.raises(PluginProblems, match="not both"):
        attach("freeze", train_last=1, freeze_first=1)


@pytest.mark.parametrize("name", ["lora", "dora", "rslora", "qlora"])
def test_low_rank_options_reach_the_layers(name):
    module = attach(name, rank=4, alpha=12, dropout=0.25, targets=["q_proj"], layers=[1], also=["lm_head"]).module
    layers = {n: m for n, m in module.named_modules() if hasattr(m, "lora_A")}
    assert list(layers) == ["base_model.model.model.layers.1.self_attn.q_proj"]
    (layer,) = layers.values()
    assert layer.lora_A["default"].weight.shape[0] == 4
    assert layer.scaling["default"] == (12 / 4 if name != "rslora" else 12 / 2)
    assert layer.lora_dropout["default"].p == 0.25
    assert layer.use_dora.get("default", False) == (name == "dora")
    assert any("lm_head.modules_to_save" in n for n, p in module.named_parameters() if p.requires_grad)


def test_low_rank_defaults_take_every_linear_layer_but_the_head():
    module = attach("lora").module
    found = {n.rpartition(".")[2] for n, m in module.named_modules() if hasattr(m, "lora_A")}
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    layer = module.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    assert layer.scaling["default"] == 2


def test_a_wrong_target_is_answered_with_a_suggestion():
    with pytest.raises(UsageError, match="q_prj") as caught:
        attach("lora", targets=["q_prj"])
    assert "q_proj" in caught.value.hint
    with pytest.raises(UsageError, match="model has 3"):
        attach("lora", layers=[7])


def test_a_run_with_an_adapter_is_gone_on_with():
    learner = attach("lora", rank=4)
    teach(learner, 3)
    tuned = logits(learner)
    learner.module.requires_grad_(False)
    attach("lora", learner, rank=4)
    assert torch.equal(logits(learner), tuned)
    assert learning(learner)
    assert all("lora_" in name for name in learning(learner))
    with pytest.raises(UsageError, match="differs in"):
        attach("lora", learner, rank=8)


def test_ia3_options_choose_the_layers():
    def scaled(**options):
        return {n.rpartition(".")[2] for n, m in attach("ia3", **options).module.named_modules() if hasattr(m, "ia3_l")}

    assert scaled() == {"k_proj", "v_proj", "down_proj"}
    assert scaled(targets=["q_proj"]) == {"q_proj", "down_proj"}
    assert scaled(feed_forward=["up_proj"]) == {"k_proj", "v_proj", "up_proj"}
    assert any("lm_head" in n for n in learning(attach("ia3", also=["lm_head"])))


@pytest.mark.parametrize("name", ["prefix", "prompt", "p_tuning"])
def test_virtual_tokens_say_that_they_are_fragile_and_how_many_they_are(name):
    learner = attach(name, tokens=5)
    assert learner.module.active_peft_config.num_virtual_tokens == 5
    assert "fragile" in learner.notes[0]
    assert all("prompt_encoder" in n for n in learning(learner))


@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_from_text_is_that_text_read_before(projection):
    learner = attach("prefix", tokens=4, init_text="the red cat sat", projection=projection)
    base = TinyLearner()
    examples = rows(3)
    with torch.no_grad():
        ours = torch.cat([learner.logits(batch_of(learner, [e])) for e in examples])
        theirs = []
        for example in examples:
            batch = batch_of(base, [example])
            ids = torch.cat([torch.tensor(base.tokenizer("the red cat sat")["input_ids"]), batch.tokens])
            theirs.append(base.module(input_ids=ids[None]).logits[0, 4:][batch.targets != -100])
    assert torch.allclose(ours, torch.cat(theirs), atol=1e-3)


def test_a_prompt_from_text_is_that_text_read_before():
    learner = attach("prompt", tokens=6, init_text="the red cat")
    weights = learner.module.prompt_encoder["default"].embedding.weight
    ids = TinyLearner().tokenizer("the red cat the red cat")["input_ids"]
    assert torch.equal(weights, learner.embeddings()(torch.tensor(ids)))


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_without_text_the_seed_decides(name):
    one, two, three = (attach(name, init_text="", seed=s) for s in (1, 1, 2))
    assert torch.equal(logits(one), logits(two))
    assert not torch.equal(logits(one), logits(three))


def test_projection_is_dropped_when_saved(tmp_path):
    learner = attach("prefix", tokens=4, projection=True, hidden_size=24)
    assert learner.module.prompt_encoder["default"].transform[0].out_features == 24
    learner.module.save_pretrained(tmp_path, save_embedding_layers=False)
    from safetensors.torch import load_file

    assert list(load_file(tmp_path / "adapter_model.safetensors")) == ["prompt_embeddings"]
    assert json.loads((tmp_path / "adapter_config.json").read_text())["num_virtual_tokens"] == 4


def test_p_tuning_options_shape_the_network():
    lstm = attach("p_tuning", network="lstm", layers=3, dropout=0.1, hidden_size=20).module.prompt_encoder["default"]
    assert (lstm.lstm_head.num_layers, lstm.lstm_head.dropout, lstm.lstm_head.hidden_size) == (3, 0.1, 20)
    mlp = attach("p_tuning", hidden_size=20).module.prompt_encoder["default"]
    assert mlp.mlp_head[0].out_features == 20
    with pytest.raises(PluginProblems, match="belong to the LSTM"):
        attach("p_tuning", layers=3)
    with pytest.raises(PluginProblems, match="belongs to the network"):
        attach("prefix", hidden_size=3)


@pytest.mark.parametrize("name", ["prefix", "prompt", "p_tuning"])
def test_packed_rows_see_the_virtual_tokens_as_single_rows_do(name):
    learner = attach(name)
    teach(learner, 2, RATE[name])
    with torch.no_grad():
        together = logits(learner)
        apart = torch.cat([learner.logits(batch_of(learner, [e])) for e in rows()])
    assert torch.allclose(together, apart, atol=1e-4)


@pytest.mark.parametrize("name", ["prefix", "prompt", "p_tuning"])
def test_generating_uses_the_virtual_tokens_as_training_did(name):
    """PEFT's own forward, with a padded batch of one, against our packed rows."""
    learner = attach(name)
    teach(learner, 3, RATE[name])
    learner.module.eval()
    batch = batch_of(learner, rows(1), supervise="all")
    with torch.no_grad():
        ours = learner.logits(batch)
        theirs = learner.module(input_ids=batch.tokens[None], attention_mask=torch.ones_like(batch.tokens)[None]).logits
    theirs = theirs[0, -len(batch.tokens) :][batch.targets != -100]
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_use_packed_attention_survives_wrapping():
    learner = attach("lora")
    use_packed_attention(learner.module)
    assert torch.isfinite(logits(learner)).all()


# -- through the real engine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "freeze", *ADAPTERS])
def test_a_tuned_model_is_saved_and_opened_and_answers_the_same(name, tmp_path):
    engine = shelves["engines"].load("causal_lm")
    base = engine_learner()
    base.save(tmp_path / "base")
    learner = engine.load(tmp_path / "base", engine.Settings())
    learner.base_reference = {"source": "base", "path": str(tmp_path / "base"), "sha256": ""}
    attach(name, learner)
    first, last = teach(learner, 6, RATE.get(name, 0.02))
    assert last < first
    learner.module.eval()
    learner.save(tmp_path / "tuned")
    again = engine.load(tmp_path / "tuned", engine.Settings())
    assert again.method == name
    assert torch.allclose(logits(again), logits(learner), atol=1e-5)
    assert not torch.allclose(logits(again), logits(base), atol=1e-2)
    request = Request(messages=(user("the red cat"),), max_new_tokens=8)
    said = ["".join(part.text for part in one.generate(request)) for one in (learner, again)]
    assert said[0] == said[1]
    assert [m.text for _, m in again.generate_many([request, request])] == [said[0]] * 2


@pytest.mark.parametrize("name", ["prefix", "prompt", "lora", "qlora"])
def test_peft_itself_reads_our_adapter(name, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    learner = attach(name, engine_learner())
    teach(learner, 3, RATE.get(name, 0.02))
    learner.module.eval()
    learner.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    if name == "qlora":
        quantise_layers(base)
    theirs = PeftModel.from_pretrained(base, tmp_path).eval()
    batch = batch_of(learner, rows(1), supervise="all")
    with torch.no_grad():
        found = theirs(input_ids=batch.tokens[None], attention_mask=torch.ones_like(batch.tokens)[None]).logits
        ours = learner.logits(batch)
    assert torch.allclose(found[0, -len(batch.tokens) :][batch.targets != -100], ours, atol=1e-4)


@pytest.mark.parametrize("name", ["full", "lora", "prompt"])
def test_the_engine_still_knows_the_model_before_tuning(name):
    learner = engine_learner()
    before = logits(learner)
    attach(name, learner)
    learner.keep_base()
    teach(learner, 3, RATE.get(name, 0.02))
    with learner.untuned():
        assert torch.allclose(logits(learner), before, atol=1e-4)
    assert not torch.allclose(logits(learner), before, atol=1e-2)


@pytest.mark.parametrize("name", ["full", "freeze", "lora", "ia3", "qlora", "prefix", "prompt"])
def test_an_encoder_learns_labels_by_every_kind_of_method(name):
    learner = encoder()
    attach(name, learner)
    assert any("classifier" in n for n in learning(learner))
    examples = [Example((user(e.messages[0].text), assistant(("no", "yes")[i % 2]))) for i, e in enumerate(rows())]
    learner.module.eval()  # no dropout: the loss of so few rows would jump
    first, last = teach(learner, 20, 0.003, examples)
    assert last < first


def encoder():
    config = dict(model_type="bert", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                  max_position_embeddings=64)  # fmt: skip
    learner = engine_learner("encoder", **config)
    learner.set_labels(["no", "yes"])
    return learner
