"""EfficientNet-Lite0 sees what its paper says, with normalisation folded in, and takes no other network's weights."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from genwright.core import ModelError
from genwright.core.card import find_card
from genwright.nn.efficientnet_lite import _STAGES, CARD, EfficientNetLite, efficientnet_lite
from genwright.nn.weights import card_folder


@cache
def random_state(seed=0):
    """Weights in the packaged file's names, whose activations stay in range."""
    random = np.random.default_rng(seed)
    state = {}

    def convolution(name, norm, out, inside, kernel):
        scale = np.sqrt(2 / (inside * kernel * kernel))
        state[f"{name}.weight"] = random.normal(0, scale, (out, inside, kernel, kernel)).astype(np.float32)
        for one, low, high in (("weight", 0.8, 1.2), ("bias", -0.1, 0.1), ("running_mean", -0.1, 0.1),
                               ("running_var", 0.8, 1.2)):  # fmt: skip
            state[f"{norm}.{one}"] = random.uniform(low, high, out).astype(np.float32)
        state[f"{norm}.num_batches_tracked"] = np.array(1)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    number, width = 0, 32
    for count, kernel, _, wider, out in _STAGES:
        for _ in range(count):
            before, inside = f"_blocks.{number}.", width * wider
            if wider > 1:
                convolution(f"{before}_expand_conv", f"{before}_bn0", inside, width, 1)
            convolution(f"{before}_depthwise_conv", f"{before}_bn1", inside, 1, kernel)
            convolution(f"{before}_project_conv", f"{before}_bn2", out, inside, 1)
            number, width = number + 1, out
    convolution("_conv_head", "_bn1", 1280, width, 1)
    state["_fc.weight"] = random.normal(0, 0.03, (1000, 1280)).astype(np.float32)
    state["_fc.bias"] = np.zeros(1000, np.float32)
    return state


def network(seed=0):
    made = EfficientNetLite()
    made.take(random_state(seed))
    return made.eval().requires_grad_(False)


def as_written(state, pixels):
    """The paper's network step by step, normalisation by itself: another way to the same features."""
    t = {name: torch.from_numpy(array) for name, array in state.items()}

    def step(x, name, norm, stride=1, groups=1, bent=True):
        kernel = t[f"{name}.weight"].shape[-1]
        out = -(-x.shape[-1] // stride)
        extra = max(0, (out - 1) * stride + kernel - x.shape[-1])
        x = F.pad(x, (extra // 2, extra - extra // 2, extra // 2, extra - extra // 2))
        x = F.conv2d(x, t[f"{name}.weight"], stride=stride, groups=groups)
        x = F.batch_norm(
            x, *(t[f"{norm}.{one}"] for one in ("running_mean", "running_var", "weight", "bias")), eps=1e-3
        )
        return x.clamp(0, 6) if bent else x

    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    x, number = step(x, "_conv_stem", "_bn0", 2), 0
    for count, _, stride, wider, _ in _STAGES:
        for at in range(count):
            before, given = f"_blocks.{number}.", x
            if wider > 1:
                x = step(x, f"{before}_expand_conv", f"{before}_bn0")
            x = step(x, f"{before}_depthwise_conv", f"{before}_bn1", 1 if at else stride, x.shape[1])
            x = step(x, f"{before}_project_conv", f"{before}_bn2", bent=False)
            x, number = (x + given if x.shape == given.shape and (at or stride == 1) else x), number + 1
    return step(x, "_conv_head", "_bn1").mean((2, 3))


def test_folded_it_sees_what_the_paper_writes_step_by_step():
    pixels = torch.randint(0, 256, (2, 37, 37, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    ours, plain = network()(pixels), as_written(random_state(), pixels)
    assert ours.shape == (2, 1280)
    assert plain.std() > 0.01
    assert torch.allclose(ours, plain, atol=1e-4, rtol=1e-3)


def test_in_bfloat16_it_sees_nearly_the_same():
    pixels = torch.randint(0, 256, (2, 32, 32, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    one = network()
    full = one(pixels)
    half = one.bfloat16()(pixels).float()
    assert F.cosine_similarity(full, half).min() > 0.99


@pytest.mark.parametrize("change", ["missing", "shape", "more"])
def test_weights_of_another_network_are_refused(change):
    state = dict(random_state())
    if change == "missing":
        del state["_blocks.3._bn1.bias"]
    elif change == "shape":
        state["_fc.weight"] = state["_fc.weight"][:10]
    else:
        state["_blocks.16._bn0.weight"] = np.ones(1, np.float32)
    with pytest.raises(ModelError, match="no weights of EfficientNet-Lite0"):
        EfficientNetLite().take(state)


def test_a_card_that_is_not_here_or_altered_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("GENWRIGHT_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="has not been fetched") as told:
        card_folder(CARD)
    assert "genwright models pull efficientnet-lite0" in told.value.hint
    place = tmp_path / "store" / "cards" / CARD / "efficientnet-lite0-57934424.pth"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"another file")
    with pytest.raises(ModelError, match="has been altered"):
        card_folder(CARD)


@pytest.mark.weights
@pytest.mark.skipif(not find_card(CARD).is_here, reason="its card has not been fetched")
def test_the_packaged_weights_give_the_known_features():
    """A ramp of colours; the figures were made by the class of efficientnet-lite-pytorch 0.1.0 with the same file."""
    ramp = torch.arange(128, dtype=torch.uint8) * 2
    pixels = torch.stack([ramp.expand(128, 128), ramp.expand(128, 128).T, ramp.flip(0).expand(128, 128)], -1)[None]
    with torch.inference_mode():
        features = efficientnet_lite()(pixels)[0]
        logits = efficientnet_lite().logits(pixels)[0]
    assert features[:4].tolist() == pytest.approx([0.0, 0.0, 0.54601, 0.112], abs=1e-4)
    assert logits.topk(3).indices.tolist() == [818, 644, 782]
