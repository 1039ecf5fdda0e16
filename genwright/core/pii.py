"""Personal data: where a text holds e-mail addresses, phone, identity, bank and plate numbers. Standard library only.

Numbers with a check digit are believed only when it is right, so that order numbers stay: resident identity numbers
(GB 11643-1999), unified social credit codes (GB 32100-2015), bank cards (ISO/IEC 7812, Luhn) and IBAN (ISO 13616).
Full-width characters are read as their plain twins, zero-width ones are passed over, and digits may be spaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from ipaddress import ip_address

from .things import Finding

_WIDE = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)} | {
    0x3000: 0x20, 0xA0: 0x20, 0x2010: 0x2D, 0x2011: 0x2D, 0x2012: 0x2D, 0x2013: 0x2D, 0x2014: 0x2D, 0x2212: 0x2D
}  # fmt: skip
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_SPACES = re.compile(r"[ .()·-]")


def find_pii(text: str, kinds: Iterable[str] | None = None) -> list[Finding]:
    """Spans of personal data in order, not overlapping; `rule` is the kind. `kinds=None` looks for all of `KINDS`.

    >>> [(f.rule, "write to a@b.com"[f.start:f.end]) for f in find_pii("write to a@b.com")]
    [('email', 'a@b.com')]

    Raises ValueError when a kind is not known.
    """
    wanted = list(KINDS) if kinds is None else list(kinds)
    if unknown := [k for k in wanted if k not in KINDS]:
        raise ValueError(f"no personal data of the kind {unknown[0]!r}; there are: {', '.join(KINDS)}")
    plain, places = _plain(text)
    found: list[Finding] = []
    taken = bytearray()
    for kind in KINDS:  # in order of certainty: a span belongs to the first kind that claims it
        for start, end in _spans(plain, KINDS[kind]) if kind in wanted else ():
            taken = taken or bytearray(len(plain))
            if 1 not in taken[start:end]:
                taken[start:end] = b"\1" * (end - start)
                found.append(Finding(kind, start, end))
    found.sort(key=lambda f: f.start)
    return found if places is None else [Finding(f.rule, places[f.start], places[f.end - 1] + 1) for f in found]


def _plain(text: str) -> tuple[str, list[int] | None]:
    """The text with plain characters only, and the place of each in the original (None: the same places)."""
    if text.isascii():
        return text, None
    plain = text.translate(_WIDE)
    if not _INVISIBLE.search(plain):
        return plain, None
    places = [i for i, c in enumerate(plain) if not _INVISIBLE.match(c)]
    return "".join(plain[i] for i in places), places


def _spans(text: str, kind: _Kind) -> Iterator[tuple[int, int]]:
    """What `kind` claims. A candidate that fails its check is passed by one character, so nothing inside is lost."""
    if kind.hint not in text if kind.hint else not _DIGIT.search(text):
        return
    at = 0
    while match := kind.pattern.search(text, at):
        group = "only" if kind.within and match["only"] else 0
        start = match.start(group)
        kept = kind.check(match[group])
        if kept:
            yield start, start + kept
        at = start + kept if kept else match.start() + 1


# -- the checks: how many characters of a candidate are personal data (0: none) --------------------------------------


def _whole(candidate: str) -> int:
    return len(candidate)


def _id_card(candidate: str) -> int:
    """GB 11643-1999: 18 places with an ISO 7064 mod 11-2 check; the 15 places of before 1999 have none."""
    number = _SPACES.sub("", candidate).upper()
    if number[:2] not in _PROVINCES:
        return 0
    born = number[6:14] if len(number) == 18 else "19" + number[6:12]
    try:
        date(int(born[:4]), int(born[4:6]), int(born[6:]))
    except ValueError:
        return 0
    if len(number) == 18:
        total = sum(int(digit) * weight for digit, weight in zip(number[:17], _ID_WEIGHTS, strict=True))
        if number[17] != "10X98765432"[total % 11]:
            return 0
    return len(candidate)


def _credit_code(candidate: str) -> int:
    """GB 32100-2015: 18 places, weights 3^i mod 31; places 3 and 4 are a province."""
    code = _SPACES.sub("", candidate)
    if code[2:4] not in _PROVINCES:
        return 0
    values = [_CREDIT_ALPHABET.index(c) for c in code]
    total = sum(value * pow(3, i, 31) for i, value in enumerate(values[:17]))
    return len(candidate) if values[17] == (31 - total % 31) % 31 else 0


def _bank_card(candidate: str) -> int:
    """A known issuer's prefix and length and a right Luhn digit; a last group too many (a CVV) is let go."""
    while candidate:
        digits = _SPACES.sub("", candidate)
        if _issued(digits) and _luhn(digits):
            return len(candidate)
        shorter = re.split(r"[ -](?=\d+$)", candidate, maxsplit=1)[0]
        candidate = shorter if len(shorter) < len(candidate) else ""
    return 0


