"""The path, its velocity, the loss and the samplers keep their mathematics."""

import math
from itertools import pairwise

import pytest
import torch

from genwright.nn import diffusion
from genwright.nn.diffusion import guided, logit_normal, mix, times, velocity, velocity_loss, walk


def some(seed=0, count=5):
    torch.manual_seed(seed)
    x, noise = torch.randn(2, count, 3, 4, 4)
    return x, noise, torch.rand(count) * 0.9 + 0.1


def test_velocity_of_the_path_is_noise_minus_picture():
    x, noise, t = some()
    z = mix(x, noise, t)
    torch.testing.assert_close(velocity(z, x, t), noise - x, rtol=1e-4, atol=1e-5)
    h = 1e-3
    torch.testing.assert_close((mix(x, noise, t + h) - z) / h, noise - x, rtol=1e-2, atol=1e-2)
    assert torch.equal(mix(x, noise, 0.0), x)
    assert torch.equal(mix(x, noise, 1.0), noise)


def test_the_loss_is_the_squared_error_of_the_velocity():
    x, noise, t = some()
    z, guess = mix(x, noise, t), torch.randn_like(x)
    direct = (velocity(z, guess, t) - (noise - x)).square().flatten(1).mean(1)
    torch.testing.assert_close(velocity_loss(guess, x, t, 1e-6), direct, rtol=1e-4, atol=1e-5)
    assert velocity_loss(x, x, t).eq(0).all()


def test_small_times_weigh_no_more_than_the_smallest():
    x, _, _ = some()
    near, limit = (velocity_loss(x + 0.1, x, torch.full((5,), t), 0.05) for t in (0.001, 0.05))
    torch.testing.assert_close(near, limit)
    torch.testing.assert_close(limit, torch.full((5,), 0.01 / 0.05**2), rtol=1e-4, atol=0)


def test_times_are_logit_normal():
    torch.manual_seed(0)
    logits = torch.logit(logit_normal(100_000, 0.4, 0.8).double())
    assert logits.mean().item() == pytest.approx(0.4, abs=0.02)
    assert logits.std().item() == pytest.approx(0.8, abs=0.02)


# A Gaussian of pictures, N(mean, spread²), has a closed best guess and a closed flow.
MEAN, SPREAD = 0.7, 0.4


def best_guess(z, t):
    total = (1 - t) ** 2 * SPREAD**2 + t**2
    return MEAN + (1 - t) * SPREAD**2 / total * (z - (1 - t) * MEAN)


def end_of_flow(noise, t):
    return (1 - t) * MEAN + math.sqrt((1 - t) ** 2 * SPREAD**2 + t**2) * noise


def error(method, steps):
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)
    *_, (z, _) = walk(best_guess, noise, times(steps), method=method)
    return (z - end_of_flow(noise, 0.0)).abs().max().item()


def test_euler_falls_with_the_step_and_heun_with_its_square():
    euler = [error("euler", steps) for steps in (16, 32, 64)]
    heun = [error("heun", steps) for steps in (16, 32, 64)]
    for coarse, fine in pairwise(euler):
        assert 1.7 < coarse / fine < 2.4
    for coarse, fine in pairwise(heun):
        assert 3.3 < coarse / fine < 5.2
    assert heun[0] < euler[0] / 4


def test_the_last_step_gives_the_guess_itself():
    asked = []

    def predict(z, t):
        asked.append(t)
        return torch.full_like(z, 0.25)

    steps = list(walk(predict, torch.randn(2, 3), times(4), method="heun"))
    z, x = steps[-1]
    assert torch.equal(z, x)
    assert len(steps) == 4
    assert asked == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25]
    asked.clear()
    list(walk(predict, torch.randn(2, 3), times(4), method="euler"))
    assert asked == [1.0, 0.75, 0.5, 0.25]


def test_a_walk_may_begin_on_the_way():
    noise = torch.linspace(-2, 2, 41, dtype=torch.float64)
    *_, (z, _) = walk(best_guess, end_of_flow(noise, 0.6), times(64, 0.6), method="heun")
    torch.testing.assert_close(z, end_of_flow(noise, 0.0), rtol=0, atol=1e-3)


def test_guidance_goes_beyond():
    told, untold = torch.tensor([1.0]), torch.tensor([0.5])
    assert guided(told, untold, 1.0) == told
    assert guided(told, untold, 0.0) == untold
    assert guided(told, untold, 3.0).item() == pytest.approx(2.0)
    assert diffusion.times(4, 0.8) == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
