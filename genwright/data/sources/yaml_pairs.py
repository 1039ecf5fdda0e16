"""Questions and answers as lists in YAML files, the form of chatterbot-corpus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import yaml
from pydantic import Field

from genwright.core import Bad, FilePath, Row
from genwright.core import Settings as Base
from genwright.data.files import File, find_files, read_text, shown


class Settings(Base):
    path: FilePath = Field(description="A file, a folder, a glob or an archive (.zip, .whl, .tgz)")
    include: tuple[str, ...] = Field(("*.yml", "*.yaml"), description="Files taken of a folder or archive, as globs")
    key: str = Field("conversations", description="Key that holds the list of conversations")
    more: Literal["answers", "turns"] = Field(
        "answers", description="What follows the first answer: other answers to the same question, or further turns"
    )


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Words stay as written: `Yes` is no boolean here. A malformed file costs only its own rows."""
    for file in find_files(settings.path, settings.include):
        text = file if isinstance(file, Bad) else read_text(file, limit=8_000_000)
        if isinstance(text, Bad):
            yield text
        else:
            assert isinstance(file, File)
            yield from _conversations(file.name, text, settings)


def _conversations(name: str, text: str, settings: Settings) -> Iterator[Row | Bad]:
    try:
        whole = yaml.compose(text, yaml.SafeLoader)  # nodes know their lines, and keep `Yes` a word
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        yield Bad(f"{name}:{mark.line + 1 if mark else 1}", f"is not YAML: {getattr(error, 'problem', error)}")
        return
    pairs = whole.value if isinstance(whole, yaml.MappingNode) else []
    found = next((value for key, value in pairs if key.value == settings.key), None)
    if not isinstance(found, yaml.SequenceNode):
        yield Bad(f"{name}:1", f"has no list under {settings.key!r}", shown(text))
        return
    for node in found.value:
        where = f"{name}:{node.start_mark.line + 1}"
        said = [turn.value for turn in node.value] if isinstance(node, yaml.SequenceNode) else []
        if len(said) < 2 or not all(isinstance(words, str) and words.strip() for words in said):
            yield Bad(where, "is no list of a question and its answers", shown(str(said)))
        elif settings.more == "turns":
            yield Row(where, {"messages": _turns(said)})
        else:
            for answer in said[1:]:
                yield Row(where, {"prompt": said[0].strip(), "completion": answer.strip()})


def _turns(said: list[str]) -> list[dict[str, Any]]:
    """Question and answer in turn; a last question without an answer is left out."""
    even = said[: len(said) // 2 * 2]
    return [{"role": ("user", "assistant")[i % 2], "content": words.strip()} for i, words in enumerate(even)]