def _issued(digits: str) -> bool:
    return len(digits) in _card_sizes(digits[:6])


@lru_cache(4096)
def _card_sizes(head: str) -> tuple[int, ...]:
    return next((sizes for low, high, sizes in _ISSUERS if low <= int(head) <= high), ())


def _luhn(digits: str) -> bool:
    total = sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return total % 10 == 0 and len(set(digits)) > 1


def _iban(candidate: str) -> int:
    """ISO 13616: the country's length, and the rearranged number mod 97 is 1."""
    size, kept, seen = _IBAN_SIZES.get(candidate[:2], 0), 0, 0
    for kept, character in enumerate(candidate, 1):  # noqa: B007
        seen += character != " "
        if seen == size:
            break
    number = candidate[:kept].replace(" ", "")
    if not size or len(number) != size:
        return 0
    return kept if int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1 else 0


def _ip(candidate: str) -> int:
    try:
        address = ip_address(candidate)
    except ValueError:
        return 0
    if address.version == 6 and sum(bool(g) for g in candidate.split(":")) < 3:
        return 0  # `a::b` is more often code than an address
    return 0 if address.is_loopback or address.is_unspecified else len(candidate)


def _plate(candidate: str) -> int:
    return len(candidate) if sum(c.isdigit() for c in candidate) >= 2 else 0


# -- the kinds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """A pattern without nested or overlapping repeats (its time is linear), and a check of what it finds."""

    pattern: re.Pattern[str]
    check: Callable[[str], int] = _whole
    hint: str = ""  # a text without it has none of the kind; empty: a text without digits has none
    within: bool = False  # only the group named `only` is personal data, where there is one


_DIGIT = re.compile("[0-9]")
_FREE = r"(?<![0-9A-Za-z])"  # what may not stand before and after a number; \b would see no edge beside a Chinese word
_DONE = r"(?![0-9A-Za-z])"
_NO_FRACTION = r"(?<![0-9][.,])"
_PROVINCES = frozenset(
    str(code)
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 82), (91, 91))
    for code in range(first, last + 1)
)
_DOUBLED = str.maketrans("0123456789", "0246813579")
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CREDIT_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_ISSUERS = (
    (400000, 499999, (13, 16, 19)), (510000, 559999, (16,)), (222100, 272099, (16,)), (340000, 349999, (15,)),
    (370000, 379999, (15,)), (352800, 358999, (16, 17, 18, 19)), (601100, 601199, (16, 19)), (644000, 659999, (16, 19)),
    (620000, 629999, (16, 17, 18, 19)), (810000, 817199, (16, 19)), (300000, 305999, (14, 16)), (360000, 369999, (14,)),
    (380000, 399999, (14, 16)), (500000, 509999, (16, 19)), (560000, 589999, (16, 19)), (602900, 603799, (16, 17, 19)),
    (690000, 699999, (16, 19)), (900000, 909999, (16, 17, 19)), (940000, 999999, (16, 17, 18, 19)),
)  # fmt: skip
_IBAN_LENGTHS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24
    FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32
    LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22
    SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
