"""Tiny pipelines of diffusers with random weights, made here: of each family, and of each thing they tell."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

SIZE = 16  # pixels; latents are 8 × 8
_WORDS = ["red", "green", "blue", "black", "orange", "circle", "square", "bar", "cross", "a", "photo", "of", "thing"]


def stable_diffusion(folder: Path, *, prediction: str = "epsilon", seed: int = 0) -> Path:
    """A Stable Diffusion pipeline."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    schedule = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        set_alpha_to_one=False, prediction_type=prediction,
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=_autoencoder(), text_encoder=_clip(), tokenizer=_tokenizer(), unet=unet, scheduler=schedule,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder: Path, *, seed: int = 0) -> Path:
    """A Stable Diffusion XL pipeline, whose network hears two text encoders and the picture's size."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8,), norm_num_groups=4, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )  # fmt: skip
    pipeline = StableDiffusionXLPipeline(
        vae=_autoencoder(), text_encoder=_clip(), text_encoder_2=_clip(projected=True), tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(), unet=unet, scheduler=EulerDiscreteScheduler(), add_watermarker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def stable_diffusion_3(folder: Path, *, seed: int = 0) -> Path:
    """A Stable Diffusion 3 pipeline, which learns flow matching."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
    )  # fmt: skip
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_autoencoder(shift=0.1),
        text_encoder=_clip(projected=True), tokenizer=_tokenizer(), text_encoder_2=_clip(projected=True),
        tokenizer_2=_tokenizer(), text_encoder_3=_t5(), tokenizer_3=_t5_tokenizer(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def pixart(folder: Path, *, seed: int = 0) -> Path:
    """A PixArt pipeline, whose network tells noise and variance, by a T5 encoder with a mask."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    torch.manual_seed(seed)
    transformer = PixArtTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=1, attention_head_dim=8,
        num_attention_heads=2, cross_attention_dim=16, caption_channels=32, use_additional_conditions=False,
    )  # fmt: skip
    pipeline = PixArtSigmaPipeline(
        transformer=transformer, scheduler=DPMSolverMultistepScheduler(), vae=_autoencoder(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", *("▁" + word for word in _WORDS), *string.ascii_lowercase]
    return T5Tokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)], extra_ids=0)


def _autoencoder(*, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, sample_size=SIZE, shift_factor=shift,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _clip(*, projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(_vocabulary()), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary(), []
    for word in _WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces[:2] = ["".join(pieces[:2])]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=16)


def _vocabulary() -> dict[str, int]:
    pieces = [
        "<|startoftext|>",
        "<|endoftext|>",
        *string.ascii_lowercase,
        *(c + "</w>" for c in string.ascii_lowercase),
    ]
    for word in _WORDS:
        pieces += [word[:n] for n in range(2, len(word))] + [word + "</w>"]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
