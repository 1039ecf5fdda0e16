"""Commands for sound: say words aloud, compose tunes, write down what is said."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from genwright.core import Part, Request, UsageError, shelves, user

from .render import Screen


def speak(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.ask import open_answerer
    from genwright.verbs.speaking import model_for

    text = sys.stdin.read() if args.text == "-" else args.text
    model = model_for(text, args.model, args.voice)
    out = Path(args.out or "speech.wav")
    options = {name: value for name, value in (("voice", args.voice), ("speed", args.speed)) if value is not None}
    answerer = open_answerer(model, task="text_to_speech")
    found: Part | None = None
    screen.tell.stage(f"Saying {out.name}")
    try:
        for part in answerer.ask([user(text)], options=options, seed=args.seed, out=out):
            screen.tell.advance()
            found = part if part.path else found
    finally:
        answerer.close()
    assert found
    screen.show(shelves["modalities"].load("audio").modality, found)
    screen.say(str(found.path))
    return {"model": model, "file": str(found.path), **{k: v for k, v in (found.meta or {}).items() if k != "AIGC"}}


def transcribe(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.ask import open_answerer
    from genwright.verbs.subtitles import by_words, srt, vtt

    out = Path(args.out) if args.out else None
    form = out.suffix[1:] if out and out.suffix in (".srt", ".vtt", ".json") else args.format
    options: dict[str, Any] = {name: True for name in ("translate", "words") if getattr(args, name)}
    options |= {"script": args.script} if args.script else {}
    options |= {"language": args.language} if args.language else {}
    answerer = open_answerer(args.model, task="transcribe")
    segments, text, facts = list[dict[str, Any]](), "", dict[str, Any]()
    try:
        for part in answerer.ask([user(Part("audio", path=Path(args.sound)))], options=options):
            meta = dict(part.meta or {})
            segments += meta.pop("segments", [])
            facts |= {name: meta[name] for name in ("language", "duration") if name in meta}
            text += part.text
            if form == "text" and not out:
                screen.stream(part.text)
    finally:
        answerer.close()
    if not text.strip():
        screen.tell.note(f"Nobody speaks in {args.sound}, as far as can be heard.")
    found = {"text": text.strip(), **facts, "segments": segments}
    cues = by_words(segments) if args.words and form == "srt" else segments
    shown = {"srt": srt, "vtt": vtt}[form](cues) if form in ("srt", "vtt") else text.strip() + "\n"
    shown = json.dumps(found, ensure_ascii=False, indent=1) + "\n" if form == "json" else shown
    if out:
        try:
            out.write_text(shown, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{out} cannot be written: {error.strerror}.", "Choose another place.") from None
        screen.say(str(out))
    else:
        screen.stream("\n" if form == "text" else shown)
    return found


def compose(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.compose import compose as compose_tunes

    from .commands import _changes

    names = ("n", "key", "metre", "rhythm", "region", "bars", "keep", "title", "tempo", "instrument", "temperature",
             "speaker", "voice", "speed")  # fmt: skip
    options: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    options |= {"use": "vary"} if args.vary else {}
    options |= {name: True for name in ("chords", "engrave") if getattr(args, name)}
    found = compose_tunes(
        args.prompt or "", Path(args.out), model=args.model or "", melody=Path(args.melody) if args.melody else None,
        lyrics=_lyrics(args.lyrics), options=options | _changes(args.option), seed=args.seed, tell=screen.tell,
    )  # fmt: skip
    for tune in found:
        screen.stream(tune["abc"])
        if "seconds" in tune:
            screen.show(shelves["modalities"].load("audio").modality, Part("audio", path=Path(tune["file"])))
        screen.say(" ".join([tune["file"], *tune.get("beside", ()), *tune.get("pictures", ())]))
    return {"tunes": found}


def _lyrics(given: str | None) -> str | Path | None:
    """The words themselves (- is standard input), or the file that is named."""
    if given == "-":
        return sys.stdin.read()
    if given is None or "\n" in given or len(given) > 255:
        return given
    path = Path(given)
    return path if path.suffix in (".txt", ".md") or (path.exists() and not path.is_dir()) else given


def mix(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.mix import mix as mix_sounds

    bed = Path(args.bed) if args.bed else None
    found = mix_sounds([Path(one) for one in args.sound], Path(args.out), bed=bed, pause=args.pause,
                       options=_mix_options(args), tell=screen.tell)  # fmt: skip
    return _shown(found, screen)


def dub(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.dub import dub as dub_subtitles
    from genwright.verbs.speaking import VoiceChoice

    who = _choice(VoiceChoice, {"model": args.model, "voice": args.voice, "speed": args.speed})
    found = dub_subtitles(
        Path(args.subtitles), Path(args.out), who=who, fastest=args.fastest, bed=Path(args.bed) if args.bed else None,
        options=_mix_options(args), seed=args.seed, tell=screen.tell,
    )  # fmt: skip
    for fit in found["misfits"]:
        late = f"begins {fit['late']:.1f} s late" if fit["late"] else f"is {fit['over']:.1f} s too long"
        screen.say(f"  at {fit['start']:.1f} s, {fit['speed']:g} times as fast: {late}: {fit['text'][:60]}")
    screen.say(f"{found['cues'] - len(found['misfits'])} of {found['cues']} cues are said in their time.")
    return _shown(found, screen)


def podcast(args: Namespace, screen: Screen) -> dict[str, Any]:
    from genwright.verbs.podcast import podcast as make_podcast

    bed = Path(args.bed) if args.bed else None
    found = make_podcast(Path(args.script), Path(args.out), bed=bed, options=_mix_options(args), seed=args.seed,
                         tell=screen.tell)  # fmt: skip
    for path in found["files"]:
        screen.say(path)
    return _shown(found, screen)


def _choice(kind: Any, given: dict[str, Any]) -> Any:
    """Settings of what was given. Raises UsageError for what cannot be."""
    asked = Request(messages=(user(""),), options={name: one for name, one in given.items() if one is not None})
    return asked.options_as(kind)


def _mix_options(args: Namespace) -> dict[str, Any]:
    from .commands import _changes

    named = {name: getattr(args, name) for name in ("duck", "loudness") if getattr(args, name) is not None}
    return named | _changes(args.option)


def _shown(found: dict[str, Any], screen: Screen) -> dict[str, Any]:
    """The file that was made, on the screen."""
    screen.show(shelves["modalities"].load("audio").modality, Part("audio", path=Path(found["file"])))
    loud = "silent" if found["loudness"] is None else f"{found['loudness']:.1f} LUFS, peak {found['peak']:.1f} dBTP"
    screen.say(f"{found['file']}: {found['seconds']:.1f} s, {loud}, {'labelled' if found['label'] else 'no label'}")
    return found
