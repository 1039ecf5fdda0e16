"""Files of a tune: ABC, MIDI, MusicXML, a picture of its score, and its sound, with a lyric spoken over it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.core.content import Part
from genwright.core.errors import DataError
from genwright.core.run import write_bytes
from genwright.media.abc import Tune
from genwright.media.engraving import PICTURES, engraved, picture_of
from genwright.media.musicxml import musicxml_of
from genwright.media.performance import GENERATED, midi_of, sound_of_midi
from genwright.media.score import abc_of
from genwright.media.sound import Sound, save_sound
from genwright.media.tune_words import one_line, sentence_of

from .abc_options import TuneOptions
from .reciting import Recited, recite

if TYPE_CHECKING:
    from .abc_writing import Wish, Written


def files_of(wish: Wish, file: Path | None, written: Written) -> Iterator[Part]:
    """A tune as ABC, and as the file; before them, where a lyric is spoken, a part without text a line
    (`meta["progress"]`)."""
    told, how = written.told, wish.how
    named = sentence_of({k: told[k] for k in ("rhythm", "tonic", "mode")})
    tune = written.tune(one_line(how.title) or named[0].upper() + named[1:])
    tune = replace(tune, facts=tune.facts | {"N": (GENERATED,)})
    recited = None
    if wish.sayings is not None:
        recited = yield from recite(tune, wish.sayings)
    abc = abc_of(tune, number=wish.number + 1, verses=recited.verses if recited else ())
    meta = {"number": wish.number, "seed": wish.seed, "words": written.chosen, "logprob": written.logprob,
            "told": told, "is_cut": written.is_cut, **(recited.facts if recited else {})}  # fmt: skip
    yield Part(text=abc, meta=meta)
    if file is None:
        return
    pictures = [file.with_suffix(kind) for kind in PICTURES if how.engrave and kind != file.suffix.lower()]
    try:
        facts = save_tune(tune, abc, file, how, recited)
        for picture in pictures:
            _save_picture(tune, picture, recited)
    except OSError as error:
        raise DataError(f"{file} cannot be written: {error.strerror or error}.", "Choose another place.") from None
    yield Part("image" if file.suffix.lower() in PICTURES else "audio", path=file, meta=meta | facts)
    yield from (Part("image", path=picture, meta={"number": wish.number}) for picture in pictures)


def save_tune(tune: Tune, abc: str, file: Path, how: TuneOptions, recited: Recited | None = None) -> dict[str, Any]:
    """Write the tune as the suffix says, and its notation in the other ways beside it. What is told of the files."""
    more = {"tempo": recited.tempo, "times": recited.times, "words": recited.words} if recited else {"tempo": how.tempo}
    midi = midi_of(tune, instrument=how.instrument, chords=how.chords, **more)
    score = musicxml_of(tune, verses=recited.verses if recited else ())
    texts = {".abc": abc.encode(), ".mid": midi, ".musicxml": score.encode()}
    suffix, facts = {".midi": ".mid"}.get(file.suffix.lower(), file.suffix.lower()), dict[str, Any]()
    if suffix in texts:
        write_bytes(file, texts.pop(suffix))
    elif suffix in PICTURES:
        _save_picture(tune, file, recited)
    else:
        sound = _heard(midi, recited)
        save_sound(sound, file)
        facts["seconds"] = round(sound.seconds, 3)
    beside = {kind: file.with_suffix(kind) for kind in texts}
    for kind, path in beside.items():
        write_bytes(path, texts[kind])
    return facts | {"beside": [str(path) for path in beside.values()]}


def _heard(midi: bytes, recited: Recited | None) -> Sound:
    sound = sound_of_midi(midi)
    return recited.over(sound) if recited else sound


def _save_picture(tune: Tune, file: Path, recited: Recited | None) -> None:
    """The score; each kind from the same drawing."""
    svg = engraved(tune, verses=recited.verses if recited else ())
    write_bytes(file, svg.encode() if file.suffix.lower() == ".svg" else picture_of(svg))
