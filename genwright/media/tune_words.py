"""Tune words: what words (a prompt, a title, the headers of an ABC file) say of a tune, and the same as a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from genwright.core.errors import DataError

from .abc import Tune, read_key, read_metre
from .score import BARS, METRES, key_of, tonic_of

_RHYTHMS = (
    ("slip jig", r"slip ?jigs?|hop jigs?"), ("jig", r"jigs?|giggs?|吉格"), ("reel", r"reels?|里尔"),
    ("hornpipe", r"horn ?pipes?|号笛"), ("strathspey", r"strathspeys?|斯特拉斯佩"), ("quickstep", r"quick ?-?steps?"),
    ("march", r"march(?:es)?|进行曲"), ("waltz", r"waltz(?:es)?|圆舞曲|华尔兹"), ("polka", r"polkas?|波尔卡"),
    ("slide", r"slides?"), ("minuet", r"minuets?|小步舞"), ("fling", r"flings?"), ("clog", r"clogs?"),
    ("gavotte", r"gavottes?"), ("country dance", r"country dances?|cotill?i?ons?"), ("song", r"songs?|民歌|歌"),
    ("air", r"airs?|lament|slow tune|慢曲"),
)  # fmt: skip
_REGIONS = (
    ("Ireland", r"irish|ireland|爱尔兰"), ("Scotland", r"scottish|scotland|scotch|scots|highland|苏格兰"),
    ("England", r"english|england|英格兰"), ("Wales", r"welsh|wales|威尔士"),
    ("United States", r"american?|united states|usa|美国"), ("Germany", r"german|germany|deutschl|deutschland|德国"),
    ("France", r"french|france|frankreich|法国"), ("Luxembourg", r"luxembourg|luxemburg"),
    ("China", r"chinese|china|中国"),
    ("Sweden", r"swedish|sweden"), ("Italy", r"italian|italy"), ("Poland", r"polish|poland"),
    ("Hungary", r"hungarian|hungary"), ("Netherlands", r"dutch|netherlands"), ("Austria", r"austrian|austria"),
    ("Switzerland", r"swiss|switzerland"),
)  # fmt: skip
# In which metre a dance goes of which few were learned, or which has no other.
USUAL_METRES = {"jig": "6/8", "slip jig": "9/8", "slide": "12/8", "waltz": "3/4", "minuet": "3/4", "polka": "2/4"}
_MODES = {"大调": "major", "小调": "minor"}
_MODE = "major|minor|maj|min|dorian|mixolydian|phrygian|lydian|locrian"
_SIGN = "sharp|flat|#|b|♯|♭"
_KEY = re.compile(
    rf"(?<![A-Za-z])([A-Gb-g])(?:[ -]?((?i:{_SIGN})))?(?:[ -]?((?i:{_MODE})|m))(?![A-Za-z])"
    rf"|\bin ([A-G])(?:[ -]?((?i:sharp|flat))(?![a-z])|([#b♯♭]))?(?![\w'#♯♭])(?![ -]?(?i:{_MODE}))"
    r"|([降升]?)([A-G])(大调|小调)"
)  # an "a minor key" is none of A minor, so a small a is not read
_METRE = re.compile(r"(?<![\d/])(\d{1,2}/\d{1,2})(?![\d/])")
_BARS = re.compile(r"\b(\d{1,2})[ -](?:bars?|measures?)\b|(\d{1,2}) ?小节", re.I)
_LONGEST = 2_000  # characters that are looked at


def facts_in(text: str) -> dict[str, Any]:
    """What a sentence says of a tune: any of rhythm, metre, mode, tonic, region, bars.

    >>> facts_in("a slip jig in E dorian, Irish, 16 bars")
    {'rhythm': 'slip jig', 'region': 'Ireland', 'mode': 'dorian', 'tonic': 4, 'bars': 16}
    """
    text = text[:_LONGEST]
    found: dict[str, Any] = {}
    for kind, known in (("rhythm", _RHYTHMS), ("region", _REGIONS)):
        for value, pattern in known:
            if re.search(rf"(?<![a-z])(?:{pattern})(?![a-z])", text, re.I):
                found[kind] = value
                break
    if metre := next((one for one in _METRE.findall(text) if one in METRES), None):
        found["metre"] = metre
    if key := _KEY.search(text):
        found |= _key_facts(key)
    if bars := _BARS.search(text):
        found["bars"] = min(BARS, key=lambda one: abs(one - int(bars[1] or bars[2])))
    return found


def _key_facts(found: re.Match[str]) -> dict[str, Any]:
    letter, sign, mode, plain, words, mark, chinese_sign, chinese, chinese_mode = found.groups()
    letter, sign = letter or plain or chinese, (sign or words or mark or chinese_sign or "").lower()
    sign = {"sharp": "#", "flat": "b", "♯": "#", "♭": "b", "升": "#", "降": "b"}.get(sign, sign)
    named = _MODES.get(chinese_mode or "") or (mode or "major").lower()
    try:
        key = read_key(f"{letter.upper()}{sign} {named if named != 'm' else 'minor'}")
    except DataError:  # D# major: more than seven sharps
        return {}
    return {"mode": key.mode, "tonic": tonic_of(key)}


def facts_of(tune: Tune) -> dict[str, str]:
    """Rhythm and region as the headers R: and O: (or the title, for the rhythm) say them; the unknown is missing."""
    found: dict[str, str] = {}
    for letter, kind in (("R", "rhythm"), ("O", "region"), ("T", "rhythm")):
        for text in tune.facts.get(letter, ()):
            value = facts_in(text.replace("--", " ")).get(kind)
            if value and kind not in found:
                found[kind] = value
    return found


def sentence_of(told: Mapping[str, Any]) -> str:
    """What words can ask for.

    >>> sentence_of({"rhythm": "jig", "tonic": 2, "mode": "major", "metre": "6/8", "region": "Ireland", "bars": 16})
    'a jig in D major, 6/8, 16 bars, from Ireland'
    """
    words = f"a {told.get('rhythm') or 'tune'}".replace("a air", "an air")
    if "tonic" in told and "mode" in told:
        words += f" in {key_of(told['tonic'], told['mode'])}"
    more = [told.get("metre"), f"{told['bars']} bars" if told.get("bars") else "",
            f"from {_the(told['region'])}" if told.get("region") else ""]  # fmt: skip
    return ", ".join([words, *(one for one in more if one)])


def _the(region: str) -> str:
    return f"the {region}" if region in ("United States", "Netherlands") else region


def one_line(text: str) -> str:
    """A text without line breaks and signs that cannot be seen: what may stand in a header, a title, under a note."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def key_facts(text: str) -> dict[str, Any]:
    """`D`, `Em`, `E dorian` as mode and tonic. Raises DataError for another."""
    key = read_key(text)
    return {"mode": key.mode, "tonic": tonic_of(key)}


def metre_fact(text: str) -> str:
    """Raises DataError for a metre that there is no word for."""
    metre = read_metre(text)
    if metre not in METRES:
        raise DataError(f"There is no word for the metre {metre}.", f"Known are {', '.join(METRES)}.")
    return metre
