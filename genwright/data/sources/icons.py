"""Sets of icons or emoji (Iconify's JSON), drawn when read or kept as lines, with captions in several languages.

An icon's emoji is found by the set's own list of characters, else by its name; emojibase's files give the captions and
emojilib's the keywords. Icons of sets without emoji are captioned by their names. Drawings are kept in the store, under
the hash of what was drawn. For models of drawings (`lines`) rows hold the SVG itself, of icons that are only lines.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field

from genwright.core import Bad, DataError, FilePath, Row
from genwright.core import Settings as Base
from genwright.core.home import store
from genwright.data.files import File, find_files, must_exist
from genwright.media.drawing import read_drawing
from genwright.media.picture import rasterise, save_picture, svg_root

_LARGEST = 400_000_000  # bytes of one JSON file; fluent-emoji's has 104 MB
_DRAWING = 1  # of what is kept in the store; a change draws all anew
_GROUPS = ("smileys", "people", "component", "animals", "food", "travel", "activities", "objects", "symbols", "flags")
_GROUP_NAMES = Literal[
    "smileys", "people", "component", "animals", "food", "travel", "activities", "objects", "symbols", "flags"
]


class Settings(Base):
    path: FilePath = Field(
        description="A folder with packages of Iconify (.tgz, or icons.json, info.json and chars.json of one) and, for "
        "emoji, emojibase.en.json, emojibase.zh.json … (compact form) and emojilib.en.json"
    )
    size: int = Field(128, ge=8, le=2048, description="Pixels of a side")
    style: str = Field("", description="What the style is called; empty is the set's own prefix")
    without: tuple[_GROUP_NAMES, ...] = Field(
        ("flags", "component"), description=f"Groups of emoji left out: {', '.join(_GROUPS)}"
    )
    skin_tones: bool = Field(False, description="Take people and hands in every skin tone, not only the neutral one")
    colour: str = Field("#000000", description="What `currentColor` is, for icons of one colour")
    lines: bool = Field(
        False, description="Rows hold the drawing (SVG), of icons that are lines alone; filled ones are passed over"
    )
    ends: tuple[str, ...] = Field(
        (), description="With `lines`: ends of names that only say how an icon is drawn (-outline); numbers go anyway"
    )


@dataclass(frozen=True)
class _Emoji:
    code: str  # hexadecimal code points without variation selectors
    group: int | None
    captions: dict[str, list[str]]
    tags: list[str]


@dataclass
class _Emojis:
    """All emoji by code and by plain name."""

    by_code: dict[str, _Emoji] = field(default_factory=dict)
    by_name: dict[str, _Emoji] = field(default_factory=dict)


def read(settings: Settings) -> Iterator[Row | Bad]:
    """Rows of `image` (a file in the store), `captions`, `style`, `concept`, `tags`, `licence` and `attribution`; the
    same emoji of several sets share a group. Raises DataError when there is no set, MissingExtra without resvg-py."""
    emojis = _emojis(settings)
    for place in _packages(settings.path):
        icons, info, chars = _package(place)
        facts = {"style": settings.style or str(icons.get("prefix") or "icons"), **_rights(info)}
        named = {} if settings.lines else _named(icons, chars, emojis)
        for name, icon in icons["icons"].items():
            where, emoji = f"{facts['style']}:{name}", named.get(name)
            if not isinstance(icon, dict):
                yield Bad(where, "is no icon: it has no `body`")
                continue
            if icon.get("hidden") or (not settings.lines and emojis.by_code and not _is_wanted(emoji, settings)):
                continue
            try:
                image = _image(name, _svg(icon, icons, settings.colour), settings)
            except DataError as error:
                yield Bad(where, error.message)
                continue
            if image is not None:
                said = _said(_short(name, settings.ends) if settings.lines else name, emoji)
                if settings.lines:
                    del said["group"]  # many hands draw one thing; near_files binds what looks the same
                yield Row(where, {"image": image, "meta": facts | said})


def _image(name: str, svg: str, settings: Settings) -> Path | dict[str, Any] | None:
    """An icon drawn, or the drawing itself; None for one that is passed over. Raises DataError for what is no SVG."""
    if not settings.lines:
        return _drawn(svg, settings.size)
    svg_root(svg)
    return {"bytes": svg.encode(), "path": f"{name}.svg"} if _is_of_lines(svg) else None


def _is_of_lines(svg: str) -> bool:
    if "stroke" not in svg:  # most icons that are filled are passed over without being read
        return False
    try:
        return bool(read_drawing(svg))
    except DataError:
        return False


def _short(name: str, ends: tuple[str, ...]) -> str:
    """A name without what only tells drawings of a thing apart.

    >>> _short("home-02-outline", ("-outline",))
    'home'
    """
    while True:
        rest = re.sub(r"-?\d{1,3}$", "", name)
        for end in ends:
            rest = rest.removesuffix(end)
        if rest in ("", name):
            return name
        name = rest


def _said(name: str, emoji: _Emoji | None) -> dict[str, Any]:
    """What is told of an icon: an emoji's labels and tags, or the words of its name."""
    if emoji is None:
        words = re.sub(r"[-_]+", " ", name)
        return {"concept": words, "group": f"icon {words}", "captions": {"en": [words]}}
    concept = next(iter(emoji.captions.values()))[0]
    return {"concept": concept, "group": f"emoji {emoji.code}", "captions": emoji.captions, "tags": emoji.tags}


