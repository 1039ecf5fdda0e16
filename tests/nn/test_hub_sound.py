"""Text-to-audio models of transformers, tiny ones made here: opened from their folder, asked, and labelled as sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genwright.core import ModelError, Part, Request, UsageError, choose, user
from genwright.engines import transformers_audio
from genwright.media.sound import open_sound
from genwright.nn.hub_sound import HubSound, HubSoundOptions

WORDS = ["a", "slow", "waltz", "loud", "drums", "on", "the", "hill"]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<unk>", *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


@pytest.fixture(scope="module")
def musicgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MusicGen with two codebooks of 16 entries and 100 tokens a second of sound at 1,600 Hz."""
    from transformers import (
        EncodecConfig,
        MusicgenConfig,
        MusicgenDecoderConfig,
        MusicgenForConditionalGeneration,
        T5Config,
    )

    torch.manual_seed(0)
    codec = EncodecConfig(target_bandwidths=[0.8], sampling_rate=1600, num_filters=4, hidden_size=8, codebook_size=16,
                          codebook_dim=8, upsampling_ratios=[4, 4], num_lstm_layers=1)  # fmt: skip
    decoder = MusicgenDecoderConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                    ffn_dim=32, num_codebooks=2, pad_token_id=16, bos_token_id=16,
                                    max_position_embeddings=128)  # fmt: skip
    reader = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    config = MusicgenConfig(text_encoder=reader.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict())
    config.decoder.decoder_start_token_id = 16
    model = MusicgenForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = model.generation_config.pad_token_id = 16
    with torch.no_grad():
        for weight in model.decoder.parameters():
            weight.mul_(8)  # random weights that do not say the same whatever they are told
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()  # they begin as zeros
    folder = tmp_path_factory.mktemp("musicgen")
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(musicgen: Path) -> HubSound:
    return transformers_audio.load(musicgen, transformers_audio.Settings())


def ask(model: HubSound, words: str = "a slow waltz", *parts: Part, out: Path | None = None, seed: int = 3,
        **options: Any) -> list[Part]:  # fmt: skip
    asked = {"seconds": 0.2} | options
    found = list(model.generate(Request(messages=(user(words, *parts),), seed=seed, options=asked, out=out)))
    assert found[-1].meta == {"finish_reason": "stop"}
    return found[:-1]


def waves(parts: list[Part]) -> list[list[float]]:
    return [open_sound(part.path).samples[:, 0].tolist() for part in parts if part.path]


def test_words_become_sounds_of_the_length_asked_for(model: HubSound, tmp_path: Path) -> None:
    made = ask(model, n=2, out=tmp_path / "a.wav")
    assert [part.path.name for part in made if part.path] == ["a-1.wav", "a-2.wav"]
    for part in made:
        sound = open_sound(part.path or Path())
        assert (sound.rate, len(sound.samples)) == (1600, 320)
    assert waves(made) == waves(ask(model, n=2))
    assert waves(made)[1] == waves(ask(model, seed=4))[0]
    assert waves(made)[0] != waves(made)[1]


OPTIONS: dict[str, Any] = {"n": 2, "seconds": 0.1, "temperature": 0.0, "guidance": 1.0}


@pytest.mark.parametrize("key", list(HubSoundOptions.model_fields))
def test_every_option_changes_what_comes(model: HubSound, key: str) -> None:
    assert waves(ask(model, **{key: OPTIONS[key]})) != waves(ask(model))


def test_what_cannot_be_asked_is_said(model: HubSound, tmp_path: Path) -> None:
    for words, parts, options, why in (
        ("  ", (), {}, "no words"), ("a", (Part("audio", path=tmp_path),), {}, "kind audio"),
        ("a", (), {"seconds": 31}, "seconds"), ("a", (), {"steps": 3}, "steps"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            ask(model, words, *parts, **options)


def test_the_hall_knows_it_by_its_config_and_labels_what_it_makes(musicgen: Path, tmp_path: Path) -> None:
    from genwright.verbs.ask import open_answerer

    answerer = open_answerer(str(musicgen), task="text_to_audio")
    try:
        out = tmp_path / "made.wav"
        parts = list(answerer.ask([user("loud drums")], options={"seconds": 0.1}, seed=1, out=out))
    finally:
        answerer.close()
    assert any(part.path == out for part in parts)
    assert b"genwright" in out.read_bytes(), "the label lies inside the file"
    assert len(open_sound(out).samples) == 160


def test_folders_of_other_kinds_and_broken_ones_are_refused(musicgen: Path, tmp_path: Path) -> None:
    import shutil

    with pytest.raises(UsageError, match="needs a source"):
        transformers_audio.load(None, transformers_audio.Settings())
    broken = tmp_path / "broken"
    shutil.copytree(musicgen, broken)
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"model_type": "musicgen",', '"model_type": "bert",'))
    with pytest.raises(ModelError, match="holds a bert"):
        transformers_audio.load(broken, transformers_audio.Settings())
    (broken / "config.json").write_text(config)
    for file in broken.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        transformers_audio.load(broken, transformers_audio.Settings())


def test_weights_are_kept_in_the_precision_asked_for(musicgen: Path) -> None:
    half = transformers_audio.load(musicgen, transformers_audio.Settings(dtype="bfloat16"))
    assert half.module.decoder.lm_heads[0].weight.dtype == torch.bfloat16
    assert np.isfinite(waves(ask(half))[0]).all()


def test_vits_says_words_in_one_pass(tmp_path: Path) -> None:
    from transformers import VitsConfig, VitsModel

    torch.manual_seed(0)
    config = VitsConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16,
                        flow_size=16, spectrogram_bins=9, upsample_initial_channel=16, upsample_rates=[4, 4],
                        upsample_kernel_sizes=[8, 8], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]],
                        prior_encoder_num_flows=1, prior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1,
                        posterior_encoder_num_wavenet_layers=1, depth_separable_num_layers=1,
                        sampling_rate=4000)  # fmt: skip
    VitsModel(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = transformers_audio.load(tmp_path, transformers_audio.Settings())
    (short,), (long,) = (waves(ask(model, words)) for words in ("on", "a slow waltz on the hill"))
    assert 0 < len(short) < len(long)
    assert model.rate == 4000
    assert waves(ask(model, "on"))[0] == short
    assert choose("tasks", "text_to_audio").thing.gives == model.gives
