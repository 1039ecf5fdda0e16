"""The command line: one command a verb; it parses, calls, shows, and turns errors into sentences and exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

EXAMPLES = """examples:
  genwright run recipes/text/shell_assistant.yaml      prepare, tune, evaluate, export
  genwright chat runs/shell_assistant                  talk with the result
  genwright serve runs/shell_assistant                 OpenAI's API on http://127.0.0.1:8484/v1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, or that of the error (core/errors.py), or 130 after ctrl-C."""
    args = build_parser().parse_args(argv)
    from importlib import import_module

    from genwright.core import GenwrightError

    from .render import Screen

    _quiet_libraries()
    screen = Screen(as_json=args.json, quiet=args.quiet)
    module, _, name = args.do.rpartition(":")
    try:
        result = getattr(import_module(f".{module or 'commands'}", __package__), name)(args, screen)
        screen.finish(result)
        return int(result.get("exit_code", 0)) if isinstance(result, dict) else 0
    except GenwrightError as error:
        return _tell_error(screen, error)
    except KeyboardInterrupt:
        screen.finish({"error": "Interrupted"})
        print("\nStopped. Nothing finished is lost: the same command goes on from here.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `genwright … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _tell_error(screen: Any, error: Any) -> int:
    screen.finish(error.as_dict())
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  → {error.hint}", file=sys.stderr)
    return int(error.exit_code)


def _quiet_libraries() -> None:
    """Libraries below us keep their banners and bars to themselves; what matters we say."""
    for name, value in {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                        "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}.items():  # fmt: skip
        os.environ.setdefault(name, value)


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; building it imports nothing heavy."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the result as one JSON object")
    shared.add_argument("--quiet", action="store_true", help="no progress")
    parser = argparse.ArgumentParser(
        "genwright", description="From your data to a deployed, safe generative product, on one machine.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    from genwright import __version__

    from .server_parser import server_commands

    parser.add_argument("--version", action="version", version=f"genwright {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, text: str, *, into: Any = verbs, do: str = "") -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = into.add_parser(name, help=text, description=text, parents=[shared])
        one.set_defaults(do=do or name)
        return one

    _recipe_commands(command)
    _model_commands(command)
    _sound_commands(command)
    _inspection_commands(command, verbs)
    server_commands(command, verbs)
    return parser


Command = Callable[..., argparse.ArgumentParser]


def _recipe_commands(command: Command) -> None:
    for name, text in (
        ("run", "carry out a whole recipe: prepare, tune, evaluate, export; a second call redoes only what changed"),
        ("prepare", "read, refine and split the recipe's data, and write the data report"),
        ("tune", "prepare if needed, then tune; a killed one goes on where it was"),
        ("search", "search hyper-parameters over the keys in the recipe's `search.space`"),
    ):
        one = command(name, text)
        one.add_argument("recipe", help="a recipe file, or a run to redo")
        one.add_argument("--out", metavar="FOLDER", help="where the run lives (default runs/NAME)")
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key: train.epochs=3")
        if name == "run":
            one.add_argument("--until", choices=("prepare", "tune", "evaluate", "export"), default="export")
    one = command("evaluate", "judge a run's model beside the model it came from, on the held-out rows")
    one.add_argument("run", help="a run")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key: evaluate.max_rows=50"
    )
    one = command("export", "write a run's model in another format")
    one.add_argument("run", help="a run")
    one.add_argument(
        "--format", action="append", default=[], metavar="NAME[:KEY=VALUE,…]", help="gguf:quantization=q4_0"
    )
    one.add_argument("--out", metavar="FOLDER", help="where to write (default RUN/exports)")
    one = command("compare", "two runs side by side: what differs in the recipes, and in the scores")
    one.add_argument("runs", nargs=2, metavar="RUN")


def _model_commands(command: Command) -> None:
    for name, text in (
        ("generate", "one answer to one prompt (`-` reads it from standard input)"),
        ("chat", "talk with a model in the terminal"),
    ):
        one = command(name, text)
        one.add_argument("model", help="a run, card, folder, GGUF file or hf:org/name")
        if name == "generate":
            one.add_argument("prompt", nargs="?", help="what to ask; - is standard input")
            one.add_argument("--task", metavar="NAME", help="another task than the run's own, e.g. image_to_image")
            one.add_argument(
                "--option",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="of the model: steps=8, n=4, style=flat",
            )
            one.add_argument("--image", action="append", default=[], metavar="FILE", help="a picture to start from")
            one.add_argument("--mask", metavar="FILE", help="where that picture may change: transparent, or white")
            one.add_argument("--file", metavar="ROWS", help="answer every row of a JSON-lines file into --out instead")
            one.add_argument("--executor", default="local", metavar="NAME[:KEY=VALUE,…]", help="ray:workers=4")
        else:
            one.add_argument("--once", metavar="PROMPT", help="ask this, show the answer and leave")
        one.add_argument("--system", default="", help="system message")
        one.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer")
        one.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)")
        one.add_argument("--top-p", type=float, default=1.0, metavar="P", help="nucleus sampling")
        one.add_argument("--seed", type=int, metavar="N", help="seed of the sampling")
        one.add_argument("--choice", action="append", default=[], metavar="TEXT", help="the answer is one of these")
        one.add_argument("--json-schema", metavar="FILE", help="the answer is JSON that validates against this schema")
        one.add_argument("--guard", action="append", default=[], metavar="NAME", help="a guard besides the run's own")
        one.add_argument("--engine", metavar="NAME", help="an engine instead of the one chosen for you")
        if name == "generate":
            one.add_argument("-o", "--out", metavar="FILE", help="write the labelled answer to a file")


def _sound_commands(command: Command) -> None:
    one = command("speak", "say words aloud in English or Chinese, to a file", do="sound_commands:speak")
    one.add_argument("text", help="what to say; - is standard input")
    one.add_argument("-o", "--out", metavar="FILE", help="speech.wav, .flac, .mp3, .ogg or .opus (default speech.wav)")
    one.add_argument("--model", metavar="NAME", help="hibari or kokoro-82m (default: by the language)")
    one.add_argument("--voice", metavar="NAME", help="a voice, or a blend: af_heart:0.7+af_bella:0.3")
    one.add_argument("--speed", type=float, metavar="N", help="2 is twice as fast")
    one.add_argument("--seed", type=int, metavar="N", help="the same seed, the same bytes")
    one = command("transcribe", "write down what is said in a sound", do="sound_commands:transcribe")
    one.add_argument("sound", help="a file: WAV, FLAC, MP3, OGG, Opus …")
    one.add_argument("--model", default="whisper-base", metavar="NAME", help="default whisper-base")
    one.add_argument("--language", metavar="CODE", help="of the speech, as two letters (default: it listens first)")
    one.add_argument("--translate", action="store_true", help="write English, whatever is spoken")
    one.add_argument("--words", action="store_true", help="times of words too: in json and vtt; in srt a cue a word")
    one.add_argument(
        "--script", choices=("simplified", "traditional", "as_heard"), help="of Chinese (default simplified)"
    )
    one.add_argument("--format", choices=("text", "srt", "vtt", "json"), default="text", help="default text")
    one.add_argument("-o", "--out", metavar="FILE", help="write to a file; .srt and .vtt choose the format too")
    one = command("compose", "a tune of what words ask for: sound, MIDI, ABC and MusicXML", do="sound_commands:compose")
    one.add_argument("prompt", nargs="?", help="a jig in D major, 16 bars, from Ireland; in Chinese too")
    one.add_argument(
        "-o", "--out", default="tune.wav", metavar="FILE",
        help=".wav, .flac, .mp3, .ogg or .opus with notation beside; .mid, .abc, .musicxml; or .svg, .png: the score "
        "engraved (default tune.wav)",
    )  # fmt: skip
    one.add_argument("--model", metavar="NAME", help="a card, run or folder (default tunes)")
    for name, meta, words in (
        ("key", "KEY", "D, Em, A dorian"), ("metre", "N/N", "6/8"), ("rhythm", "NAME", "jig, reel, hornpipe, air …"),
        ("region", "NAME", "Ireland, Scotland, United States"), ("title", "TEXT", "what it is called"),
    ):  # fmt: skip
        one.add_argument(f"--{name}", metavar=meta, help=words)
    one.add_argument("--bars", type=int, metavar="N", help="about how many bars are written")
    one.add_argument("--melody", metavar="FILE", help="a tune as ABC to go on from")
    one.add_argument("--vary", action="store_true", help="vary the melody instead of going on from it")
    one.add_argument("--keep", type=float, metavar="SHARE", help="of the melody's bars that stay")
    one.add_argument("--tempo", type=int, metavar="N", help="quarters a minute (default: as such tunes are played)")
    one.add_argument("--instrument", type=int, metavar="N", help="General MIDI: 0 piano, 40 violin, 73 flute")
    one.add_argument("--chords", action="store_true", help="accompany it")
    one.add_argument("--engrave", action="store_true", help="the score as .svg and .png beside it")
    one.add_argument(
        "--lyrics", metavar="TEXT", help="words or a .txt file, spoken (not sung) over it, each line from a bar line on"
    )
    one.add_argument("--speaker", metavar="NAME", help="who says them: hibari or kokoro-82m (default: by the language)")
    one.add_argument("--voice", metavar="NAME", help="a voice, or a blend: af_heart:0.7+af_bella:0.3")
    one.add_argument("--speed", type=float, metavar="N", help="of the words: 1.5 is faster")
    one.add_argument("--temperature", type=float, metavar="N", help="how freely notes are drawn (default 0.9)")
    one.add_argument("-n", type=int, metavar="N", help="how many tunes")
    one.add_argument("--seed", type=int, metavar="N", help="the same seed, the same tune")
    one.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="top_p=0.9, whole_bars=false, duck=12"
    )
    one = command("mix", "voices over music that goes down while they speak, labelled", do="sound_commands:mix")
    one.add_argument("sound", nargs="+", help="voices, one after the other; any file that is read")
    one.add_argument("--pause", type=float, default=0.5, metavar="SECONDS", help="between voices (default 0.5)")
    _mixing(one, "mix.wav")
    one = command("dub", "a subtitle file said aloud, each cue in its time", do="sound_commands:dub")
    one.add_argument("subtitles", help="a .srt or .vtt file")
    one.add_argument("--model", metavar="NAME", help="hibari or kokoro-82m (default: by the language)")
    one.add_argument("--voice", metavar="NAME", help="a voice, or a blend: af_heart:0.7+af_bella:0.3")
    one.add_argument("--speed", type=float, metavar="N", help="2 is twice as fast")
    one.add_argument("--fastest", type=float, default=1.5, metavar="N", help="how fast to fit a cue (default 1.5)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same sound")
    _mixing(one, "dub.wav")
    one = command(
        "podcast", "a script for several voices said aloud, with chapters and transcript", do="sound_commands:podcast"
    )
    one.add_argument("script", help="Markdown with lines like `Anna: Hello.`, or YAML")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same sound")
    _mixing(one, "podcast.mp3")