def _rights(info: dict[str, Any]) -> dict[str, str]:
    licence, author = info.get("license") or {}, info.get("author") or {}
    given = [f"{info.get('name', 'icons')} by {author.get('name', 'unknown')}", author.get("url"), licence.get("url")]
    return {"licence": licence.get("spdx") or licence.get("title") or "", "attribution": ", ".join(filter(None, given))}


# -- emoji -------------------------------------------------------------------------------------------------------------


def _emojis(settings: Settings) -> _Emojis:
    """Emoji of all languages that lie beside the set; English captions come first, and give the names."""
    found, folder = _Emojis(), settings.path if settings.path.is_dir() else settings.path.parent
    files = sorted(folder.glob("emojibase.*.json"), key=lambda path: (".en." not in path.name, path.name))
    keywords = _keywords(folder)
    for path in files:
        language = path.name.split(".")[1]
        for row in _json(path):
            for one in (row, *(row.get("skins") or ())) if settings.skin_tones else (row,):
                _learn(found, one, row, language, keywords)
    return found


def _learn(found: _Emojis, one: dict[str, Any], row: dict[str, Any], language: str, keywords: dict[str, Any]) -> None:
    code, label, tags = _code(one["hexcode"]), one["label"].replace(":", ","), list(row.get("tags") or ())
    words = [label, *([f"{label}, {', '.join(tags)}"] if tags else [])]
    if code in found.by_code:
        found.by_code[code].captions.setdefault(language, []).extend(words)
        return
    others = [word.replace("_", " ") for word in keywords.get(code, ()) if re.match(r"\w", word)]  # not ":D"
    if language == "en" and others:
        words.append(", ".join(dict.fromkeys(others)))
    tags = list(dict.fromkeys((*tags, *others[1:])))
    emoji = _Emoji(code, row.get("group"), {language: words}, tags)
    found.by_code[code] = emoji
    for name in (label, *others[:1]):
        found.by_name.setdefault(_plain(name), emoji)


def _keywords(folder: Path) -> dict[str, Any]:
    path = folder / "emojilib.en.json"
    plain = _json(path) if path.is_file() else {}
    return {_code("-".join(f"{ord(char):X}" for char in emoji)): words for emoji, words in plain.items()}


def _named(icons: dict[str, Any], chars: dict[str, str], emojis: _Emojis) -> dict[str, _Emoji]:
    """The emoji of each icon: by the set's list of characters, then by name."""
    aliases = {
        name: alias["parent"] for name, alias in (icons.get("aliases") or {}).items() if set(alias) == {"parent"}
    }
    found: dict[str, _Emoji] = {}
    for code, name in chars.items():
        if emoji := emojis.by_code.get(_code(code)):
            found.setdefault(aliases.get(name, name), emoji)
    taken = {emoji.code for emoji in found.values()}
    for name in (*icons.get("icons", {}), *aliases):
        emoji = emojis.by_name.get(_plain(name))
        if emoji and emoji.code not in taken and aliases.get(name, name) not in found:
            found[aliases.get(name, name)] = emoji
            taken.add(emoji.code)
    return found


def _is_wanted(emoji: _Emoji | None, settings: Settings) -> bool:
    if emoji is None:
        return False
    group = "component" if emoji.group is None else _GROUPS[emoji.group]
    return group not in settings.without


def _code(hexcode: str) -> str:
    """Code points without variation selectors, which sets write or leave out as they like."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


# -- the set -----------------------------------------------------------------------------------------------------------


def _packages(path: Path) -> list[Path]:
    """The packages in a folder, or what else holds one set. Raises DataError when there is none."""
    place = must_exist(path)
    if not place.is_dir() or (place / "icons.json").is_file():
        return [place]
    if not (packages := sorted(place.glob("*.tgz"))):
        raise DataError(f"{place} holds no package of icons.", "Name a folder with one, or the package itself.")
    return packages


def _package(place: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """icons.json, info.json and chars.json of one package."""
    names = ("icons.json", "info.json", "chars.json")
    found = {file.name.rsplit("/", 1)[-1]: _json(file) for file in find_files(place, names) if isinstance(file, File)}
    if not isinstance(found.get("icons.json"), dict) or not isinstance(found["icons.json"].get("icons"), dict):
        raise DataError(f"{place} holds no icons: its icons.json is not Iconify's.", "Look at what the package is.")
    return found["icons.json"], found.get("info.json") or {}, found.get("chars.json") or {}


def _json(file: File | Path) -> Any:
    opened = file.open("rb") if isinstance(file, Path) else file.open()
    with opened as stream:
        raw = stream.read(_LARGEST + 1)
    try:
        if len(raw) <= _LARGEST:
            return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DataError(f"{file.name} is not JSON: {error}", "Fetch it again.") from None
    raise DataError(f"{file.name} is larger than {_LARGEST // 10**6} MB.", "Is it the right file?")


def _svg(icon: dict[str, Any], icons: dict[str, Any], colour: str) -> str:
    """The icon as a whole SVG; sizes that it does not give are the set's."""
    left, top, width, height = (icon.get(k, icons.get(k, d)) for k, d in _FRAME)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" color="{colour}" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon.get("body", "")}</svg>'
    )


_FRAME = (("left", 0), ("top", 0), ("width", 16), ("height", 16))


def _drawn(svg: str, size: int) -> Path:
    """The drawing in the store; drawn once on a machine."""
    key = hashlib.sha256(f"{_DRAWING} {size} {svg}".encode()).hexdigest()
    path = store() / "drawn" / key[:2] / f"{key}.png"
    return path if path.is_file() else save_picture(rasterise(svg, size), path)
