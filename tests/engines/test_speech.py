"""Words said aloud and heard again: packaged voices and Whisper, in English and Chinese, and what they refuse."""

import doctest
from types import SimpleNamespace

import numpy as np
import pytest

from genwright.core import DataError, ModelError, Part, Request, UsageError, choose, find_card, user
from genwright.media.sound import open_sound, save_sound, sound_of
from genwright.nn import voice_options, voices, whisper
from genwright.nn.voices import Kokoro, Phonemes, Speaker, language_of, sentences_of
from genwright.nn.whisper import Listener
from genwright.verbs import subtitles


def here(name):
    return pytest.mark.skipif(not find_card(name).is_here, reason=f"needs `genwright models pull {name}`")


def opened(name, task):
    from genwright.verbs.models import open_model

    return open_model(name, task=choose("tasks", task))


def say(model, words, out, seed=1, **options):
    return list(model.generate(Request(messages=(user(words),), seed=seed, out=out, options=options)))


def hear(model, path, **options):
    parts = list(model.generate(Request(messages=(user(Part("audio", path=path)),), seed=1, options=options)))
    return "".join(part.text for part in parts), parts


def test_the_examples_in_the_docstrings_hold():
    for module in (voices, voice_options, subtitles):
        assert doctest.testmod(module).failed == 0


# -- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "sentences"), [
    ("One. Two! Three?", ["One.", "Two!", "Three?"]), ("今天好。明天呢？", ["今天好。", "明天呢？"]),
    ("Dr. Smith met J. K. Rowling.", ["Dr. Smith met J. K. Rowling."]),
    ("It costs $3.50 today.", ["It costs $3.50 today."]),
    ("🙂 --- !!!", []), ("first\nsecond", ["first", "second"]),
    ('He said "Go." Then left.', ['He said "Go.', "Then left."]),
])  # fmt: skip
def test_a_text_is_cut_into_sentences(text, sentences):
    assert sentences_of(text) == sentences


def test_the_language_is_that_of_the_characters():
    assert [language_of(text) for text in ("hello", "你好 hello", "123")] == ["en", "zh", "en"]


class Tape:
    """A network whose sound is as long as its phonemes: to test all that stands around one."""

    languages, voices = ("en", "zh"), ["ann", "bob"]

    def usual(self, language):
        return "ann"

    def limit(self):
        return 20

    def say(self, phonemes, blend, speed, seed):
        self.blend = blend
        return np.full(round(1000 * len(phonemes) / speed), 0.5, np.float32)


class Letters:
    """Every letter is a phoneme."""

    def of(self, text, language):
        return text


@pytest.fixture
def speaker():
    return Speaker(Tape(), Letters())


def test_nothing_longer_than_the_network_takes_reaches_it_and_nothing_is_lost(speaker):
    long = "one two three four five, six seven eight nine ten eleven twelve"
    pieces = [piece.phonemes for piece in speaker.spoken(long, "en")]
    assert max(map(len, pieces)) <= 20
    assert " ".join(pieces).replace(",", "").split() == long.replace(",", "").split()
    chinese = "一二三四五六七八九十" * 5
    assert "".join(piece.phonemes for piece in speaker.spoken(chinese, "zh")) == chinese


def test_sentences_come_one_by_one_and_together_they_are_the_whole(speaker, tmp_path):
    parts = say(speaker, "One here. Two here.", tmp_path / "a.wav", partial=True, pause=0.5)
    partial = [part for part in parts if "partial" in part.meta]
    (whole,) = [part for part in parts if part.path and "partial" not in part.meta]
    assert [part.text for part in partial] == ["One here.", "Two here."]
    joined = np.concatenate([open_sound(part.path).samples for part in partial])
    assert np.array_equal(joined, open_sound(whole.path).samples)
    assert whole.meta["seconds"] == pytest.approx((9 + 9) * 1000 / 24_000 + 0.5)
    assert parts[-1].meta == {"finish_reason": "stop"}


def test_a_stream_begins_with_a_clause_where_the_first_sentence_is_long(speaker, tmp_path):
    long = "When the rain stopped at last, all of them went out into the garden to look. And so on, as it ever does."
    speaker.network.limit = lambda: 400
    parts = say(speaker, long, tmp_path / "a.wav", partial=True, pause=0.5)
    partial = [part for part in parts if part.meta.get("partial")]
    assert [part.text.split()[0] for part in partial] == ["When", "all", "And"]
    joined = np.concatenate([open_sound(part.path).samples for part in partial])
    (whole,) = [part for part in parts if part.path and "partial" not in part.meta]
    assert np.array_equal(joined, open_sound(whole.path).samples)
    gaps = [open_sound(part.path).seconds - 1000 * len(part.text) / 24_000 for part in partial]
    assert gaps == pytest.approx([0, 0.12, 0.5], abs=1e-3)  # no full pause inside of a sentence
    assert [part.text for part in say(speaker, long, tmp_path / "b.wav") if part.text] == []
    assert len(list(speaker.spoken(long, "en"))) == 2  # whole where nobody waits


