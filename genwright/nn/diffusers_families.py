"""Families: how the networks of diffusers' pipelines are told captions and asked, and by which noise they learn."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genwright.core.errors import UsageError

Told = Mapping[str, Tensor]
_UNET, _SD3, _PIXART = "UNet2DConditionModel", "SD3Transformer2DModel", "PixArtTransformer2DModel"
_TOLD = {  # by the class of the network: its names for what `encode_prompt` answers, in that order
    _UNET: ("encoder_hidden_states", "", "text_embeds"),  # the last one in XL alone
    _SD3: ("encoder_hidden_states", "", "pooled_projections"),
    _PIXART: ("encoder_hidden_states", "encoder_attention_mask"),
}


def check_family(pipeline: Any, net: Any) -> None:
    """Raise UsageError for a network that paints here but that this file does not know how to teach."""
    latents = getattr(getattr(getattr(pipeline, "vae", None), "config", None), "latent_channels", 0)
    if type(net).__name__ not in _TOLD or net.config.in_channels != latents:
        raise UsageError(
            f"A {type(pipeline).__name__} paints here, but cannot be taught.",
            f"Pipelines that paint from words with one of {', '.join(_TOLD)} can.",
        )


def tell(pipeline: Any, net: Any, caption: str, device: torch.device) -> Told:
    """What the pipeline's text encoders make of one caption, by the network's own names."""
    takes = inspect.signature(pipeline.encode_prompt).parameters
    more = {name: None for name in ("prompt_2", "prompt_3") if name in takes}
    found = pipeline.encode_prompt(
        prompt=caption, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False, **more
    )
    names = _TOLD[type(net).__name__]
    return {name: tensor for name, tensor in zip(names, found, strict=False) if name}


def ask(net: Any, z: Tensor, t: Tensor, told: Told, size: int) -> Tensor:
    """What the network says of noisy latents z (B, c, h, w) at its own times t (B,), of pictures of `size` pixels."""
    told, place = dict(told), dict[str, Tensor | None]()
    if "text_embeds" in told:  # height and width, corner of the crop, height and width wanted
        where = torch.tensor([size, size, 0, 0, size, size], device=z.device, dtype=z.dtype)
        place = {"text_embeds": told.pop("text_embeds"), "time_ids": where.expand(len(z), -1)}
    elif type(net).__name__ == _PIXART:
        place = {"resolution": None, "aspect_ratio": None}
        if net.config.sample_size == 128:  # the network of 1024 pixels is told the picture's shape
            place = {"resolution": z.new_full((len(z), 2), size), "aspect_ratio": z.new_ones(len(z), 1)}
    found: Tensor = net(z, timestep=t, **told, **({"added_cond_kwargs": place} if place else {})).sample
    return found[:, : z.shape[1]]  # PixArt's other half is the variance


def noised(scheduler: Any, x: Tensor, noise: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(z, t, target): latents x (B, c, h, w) mixed with noise at times u (B,) from 0 (picture) to 1 (noise), z = α·x +
    σ·ε, the network's own times (B,), and what it should say of z.

    That is ε (Ho et al. 2020), v = α·ε − σ·x (Salimans & Ho 2022), x, or the flow ε − x (Lipman et al. 2023).
    """
    config = scheduler.config
    kind, steps = config.get("prediction_type", "epsilon"), config.num_train_timesteps
    if "FlowMatch" in type(scheduler).__name__:
        shift = config.get("shift") or 1.0
        sigma = shift * u / (1 + (shift - 1) * u)
        kind, alpha, t = "flow", 1 - sigma, sigma * steps
    elif kind in ("epsilon", "v_prediction", "sample") and hasattr(scheduler, "alphas_cumprod"):
        t = (u * steps).long().clamp(max=steps - 1)
        kept = scheduler.alphas_cumprod.float().to(u.device)[t]
        alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    else:
        raise UsageError(f"A pipeline with a {type(scheduler).__name__} ({kind}) cannot be taught.", "Use another.")
    alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    target = {"epsilon": noise, "sample": x, "flow": noise - x, "v_prediction": alpha * noise - sigma * x}[kind]
    return alpha * x + sigma * noise, t, target
