"""Spoken English: numbers, dates, money, units, addresses and signs as the words that somebody would read aloud.

Rules in an order, each from the start of a number or a sign; words without either are never touched. All repetitions
are bounded and digits are taken from their first one on, so that the time grows with the length of a text, no faster.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_GREAT = ("", " thousand", " million", " billion", " trillion")
_ODD = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December"]  # fmt: skip
_SHORT = {month[:3]: month for month in _MONTHS} | {"Sept": "September"}
_MONTH = "|".join([*_MONTHS, *(short for short in _SHORT if short != "May")])
_MONEY = {
    "$": ("dollar", "cent"), "US$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"),
    "¥": ("yen", ""), "￥": ("yen", ""), "₹": ("rupee", "paisa"), "₩": ("won", ""),
}  # fmt: skip
_CODES = {
    "USD": "US dollars", "EUR": "euros", "GBP": "pounds", "JPY": "yen", "CNY": "yuan", "RMB": "yuan",
    "CHF": "Swiss francs", "HKD": "Hong Kong dollars", "AUD": "Australian dollars", "CAD": "Canadian dollars",
    "INR": "rupees",
}  # fmt: skip
_SAME = {"yen", "won"}  # as one and as many
_SCALE = {
    "k": "thousand", "K": "thousand", "M": "million", "m": "million", "B": "billion", "bn": "billion",
    "b": "billion", "T": "trillion",
}  # fmt: skip
_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer",
    "μm": "micrometer", "µm": "micrometer", "mi": "mile", "ft": "foot", "yd": "yard", "kg": "kilogram",
    "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "L": "liter", "l": "liter",
    "ml": "milliliter", "mL": "milliliter", "gal": "gallon", "km/h": "kilometer per hour",
    "kph": "kilometer per hour", "mph": "mile per hour", "m/s": "meter per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second", "MB/s": "megabyte per second",
    "GB/s": "gigabyte per second", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte",
    "TB": "terabyte", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "W": "watt",
    "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour", "V": "volt", "mV": "millivolt", "A": "amp",
    "mA": "milliamp", "mAh": "milliamp hour", "ms": "millisecond", "s": "second", "sec": "second",
    "secs": "second", "min": "minute", "mins": "minute", "h": "hour", "hr": "hour", "hrs": "hour",
    "dB": "decibel", "px": "pixel", "m²": "square meter", "m2": "square meter", "km²": "square kilometer",
    "km2": "square kilometer", "cm²": "square centimeter", "ft²": "square foot", "sq ft": "square foot",
    "m³": "cubic meter", "m3": "cubic meter", "cm³": "cubic centimeter", "kcal": "kilocalorie",
    "cal": "calorie", "kPa": "kilopascal", "Pa": "pascal", "psi": "P S I", "rpm": "R P M",
    "fps": "frame per second",
}  # fmt: skip
_NO_PLURAL = {"hertz", "kilohertz", "megahertz", "gigahertz", "P S I", "R P M"}
_BEFORE = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor", "Capt": "Captain",
    "Gen": "General", "Sen": "Senator", "Gov": "Governor", "Lt": "Lieutenant", "Sgt": "Sergeant", "Col": "Colonel",
}  # fmt: skip
_SHORTENED = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately",
    "w/o": "without", "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation", "Jr.": "Junior",
    "Sr.": "Senior", "Ave.": "Avenue", "Blvd.": "Boulevard", "Dept.": "Department", "est.": "established",
}  # fmt: skip
_PARTS = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8", "⅜": "3/8",
    "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
_SIGNS = {
    "+": "plus", "=": "equals", "×": "times", "÷": "divided by", "<": "is less than", ">": "is greater than",
    "≤": "is at most", "≥": "is at least", "≈": "is about", "≠": "is not", "±": "plus or minus",
    "*": "times",
}  # fmt: skip
_ADDRESS = {".": "dot", "/": "slash", "@": "at", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals",
            "&": "and", "#": "hash", ":": "colon", "~": "tilde", "%": "percent"}  # fmt: skip

_N = r"(?:\d{1,3}(?:,\d{3}){1,4}(?!\d)|\d{1,15})(?:\.\d{1,15}(?!\d|\.\d))?"
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_AT = r"(?<![\w.,])"  # a number begins here, and belongs to nothing before it
_CARDINAL = re.compile(rf"{_AT}{_N}(?!\w)")


def cardinal(number: int) -> str:
    """A whole number.

    >>> cardinal(1234)
    'one thousand two hundred thirty-four'
    """
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        return f"{_SMALL[number // 100]} hundred" + (f" {cardinal(number % 100)}" if number % 100 else "")
    groups = []
    for name in _GREAT:
        number, rest = divmod(number, 1000)
        if rest:
            groups.append(cardinal(rest) + name)
        if not number:
            break
    return " ".join(reversed(groups))


def ordinal(number: int) -> str:
    """Its place in a row.

    >>> ordinal(42)
    'forty-second'
    """
    head, joint, last = re.fullmatch(r"(?:(.*)([ -]))?(\S+?)", cardinal(number)).groups()  # type: ignore[union-attr]
    made = _ODD.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return f"{head or ''}{joint or ''}{made}"


def year(number: int) -> str:
    """A year.

    >>> [year(one) for one in (1984, 1905, 2000, 2007, 2024)]
    ['nineteen eighty-four', 'nineteen oh five', 'two thousand', 'two thousand seven', 'twenty twenty-four']
    """
    century, rest = divmod(number, 100)
    if not 11 <= century <= 20 or 2000 <= number < 2010:
        return cardinal(number)
    return f"{cardinal(century)} " + ("hundred" if not rest else f"oh {_SMALL[rest]}" if rest < 10 else cardinal(rest))


def digits(text: str) -> str:
    """One by one.

    >>> digits("007")
    'zero zero seven'
    """
    return " ".join(_SMALL[int(one)] for one in text if one.isdigit())


def number(text: str) -> str:
    """A number as it is written, with its sign, commas and point.

    >>> number("-1,234.50")
    'minus one thousand two hundred thirty-four point five zero'
    """
    sign, text = ("minus ", text[1:]) if text[:1] in ("-", "−") else ("", text)
    whole, point, rest = text.replace(",", "").partition(".")
    said = digits(whole) if len(whole) > 15 or (len(whole) > 1 and whole[0] == "0") else cardinal(int(whole or 0))
    return sign + said + (f" point {digits(rest)}" if point and rest else "")


def spoken_english(text: str) -> str:
    """The text with everything that is no word written as words.

    >>> spoken_english("Meet at 3:30 pm on 3/15/2024; $10.")
    'Meet at three thirty p m on March fifteenth, twenty twenty-four; ten dollars.'
    """
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text


# -- what the rules say ------------------------------------------------------------------------------------------------

Match = re.Match[str]


def _address(found: Match) -> str:
    text = re.sub(r"^https?://", "", found[0]).rstrip("/")
    tail = text[len(text.rstrip(".,;:!?")) :] if text else ""
    text = text[: len(text) - len(tail)]
    for sign, word in _ADDRESS.items():
        text = text.replace(sign, f" {word} ")
    text = re.sub(r"\bwww\b", "W W W", text)
    text = re.sub(r"\d+", lambda one: f" {digits(one[0]) if len(one[0]) > 4 else cardinal(int(one[0]))} ", text)
    return " ".join(text.split()) + tail


def _phone(found: Match) -> str:
    groups = re.findall(r"\d+", found[0])
    return ("plus " if found[0].startswith("+") else "") + ", ".join(digits(group) for group in groups)


def _date(year_: str | None, month: int, day: int) -> str:
    return f"{_MONTHS[month - 1]} {ordinal(day)}" + (f", {year(int(year_))}" if year_ else "")


def _iso(found: Match) -> str:
    month, day = int(found[2]), int(found[3])
    return _date(found[1], month, day) if 1 <= month <= 12 and 1 <= day <= 31 else found[0]


def _slashed(found: Match) -> str:
    """3/15/2024 as in the United States; 15/3/2024, which cannot be, as elsewhere."""
    month, day = int(found[1]), int(found[2])
    month, day = (day, month) if month > 12 else (month, day)
    short = f"20{found[3]}" if len(found[3]) == 2 else found[3]
    return _date(short, month, day) if 1 <= month <= 12 and 1 <= day <= 31 else found[0]


def _month_day(found: Match) -> str:
    month, day = _MONTHS.index(_SHORT.get(found[1], found[1])) + 1, int(found[2])
    return _date(found[3], month, day) if 1 <= day <= 31 else found[0]


def _day_month(found: Match) -> str:
    month, day = _SHORT.get(found[2], found[2]), int(found[1])
    return (
        f"{ordinal(day)} of {month}" + (f", {year(int(found[3]))}" if found[3] else "") if 1 <= day <= 31 else found[0]
    )


def _clock(found: Match) -> str:
    hour, minute, second = int(found[1]), int(found[2]), found[3]
    half = f" {found[4].lower()} m" if found[4] else ""
    if hour > 24 or minute > 59:
        return f"{cardinal(hour)} to {cardinal(minute)}" if not found[3] else found[0]
    said = cardinal(hour) + (f" oh {_SMALL[minute]}" if 0 < minute < 10 else f" {cardinal(minute)}" if minute else "")
    if second:
        said = (
            f"{cardinal(hour)} hours {cardinal(minute)} minutes {cardinal(int(second))} seconds" if not half else said
        )
        return said + (f" and {cardinal(int(second))} seconds{half}" if half else "")
    return said + (half or ("" if minute else " o'clock" if hour < 13 else " hundred hours"))


def _money(found: Match) -> str:
    unit, part = _MONEY[found["sign"]]
    amount, scale = found["amount"].replace(",", ""), found["scale"]
    many = unit if unit in _SAME else f"{unit}s"
    if scale:
        return f"{number(amount)} {_SCALE.get(scale, scale)} {many}"
    whole, _, rest = amount.partition(".")
    if len(rest) != 2 or not part:
        return f"{number(amount)} {unit if amount == '1' else many}"
    parts = {"penny": "pence", "paisa": "paise"}.get(part, f"{part}s") if int(rest) != 1 else part
    change = f"{cardinal(int(rest))} {parts}"
    said = f"{number(whole)} {unit if whole == '1' else many}"
    return change if not int(whole) else said if not int(rest) else f"{said} and {change}"


def _unit(found: Match) -> str:
    word = _UNITS[found[2]]
    one = found[1] == "1"
    first, space, rest = word.partition(" per ")
    named = first if one or first in _NO_PLURAL else first.replace("foot", "feet") if "foot" in first else f"{first}s"
    return f"{number(found[1])} {named}{space}{rest}"


def _fraction(found: Match) -> str:
    whole, over, under = found[1], int(found[2]), int(found[3])
    if not (0 < over < under and (under in (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 32, 64, 100))):
        said = (
            f"{cardinal(over)} {cardinal(under)}"
            if (over, under) == (24, 7)
            else f"{cardinal(over)} over {cardinal(under)}"
        )
        return f"{cardinal(int(whole))} and {said}" if whole else said
    name = {2: "half", 4: "quarter"}.get(under, ordinal(under))
    many = name if over == 1 else f"{name}s"
    if whole:
        return f"{cardinal(int(whole))} and " + (
            (f"an {name}" if under == 8 else f"a {name}") if over == 1 else f"{cardinal(over)} {many}"
        )
    return f"{cardinal(over)} {many}"


def _range(found: Match) -> str:
    one, other, tail = found[1], found[2], found[3] or ""
    say = (
        (lambda text: year(int(text)))
        if all(re.fullmatch(r"1[1-9]\d\d|20\d\d", side) for side in (one, other))
        else number
    )
    return f"{say(one)} to {say(other)}{' percent' if tail == '%' else tail}"


def _bare(found: Match) -> str:
    """A number that stands alone: of four digits without a comma, a year."""
    return year(int(found[0])) if re.fullmatch(r"1[1-9]\d\d|20\d\d", found[0]) else number(found[0])


def _decade(found: Match) -> str:
    said = year(int(found[1])) if len(found[1]) == 4 else cardinal(int(found[1]))
    return (f"{said[:-1]}ies" if said.endswith("y") else f"{said}s") if int(found[1]) % 10 == 0 else f"{said}'s"


def _dotted(found: Match) -> str:
    word = " dot " if found[0].count(".") == 3 else " point "
    return word.join(digits(one) if len(one) > 3 else cardinal(int(one)) for one in found[0].split("."))


def _glued(found: Match) -> str:
    """Digits that touch letters: A4, MP3, 5G."""
    text, said = found.string, digits(found[0]) if found[0][0] == "0" and len(found[0]) > 1 else _bare(found)
    before = " " if found.start() and text[found.start() - 1].isalnum() else ""
    return before + said + (" " if text[found.end() : found.end() + 1].isalnum() else "")


_RULES: list[tuple[re.Pattern[str], Callable[[Match], str]]] = [
    (
        re.compile(rf"[{''.join(_PARTS)}]"),
        lambda m: (" " if m.start() and m.string[m.start() - 1].isdigit() else "") + _PARTS[m[0]],
    ),
    (re.compile(r"(?<!\d)\d{16,}"), lambda m: digits(m[0])),
    (re.compile(r"https?://[^\s<>\"“”（）()\u3400-\u9fff，。]{1,2000}"), _address),
    (re.compile(r"(?<![\w.@])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}", re.ASCII), _address),
    (
        re.compile(
            r"(?<![\w.@])(?:www\.)?(?:[a-zA-Z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io|ai|dev|co|cn|uk|de|app)\b(?:/[\w./?=&%#-]{0,500})?",
            re.ASCII,
        ),
        _address,
    ),
    (re.compile(r"(?<![\w+])\+\d{1,3}[ -]?(?:\(\d{1,4}\)|\d{1,4})(?:[ -]?\d{2,4}){1,4}(?!\w)"), _phone),
    (re.compile(r"(?<![\w-])(?:\(\d{3}\) ?|(?:1-)?\d{3}[-.])\d{3}[-.]\d{4}(?![\w-])"), _phone),
    (re.compile(r"(?<![\w-])\d{3}-\d{4}(?![\w-])"), _phone),
    (re.compile(r"(?<![\w-])(\d{4})-(\d{2})-(\d{2})(?![\w-])"), _iso),
    (re.compile(r"(?<![\w/])(\d{1,2})/(\d{1,2})/(\d{4}|\d{2})(?![\w/])"), _slashed),
    (re.compile(rf"\b({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?(?![\w:%])(?:,? (\d{{4}})(?!\w))?"), _month_day),
    (re.compile(rf"{_AT}(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH})\b\.?(?:,? (\d{{4}})(?!\w))?"), _day_month),
    (re.compile(rf"{_AT}(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?(?: ?([AaPp])\.?[Mm]\b\.?)?(?![\d:])"), _clock),
    (re.compile(rf"{_AT}(1?\d)\.([0-5]\d)() ?([AaPp])\.?[Mm]\b\.?"), _clock),
    (re.compile(rf"{_AT}(\d{{1,2}}) ?([AaPp])\.?[Mm]\b\.?"), lambda m: f"{cardinal(int(m[1]))} {m[2].lower()} m"),
    (
        re.compile(
            rf"(?P<sign>US\$|[$€£¥￥₹₩]) ?(?P<amount>{_N})"
            r"(?: ?(?P<scale>thousand|million|billion|trillion|[kKMBT]|bn)\b)?"
        ),
        _money,
    ),
    (re.compile(rf"{_AT}({_N}) ?({'|'.join(_CODES)})\b"), lambda m: f"{number(m[1])} {_CODES[m[2]]}"),
    (re.compile(rf"\b({'|'.join(_CODES)}) ?({_N})"), lambda m: f"{number(m[2])} {_CODES[m[1]]}"),
    (re.compile(rf"{_AT}({_N})¢"), lambda m: f"{number(m[1])} cent{'' if m[1] == '1' else 's'}"),
    (re.compile(rf"{_AT}({_N})%? ?[-–—~] ?({_N})(%| ?(?=°))"), _range),
    (re.compile(rf"(?<![\w.,])([-−]?{_N}) ?(?:%|percent\b)"), lambda m: f"{number(m[1])} percent"),
    (
        re.compile(rf"(?<![\w.,])([-−]?{_N}) ?(?:°|℃|℉)(?: ?([CF])\b)?"),
        lambda m: (
            f"{number(m[1])} degree{'' if m[1] == '1' else 's'}"
            + (" Celsius" if m[2] == "C" or "℃" in m[0] else " Fahrenheit" if m[2] == "F" or "℉" in m[0] else "")
        ),
    ),
    (re.compile(r"(?<![\w.])(\d{4})['’]?s\b"), _decade),
    (re.compile(r"(?:(?<=\b[Tt]he )|(?<!\w)['’])(\d0)['’]?s\b"), _decade),
    (
        re.compile(r"(?<!\w)(\d)['’′] ?(\d{1,2})(?:[\"”″]|'')"),
        lambda m: f"{cardinal(int(m[1]))} foot {cardinal(int(m[2]))}",
    ),
    (
        re.compile(rf"{_AT}({_N})[- ]?({_UNIT})(?![\w²³/])"),
        _unit,
    ),
    (re.compile(rf"{_AT}(\d{{1,15}})(?:st|nd|rd|th)\b"), lambda m: ordinal(int(m[1]))),
    (re.compile(rf"{_AT}(?:(\d{{1,3}}) )?(\d{{1,3}})/(\d{{1,3}})(?![\w/])"), _fraction),
    (
        re.compile(rf"{_AT}({_N}) ?[x×] ?({_N})(?: ?[x×] ?({_N}))?(?!\w)"),
        lambda m: " by ".join(number(one) for one in m.groups() if one),
    ),
    (re.compile(rf"{_AT}({_N})[x×](?!\w)"), lambda m: f"{number(m[1])} times"),
    (re.compile(r"(?<![\w.,])[248]K\b"), lambda m: f"{digits(m[0])} K"),
    (re.compile(rf"{_AT}({_N})(k|K|M|bn|B)\b"), lambda m: f"{number(m[1])} {_SCALE[m[2]]}"),
    (re.compile(r"(?<![\w.])(?:[vV]\.? ?)(?=\d{1,4}\.\d)"), lambda m: "version "),
    (re.compile(r"(?<![\w.,])\d{1,15}(?:\.\d{1,15}){2,7}(?![\w])"), _dotted),
    (re.compile(r"\bpp\. ?(?=\d)"), lambda m: "pages "),
    (re.compile(r"\bp\. ?(?=\d)"), lambda m: "page "),
    (re.compile(rf"{_AT}({_N}) ?[-–—] ?({_N})(?![\w-])()"), _range),
    (re.compile(r"\bNos?\. ?(?=\d)"), lambda m: "number "),
    (re.compile(r"(?<![\w&])#(?=\d)"), lambda m: "number "),
    (re.compile(r"§ ?(?=\d)"), lambda m: "section "),
    (re.compile(r"(?<!\w)[~≈] ?(?=\d)"), lambda m: "about "),
    (re.compile(r"(?<!\w)± ?(?=\d)"), lambda m: "plus or minus "),
    (re.compile(r"(?<=[\d\w)]) ([+=×÷<>≤≥≈≠±*]) (?=[\w(−-])"), lambda m: f" {_SIGNS[m[1]]} "),
    (re.compile(r"(?<=\d)([+=×÷<>≤≥≠*])(?=\d)"), lambda m: f" {_SIGNS[m[1]]} "),
    (re.compile(rf"(?<![\w.,)-])[-−](?={_N})"), lambda m: "minus "),
    (re.compile(r"(?<=\d)\+(?!\w)"), lambda m: " plus"),
    (re.compile(rf"(?<=[A-Za-z])-(?={_N}(?!\w))"), lambda m: " "),
    (_CARDINAL, _bare),
    (re.compile(r"(?:(?<=[^\W\d_])|(?<![\d.]))\d{1,15}(?:\.\d{1,15})?"), _glued),
    (re.compile(r"\d{1,15}"), _glued),
    (re.compile(rf"\b({'|'.join(_BEFORE)})\. (?=[A-Z])"), lambda m: f"{_BEFORE[m[1]]} "),
    (
        re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, _SHORTENED))})(?!\w)"),
        lambda m: _SHORTENED[m[1]] + ("." if _ends(m) else ""),
    ),
    (re.compile(r" ?& ?"), lambda m: " and "),
    (re.compile(r"(?<=\S)  +"), lambda m: " "),
    (re.compile(r" (?=[,.;:!?](?!\w))"), lambda m: ""),
]


def _ends(found: Match) -> bool:
    """Whether the point of a shortened word ended a sentence too."""
    return found[0].endswith(".") and not found.string[found.end() :].strip()