def test_options_are_heard(speaker, tmp_path):
    (slow,) = [p for p in say(speaker, "One here.", tmp_path / "a.flac", speed=0.5) if p.path]
    assert slow.meta["seconds"] == pytest.approx(18_000 / 24_000)
    say(speaker, "One here.", tmp_path / "a.wav", voice="ann:1+bob:3")
    assert speaker.network.blend == {"ann": 0.25, "bob": 0.75}
    (said,) = [p for p in say(speaker, "One here.", tmp_path / "a.wav", language="zh") if p.path]
    assert said.meta["languages"] == ["zh"]
    for normalise, words in ((True, "It is five o'clock."), (False, "It is 5:00.")):
        parts = say(speaker, "It is 5:00.", tmp_path / "a.wav", partial=True, normalise=normalise)
        assert [part.text for part in parts if part.text] == [words]


@pytest.mark.parametrize(("words", "options", "wrong"), [
    ("", {}, "nothing to say"), ("🙂🙂", {}, "nothing to say"), ("x" * 20_001, {}, "20,001 characters"),
    ("Hello.", {"voice": "anna"}, "Did you mean 'ann'"), ("Hello.", {"speed": 9}, "speed"),
    ("Hello.", {"voice": "ann:x"}, "blend"), ("Hello.", {"language": "fr"}, "language"),
    ("Hello.", {"volume": 1}, "volume"), ("Hello. Привет, как дела?", {}, "holds 'Привет'"), ("مرحبا", {}, "Latin"),
    ("こんにちは、世界", {}, "こんにちは"),
])  # fmt: skip
def test_what_cannot_be_said_is_a_clear_error(speaker, words, options, wrong, tmp_path):
    with pytest.raises(UsageError, match=wrong):
        say(speaker, words, tmp_path / "a.wav", **options)


def test_single_letters_of_other_scripts_and_accents_are_no_foreign_words(speaker, tmp_path):
    assert any(part.path for part in say(speaker, "Café Müller sells π and 5 Ω at №1.", tmp_path / "a.wav"))