def _mixing(one: argparse.ArgumentParser, out: str) -> None:
    """What every command that mixes takes."""
    one.add_argument("--bed", metavar="FILE", help="music under the voice")
    one.add_argument("--duck", type=float, metavar="DB", help="how far it goes down under words (default 12)")
    one.add_argument("--loudness", type=float, metavar="LUFS", help="of the whole (default -16)")
    one.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE",
        help="bed=-6, attack=0.15, release=0.8, lead=1.5, tail=3, fade_in=0.5, fade_out=2, length=voice|bed, peak=-1",
    )  # fmt: skip
    one.add_argument(
        "-o", "--out", default=out, metavar="FILE", help=f".wav, .flac, .mp3, .ogg or .opus (default {out})"
    )


def _inspection_commands(command: Command, verbs: Any) -> None:
    recipe = verbs.add_parser("recipe", help="check, describe or explain recipes", description="Recipes.")
    parts = recipe.add_subparsers(required=True, metavar="COMMAND")
    one = command("check", "all problems of a recipe at once", into=parts, do="recipe_check")
    one.add_argument("recipe", nargs="+")
    one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    command("schema", "the JSON schema of recipes, for editors and forms", into=parts, do="recipe_schema")
    one = command("explain", "what a key means, e.g. train.epochs or method.lora.rank", into=parts, do="recipe_explain")
    one.add_argument("key")
    models = verbs.add_parser("models", help="known models and datasets, by card", description="Cards and the store.")
    parts = models.add_subparsers(required=True, metavar="COMMAND")
    command("list", "every card, and what is already here", into=parts, do="models_list")
    one = command("pull", "fetch a card's files and check their sha256", into=parts, do="models_pull")
    one.add_argument("name")
    one.add_argument("--accept", action="store_true", help="accept the licence of a card that asks for it")
    one.add_argument("--from", dest="from_file", metavar="FILE", help="take the file from here instead of fetching it")
    one = command("show", "what is known about a model or dataset", into=parts, do="models_show")
    one.add_argument("name")
    one = command("rm", "remove a card's files from the store", into=parts, do="models_rm")
    one.add_argument("name")
    one = command("plugins", "what is on the shelves")
    one.add_argument("shelf", nargs="?", help="one shelf, e.g. metrics")
    one.add_argument("name", nargs="?", help="one plugin: its options")
    one = command("ledger", "check the chain of the ledger of answers")
    one.add_argument("file", nargs="?", help="a ledger (default: yours)")
    command("doctor", "what this machine has, and what is missing for what")


if __name__ == "__main__":
    sys.exit(main())
