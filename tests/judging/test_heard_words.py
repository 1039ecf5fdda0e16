"""Words as a listener hears them: what is said well is heard, another text is not, and the recordings stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from genwright.core import Example, Judged, Part, Request, UsageError, assistant, choose, find_card, user

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(
        not (find_card("hibari").is_here and find_card("whisper-base").is_here), reason="cards hibari, whisper-base"
    ),
]
SENTENCES = ("The ferry leaves at noon.", "Please bring two large umbrellas.")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    pytest.importorskip("hibari")
    from genwright.engines import speech

    folder = tmp_path_factory.mktemp("said")
    voice = speech.load(find_card("hibari").folder, speech.Settings())
    paths = [folder / f"{number}.wav" for number in range(len(SENTENCES))]
    for text, path in zip(SENTENCES, paths, strict=True):
        list(voice.generate(Request(messages=(user(text),), out=path, seed=1)))
    return paths


def row(text: str, recorded: Path, answered: Path) -> Judged:
    example = Example((user(text), assistant(Part("audio", path=recorded))))
    return Judged(example, assistant(Part("audio", path=answered)))


def test_what_is_said_is_heard_and_what_is_not_is_an_error(sounds: list[Path]) -> None:
    metric = choose("metrics", {"name": "heard_words", "language": "en"})
    right = metric([row(text, path, path) for text, path in zip(SENTENCES, sounds, strict=True)], bootstrap=20)
    assert right.value < 0.15
    assert right.beside == {"the recordings": pytest.approx(right.value)}
    swapped = zip(SENTENCES, sounds, sounds[::-1], strict=True)
    crossed = metric([row(text, path, other) for text, path, other in swapped], bootstrap=20)
    assert crossed.value > 0.7
    assert crossed.beside["the recordings"] == pytest.approx(right.value)
    few = choose("metrics", {"name": "heard_words", "language": "en", "most": 1})
    assert few([row(SENTENCES[0], sounds[0], sounds[0]), row(SENTENCES[1], sounds[1], sounds[0])]).value < 0.15


def test_answers_without_sound_are_refused() -> None:
    with pytest.raises(UsageError, match="No answer is a sound"):
        choose("metrics", "heard_words")([Judged(Example((user("a"), assistant("b"))), assistant("c"))])