"""
_IBAN_SIZES = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}
_EMAIL = r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,8}\.[A-Za-z]{2,24}"
_MOBILE = r"(?:\+?86[ -]?|\(\+?86\) ?)?(?:1[3-9][0-9]([ .-]?)[0-9]{4}\1[0-9]{4}|1 [3-9](?: [0-9]){9}(?! [0-9]))"
_LANDLINE = r"(?:\(0[1-9][0-9]{1,2}\) ?|0[1-9][0-9]{1,2}[ -])[0-9]{3,4}[ -]?[0-9]{4}"
_AMERICAN = r"(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}"
_WORLD = r"\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}"
_CARD = (
    r"(?:[0-9]{13,19}|[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?"
    r"|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}|[0-9]{6}[ -][0-9]{10,13}|[0-9](?: [0-9]){12,18}(?! [0-9]))"
)
_PASSPORT = (
    r"(?:passport|PASSPORT|Passport|护照|護照|通行证)[^0-9A-Z]{0,20}(?P<only>[A-Z]{0,2}[0-9]{6,10})(?![0-9A-Za-z])"
    r"|(?<![0-9A-Za-z])(?:[EGDSP][0-9]{8}|[EDSP][A-HJ-NP-Z][0-9]{7}|[HM][0-9]{8}(?:[0-9]{2})?)(?![0-9A-Za-z])"
)
_PLATE = (
    r"[京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼][A-HJ-NP-Z][·•. -]?"
    r"(?:[DFABCEGHJK][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[DFABCEGHJK]|[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳])(?![0-9A-Za-z])"
)
_ADDRESS = (
    r"(?<![0-9A-Za-z.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?[0-9A-Za-z])"
    r"|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:]))"
)
_CODE = "[0-9A-HJ-NPQRTUWXY]"

KINDS: dict[str, _Kind] = {
    "email": _Kind(re.compile(_EMAIL), hint="@"),
    "id_card": _Kind(
        re.compile(
            rf"{_FREE}{_NO_FRACTION}[1-9](?:[ -]?[0-9]){{5}}(?:[ -]?(?:1[ -]?[89]|2[ -]?0)(?:[ -]?[0-9]){{2}}[ -]?[01]"
            rf"[ -]?[0-9][ -]?[0-3](?:[ -]?[0-9]){{4}}[ -]?[0-9Xx]|[ -]?[0-9]{{2}}[01][0-9][0-3][0-9][ -]?[0-9]{{3}})"
            rf"{_DONE}"
        ),
        _id_card,
    ),
    "credit_code": _Kind(
        re.compile(
            rf"{_FREE}(?:[15][1239]|9[123]|[234678ANY][19])[ -]?[1-9][0-9]{{5}}[ -]?{_CODE}{{9}}[ -]?{_CODE}{_DONE}"
        ),
        _credit_code,
    ),
    "iban": _Kind(re.compile(rf"{_FREE}[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]){{11,30}}"), _iban),
    "bank_card": _Kind(re.compile(rf"{_FREE}{_NO_FRACTION}{_CARD}{_DONE}"), _bank_card),
    "phone": _Kind(re.compile(rf"{_FREE}(?<!\+){_NO_FRACTION}(?:{_MOBILE}|{_LANDLINE}|{_AMERICAN}|{_WORLD}){_DONE}")),
    "ssn": _Kind(re.compile(rf"{_FREE}(?<!-)(?!000|666|9)[0-9]{{3}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}}{_DONE}(?!-)")),
    "passport": _Kind(re.compile(_PASSPORT), within=True),
    "plate": _Kind(re.compile(_PLATE), _plate),
    "ip": _Kind(re.compile(_ADDRESS), _ip),
}