def test_a_file_that_cannot_be_written_is_refused_before_a_word_is_said(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(speaker.network, "say", lambda *_: pytest.fail("said"))
    with pytest.raises(UsageError, match=r"cannot be written as \.m4a"):
        say(speaker, "One here.", tmp_path / "a.m4a")


def test_a_voice_that_does_not_speak_a_language_says_so(speaker, tmp_path):
    speaker.network.languages = ("en",)
    with pytest.raises(UsageError, match="does not speak zh"):
        say(speaker, "你好。", tmp_path / "a.wav")


def test_a_full_disk_is_a_clear_error(speaker, tmp_path, monkeypatch):
    monkeypatch.setattr(
        voices, "save_sound", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(DataError, match="No space left"):
        say(speaker, "Hello.", tmp_path / "a.wav")


@pytest.mark.parametrize("engine", ["speech", "whisper"])
def test_a_folder_that_holds_something_else_is_refused(engine, tmp_path):
    for source, error in ((None, UsageError), (tmp_path, ModelError)):
        with pytest.raises(error):
            choose("engines", engine)(source)


def test_english_words_in_a_chinese_sentence_are_read_as_english():
    phonemes = Phonemes()
    mixed = phonemes.of("我用iPhone拍照。", "zh")
    assert phonemes.of("iPhone", "en") in mixed
    assert any(tone in mixed for tone in "↓↗↘→")
    assert phonemes.numbers(mixed)


def test_no_at_the_end_of_a_sentence_is_no_number():
    phonemes = Phonemes()
    for sentence, word in (
        ("I said no.", "no"),
        ("Oh, no. It rains.", "no"),
        ("He ate a fig.", "fig"),
        ("Ask Ed.", "Ed"),
    ):
        assert phonemes.of(word + "!", "en").strip("!") in phonemes.of(sentence, "en")
    assert phonemes.of("number five", "en") == phonemes.of("No. 5", "en")


# -- listening -------------------------------------------------------------------------------------------------------


def listener():
    bare = object.__new__(Listener)
    bare._zero, bare._first_special = 1000, 900
    return bare


def at(seconds):
    return 1000 + round(seconds / 0.02)


@pytest.mark.parametrize(("tokens", "pieces", "goes_on"), [
    ([at(0), 1, 2, at(2.0), 900], [(0, 2.0, [1, 2])], 3000),  # silence after it
    ([at(0), 1, at(2.0), at(2.0), 2, at(5.0), at(5.0), 3], [(0, 2.0, [1]), (2.0, 5.0, [2])], 500),  # another began
    ([1, 2], [(0, 30.0, [1, 2])], 3000),  # no times at all
    ([at(1), at(3)], [], 3000),
])  # fmt: skip
def test_a_window_is_cut_at_its_times(tokens, pieces, goes_on):
    found, went = listener()._pieces(tokens, 3000)
    assert found == pieces
    assert went == goes_on


class Spelling:
    """A tokenizer whose tokens are bytes: a character of Chinese is three of them."""

    def decode(self, tokens):
        return bytes(tokens).decode("utf-8", "replace")


@pytest.mark.parametrize(("text", "language", "words"), [
    (" The quick, brown fox.", "en", ["The", "quick,", "brown", "fox."]), (" It's 5 - no", "en", ["It's", "5 -", "no"]),
    ("你好，世界。", "zh", ["你", "好，", "世", "界。"]), (" été à", "fr", ["été", "à"]), ("", "en", []),
])  # fmt: skip
def test_tokens_become_words_whole_characters_first(text, language, words):
    bare = listener()
    bare._words = Spelling()
    found = list(bare._spelled(list(text.encode()), language))
    assert [word.strip() for word, _ in found] == words
    assert sum(count for _, count in found) == len(text.encode())


def test_subtitles_tell_the_times_of_words():
    words = [{"word": word, "start": k / 2, "end": k / 2 + 0.4} for k, word in enumerate(("One", "two,", "three."))]
    segments = [{"start": 0.0, "end": 1.5, "text": " One two, three.", "words": words}]
    shown = subtitles.vtt(segments)
    assert "One <00:00:00.500>two, <00:00:01.000>three." in shown
    assert subtitles.read_subtitles(shown)[0]["text"] == "One two, three."
    assert [cue["text"] for cue in subtitles.read_subtitles(subtitles.srt(subtitles.by_words(segments)))] == [
        "One", "two,", "three.",
    ]  # fmt: skip
    other = [segments[0] | {"text": "something else"}]
    assert "\nsomething else\n" in subtitles.vtt(other)


def test_options_of_listening_are_known():
    with pytest.raises(UsageError, match="no sound"):
        list(
            Listener.generate(
                SimpleNamespace(_sound=lambda r: Listener._sound(None, r)), Request(messages=(user("x"),))
            )
        )
    with pytest.raises(UsageError, match="beams"):
        Request(messages=(user("x"),), options={"beams": 0}).options_as(whisper.ListenOptions)


def test_subtitles_come_back_as_they_were_written():
    cues = [{"start": 0.0, "end": 1.25, "text": "One."}, {"start": 3661.5, "end": 3662.0, "text": "Two --> three"}]
    for form in (subtitles.srt, subtitles.vtt):
        back = subtitles.read_subtitles(form(cues))
        assert [(cue["start"], cue["end"]) for cue in back] == [(0.0, 1.25), (3661.5, 3662.0)]
        assert back[1]["text"] == "Two → three"
    with pytest.raises(DataError, match="no subtitle"):
        subtitles.read_subtitles("hello")
    with pytest.raises(DataError, match="before it begins"):
        subtitles.read_subtitles("00:00:02,000 --> 00:00:01,000\nx\n")


# -- the real ones ---------------------------------------------------------------------------------------------------


@here("hibari")
@here("whisper-base")
def test_what_is_said_in_english_is_heard_and_noise_is_not(tmp_path):
    voice, ear = opened("hibari", "text_to_speech"), opened("whisper-base", "transcribe")
    for name in ("a.wav", "b.wav"):
        say(voice, "The quick brown fox jumps over the lazy dog.", tmp_path / name)
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    text, parts = hear(ear, tmp_path / "a.wav", beams=1)
    assert text == "The quick brown fox jumps over the lazy dog."
    assert parts[-1].meta["language"] == "en"
    (segment,) = parts[0].meta["segments"]
    assert "words" not in segment
    (timed,) = hear(ear, tmp_path / "a.wav", beams=1, words=True)[1][0].meta["segments"]
    assert [word["word"] for word in timed["words"]] == text.split()
    sound = open_sound(tmp_path / "a.wav")
    middle = next(word for word in timed["words"] if word["word"] == "jumps")
    assert 0.35 * sound.seconds < middle["start"] < middle["end"] < 0.65 * sound.seconds
    assert 0 <= segment["start"] < segment["end"] <= parts[-1].meta["duration"] + 0.5
    noise = save_sound(sound_of(np.random.default_rng(0).normal(0, 0.05, 48_000), 16_000), tmp_path / "noise.wav")
    assert hear(ear, noise)[0] == ""
    with pytest.raises(UsageError, match="language 'xx'"):
        hear(ear, noise, language="xx")
    said = open_sound(tmp_path / "a.wav").at(8_000)
    hush = np.zeros((11 * 60 * 8_000, 1), np.float32)
    late = save_sound(sound_of(np.concatenate([hush, said.samples]), 8_000), tmp_path / "late.flac")
    text, parts = hear(ear, late, beams=1)
    assert "lazy dog" in text, "longer than any sound that is learned from, and heard to its end"
    assert parts[0].meta["segments"][0]["start"] == pytest.approx(660, abs=3)


@here("kokoro-82m")
@here("whisper-base")
def test_what_is_said_in_chinese_is_heard_in_either_script(tmp_path):
    voice, ear = opened("kokoro-82m", "text_to_speech"), opened("whisper-base", "transcribe")
    assert isinstance(voice.network, Kokoro)
    say(voice, "今天天气很好。", tmp_path / "a.wav")
    assert "天气很好" in hear(ear, tmp_path / "a.wav", beams=1)[0]
    assert "天氣很好" in hear(ear, tmp_path / "a.wav", beams=1, script="traditional", language="zh")[0]
