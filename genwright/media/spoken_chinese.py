"""Spoken Chinese: numbers, dates, money, units and signs as the characters that somebody would read aloud.

The same order and bounds as in `spoken_english.py`; characters and words without a digit or a sign are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_DIGITS = "零一二三四五六七八九"
_PLACES, _GREAT = ("", "十", "百", "千"), ("", "万", "亿", "万亿")
_MEASURES = (
    "个只条次位天年周小时分钟秒份张本件辆台杯瓶碗盘家所间层座栋名种类项句篇首部集场届遍回步口斤两公里千米"
    "厘毫克吨升度倍岁元块角点人半对双套封棵朵匹头颗根片盒箱包袋支把顶架艘列扇"
)
_MONEY = {
    "$": "美元", "US$": "美元", "€": "欧元", "£": "英镑", "¥": "元", "￥": "元", "₩": "韩元", "HK$": "港元",
    "₹": "卢比",
}  # fmt: skip
_CODES = {
    "USD": "美元", "EUR": "欧元", "GBP": "英镑", "JPY": "日元", "CNY": "元", "RMB": "元", "HKD": "港元",
}  # fmt: skip
_UNITS = {
    "km/h": "公里每小时", "m/s": "米每秒", "km²": "平方公里", "km2": "平方公里", "m²": "平方米",
    "m2": "平方米", "㎡": "平方米", "cm²": "平方厘米", "m³": "立方米", "m3": "立方米", "cm³": "立方厘米",
    "km": "公里", "cm": "厘米", "mm": "毫米", "nm": "纳米", "μm": "微米", "m": "米", "kg": "公斤",
    "mg": "毫克", "g": "克", "t": "吨", "ml": "毫升", "mL": "毫升", "L": "升", "kWh": "千瓦时", "kW": "千瓦",
    "MW": "兆瓦", "W": "瓦", "kV": "千伏", "V": "伏", "mAh": "毫安时", "mA": "毫安", "GHz": "吉赫兹",
    "MHz": "兆赫兹", "kHz": "千赫兹", "Hz": "赫兹", "dB": "分贝", "ms": "毫秒", "min": "分钟", "h": "小时",
    "s": "秒", "kcal": "千卡", "Pa": "帕", "kPa": "千帕", "mph": "英里每小时", "px": "像素",
}  # fmt: skip
_SIGNS = {
    "+": "加", "=": "等于", "×": "乘以", "÷": "除以", "<": "小于", ">": "大于", "≤": "小于等于",
    "≥": "大于等于", "≈": "约等于", "≠": "不等于", "±": "正负", "*": "乘以",
}  # fmt: skip
_PARTS = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅛": "1/8",
}  # fmt: skip
_WIDE = {ord(wide): narrow for wide, narrow in zip("０１２３４５６７８９％＋＝／．－", "0123456789%+=/.-", strict=True)}
_ADDRESS = {".": "点", "/": "斜杠", "@": "艾特", "-": "杠", "_": "下划线", "?": "问号", "=": "等于", "&": "和",
            "#": "井号", ":": "冒号", "%": "百分号"}  # fmt: skip

_NUMBERED = "电话|拨打|致电|热线|手机|验证码|尾号|卡号|编号|账号|房间号|房号|学号|工号|密码|邮编|QQ"

_N = r"(?:\d{1,3}(?:,\d{3}){1,4}(?!\d)|\d{1,15})(?:\.\d{1,15}(?!\d|\.\d))?"
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_AT = r"(?<![\d.,A-Za-z])"
_TO = r" ?[-–—~～至到] ?"
_BIG = "[百千]?[万亿]{1,2}|[百千](?![克米瓦卡])"
_Match = re.Match[str]


def cardinal(number: int) -> str:
    """A whole number.

    >>> [cardinal(one) for one in (10, 12, 105, 110, 2000, 20_050, 1_000_001, 200_000_000)]
    ['十', '十二', '一百零五', '一百一十', '两千', '两万零五十', '一百万零一', '两亿']
    """
    if not number:
        return "零"
    groups, rest = list[int](), number
    while rest:
        rest, group = divmod(rest, 10_000)
        groups.append(group)
    said = ""
    for place in reversed(range(len(groups))):
        group = groups[place]
        if not group:
            continue
        if said and (group < 1000 or not groups[place + 1]):
            said += "零"
        said += ("两" if group == 2 and place else _group(group)) + _GREAT[place]
    return said[1:] if said.startswith("一十") else said


def _group(number: int) -> str:
    """Up to four digits."""
    said, gap = "", False
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if not digit:
            gap = bool(said)
            continue
        two = digit == 2 and place >= 2 and not said
        said += ("零" if gap else "") + ("两" if two else _DIGITS[digit]) + _PLACES[place]
        gap = False
    return said


def digits(text: str, *, one: str = "一") -> str:
    """One by one.

    >>> digits("2024"), digits("110", one="幺")
    ('二零二四', '幺幺零')
    """
    return "".join(one if digit == "1" else _DIGITS[int(digit)] for digit in text if digit.isdigit())


def number(text: str) -> str:
    """A number as it is written.

    >>> number("-1,234.50")
    '负一千二百三十四点五零'
    """
    sign, text = ("负", text[1:]) if text[:1] in ("-", "−") else ("", text)
    whole, point, rest = text.replace(",", "").partition(".")
    said = digits(whole) if len(whole) > 1 and whole[0] == "0" else cardinal(int(whole or 0))
    return sign + said + (f"点{digits(rest)}" if point and rest else "")


def spoken_chinese(text: str) -> str:
    """The text with everything that is no word written as characters.

    >>> spoken_chinese("会议在2024年3月15日15:30开始，有2个人，花了¥12.5，占25%。")
    '会议在二零二四年三月十五日十五点三十分开始，有两个人，花了十二点五元，占百分之二十五。'
    """
    text = text.translate(_WIDE)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text


# -- what the rules say ------------------------------------------------------------------------------------------------


def _counted(text: str) -> str:
    """A number before what is counted: two is 两."""
    return "两" if text == "2" else number(text)


def _address(found: _Match) -> str:
    text = re.sub(r"^https?://", "", found[0]).rstrip("/")
    for sign, word in _ADDRESS.items():
        text = text.replace(sign, word)
    return re.sub(r"\d+", lambda one: digits(one[0]), text)


def _phone(found: _Match) -> str:
    groups = re.findall(r"\d+", found[0])
    if len(groups) == 1 and len(groups[0]) == 11:
        groups = [groups[0][:3], groups[0][3:7], groups[0][7:]]
    return ("加" if found[0].startswith("+") else "") + "，".join(digits(group, one="幺") for group in groups)


def _date(found: _Match) -> str:
    month, day = int(found[2]), int(found[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return found[0]
    return f"{digits(found[1])}年{cardinal(month)}月{cardinal(day)}日"


def _clock(found: _Match) -> str:
    hour, minute, second = int(found[1]), int(found[2]), found[3]
    if hour > 24 or minute > 59:
        return f"{cardinal(hour)}比{cardinal(minute)}" if not second else found[0]
    said = f"{_counted(str(hour))}点"
    if minute or second:
        said += f"{'零' if minute < 10 else ''}{cardinal(minute) if minute else ''}分"
    return said + (f"{cardinal(int(second))}秒" if second else "")


def _money(found: _Match) -> str:
    return f"{_counted(found['amount'])}{found['scale'] or ''}{_MONEY[found['sign']]}"


def _celsius_of(text: str, amount: str) -> str:
    below = amount.startswith(("-", "−"))
    kind = "华氏度" if "F" in text or "℉" in text else "摄氏度" if "C" in text or "℃" in text else "度"
    return ("零下" if below else "") + number(amount.lstrip("-−")) + kind


def _range(found: _Match) -> str:
    one, other, tail = found[1], found[2], found[3] or ""
    years = tail == "年" and all(re.fullmatch(r"[12]\d{3}", side) for side in (one, other))
    if tail == "%":
        return (
            f"百分之{number(one)}到百分之{number(other)}"
            if "%" in found[0][:-1]
            else f"百分之{number(one)}到{number(other)}"
        )
    if years:
        return f"{digits(one)}到{digits(other)}年"
    return f"{_counted(one)}到{_counted(other)}{tail}"


def _glued(found: _Match) -> str:
    return digits(found[0]) if len(found[0]) > 4 or (len(found[0]) > 1 and found[0][0] == "0") else number(found[0])


def _dotted(found: _Match) -> str:
    """A version, or the four numbers of an address."""
    pieces = found[0].split(".")
    return "点".join(digits(one) if len(one) > 3 or len(pieces) == 4 else cardinal(int(one)) for one in pieces)


def _tail_number(found: _Match) -> str:
    return found[1] + digits(found[2], one="幺" if found[1][:2] in ("电话", "拨打", "致电", "热线", "手机") else "一")


_RULES: list[tuple[re.Pattern[str], Callable[[_Match], str]]] = [
    (re.compile(rf"[{''.join(_PARTS)}]"), lambda m: _PARTS[m[0]]),
    (re.compile(r"https?://[\w./?=&%#:@~+-]{1,2000}", re.ASCII), _address),
    (re.compile(r"(?<![A-Za-z0-9.@])[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"), _address),
    (
        re.compile(
            r"(?<![A-Za-z0-9.@])(?:www\.)?(?:[a-zA-Z0-9-]{1,63}\.){1,4}(?:com|org|net|edu|gov|io|ai|dev|cn|app)(?![A-Za-z0-9])"
            r"(?:/[\w./?=&%#-]{0,500})?",
            re.ASCII,
        ),
        _address,
    ),
    (re.compile(r"(?<!\d)\d{16,}"), lambda m: digits(m[0])),
    (re.compile(r"(?<![\dA-Za-z])\+86[ -]?1[3-9]\d{1}[ -]?\d{4}[ -]?\d{4}(?!\d)"), _phone),
    (re.compile(r"(?<![\d.A-Za-z])1[3-9]\d([ -]?)\d{4}\1\d{4}(?![\d.])"), _phone),
    (re.compile(r"(?<![\d.A-Za-z-])0\d{2,3}-\d{7,8}(?!\d)"), _phone),
    (re.compile(r"(?<![\d.A-Za-z-])[48]00-\d{3,4}-\d{3,4}(?!\d)"), _phone),
    (
        re.compile(rf"((?:{_NUMBERED})(?:号码|号|是|为|：|:| ){{0,2}})(\d{{3,15}})(?![\d.年月])"),
        _tail_number,
    ),
    (re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?![\d.])日?"), _date),
    (re.compile(rf"(?<!\d)([12]\d{{3}}){_TO}([12]\d{{3}})(年)"), _range),
    (re.compile(r"(?<!\d)([12]\d{3})(?=年(?!前|来|历史|间|的历史|后))"), lambda m: digits(m[1])),
    (re.compile(r"(?<!\d)([5-9]\d)(?=年(?:出生|代?生|级|毕业))"), lambda m: digits(m[1])),
    (re.compile(r"(?<![\d:])(\d{1,2})[:：](\d{2})(?:[:：](\d{2}))?(?![\d:])"), _clock),
    (re.compile(r"(?<=[点日])\s?[-–—~～]\s?(?=[零一二两三四五六七八九十])"), lambda m: "到"),
    (re.compile(r"(?<=分)\s?[-–—~～]\s?(?=[零一二两三四五六七八九十])"), lambda m: "到"),
    (re.compile(rf"{_AT}(\d{{1,3}})[:：](\d{{1,3}})(?!\d)"), lambda m: f"{cardinal(int(m[1]))}比{cardinal(int(m[2]))}"),
    (re.compile(rf"(?P<sign>US\$|HK\$|[$€£¥￥₩₹]) ?(?P<amount>{_N})(?P<scale>{_BIG})?"), _money),
    (
        re.compile(rf"{_AT}({_N})({_BIG})? ?({'|'.join(_CODES)})(?![A-Za-z])"),
        lambda m: f"{_counted(m[1])}{m[2] or ''}{_CODES[m[3]]}",
    ),
    (re.compile(rf"{_AT}({_N})%?{_TO}({_N})(%)"), _range),
    (re.compile(rf"(?<![\d.,A-Za-z])([-−]?)({_N}) ?%"), lambda m: f"{'负' if m[1] else ''}百分之{number(m[2])}"),
    (re.compile(rf"{_AT}({_N}) ?‰"), lambda m: f"千分之{number(m[1])}"),
    (re.compile(rf"{_AT}({_N}){_TO}(({_N}) ?(?:℃|℉|°[CF]?))"), lambda m: f"{number(m[1])}到{_celsius_of(m[2], m[3])}"),
    (re.compile(rf"(?<![\d.,A-Za-z])([-−]?{_N}) ?(?:℃|℉|°[CF]?)"), lambda m: _celsius_of(m[0], m[1])),
    (re.compile(rf"{_AT}(\d{{1,4}})/(\d{{1,4}})(?![\d/])"), lambda m: f"{number(m[2])}分之{number(m[1])}"),
    (
        re.compile(rf"{_AT}({_N}){_TO}({_N}) ?({_UNIT})(?![A-Za-z²³])"),
        lambda m: f"{_counted(m[1])}到{_counted(m[2])}{_UNITS[m[3]]}",
    ),
    (
        re.compile(rf"{_AT}({_N}) ?({_UNIT})(?![A-Za-z²³])"),
        lambda m: f"{_counted(m[1])}{_UNITS[m[2]]}",
    ),
    (re.compile(rf"{_AT}({_N}){_TO}({_N})((?:{_BIG})?[{_MEASURES}]?)"), _range),
    (re.compile(r"(?<![\d.])\d{1,15}(?:\.\d{1,15}){2,7}"), _dotted),
    (re.compile(r"第 ?(\d{1,15})"), lambda m: f"第{cardinal(int(m[1]))}"),
    (re.compile(r"\bNo\. ?(\d{1,15})"), lambda m: f"{cardinal(int(m[1]))}号"),
    (re.compile(r"(\d{1,15})\+(?=[\u3400-\u9fff])"), lambda m: f"{number(m[1])}多"),
    (re.compile(rf"(?<![\d.,A-Za-z零-龟)）-])[-−](?={_N})"), lambda m: "负"),
    (re.compile(rf"(?<=[\u3400-\u9fff])[-−](?={_N}(?![\d-]))"), lambda m: "负"),
    (re.compile(r"(?<=[A-Za-z])-(?=\d)"), lambda m: " "),
    (re.compile(rf"(?<![\d.,A-Za-z])2(?= ?(?:{_BIG}|[{_MEASURES}]))"), lambda m: "两"),
    (re.compile(r" ?([+=×÷<>≤≥≈≠±*]) ?(?=[\d(（-])"), lambda m: _SIGNS[m[1]]),
    (re.compile(_N), lambda m: _glued(m) if "," not in m[0] and "." not in m[0] and len(m[0]) > 12 else number(m[0])),
    (re.compile(r"(?<=[\u3400-\u9fff]) ?& ?(?=[\u3400-\u9fff])"), lambda m: "和"),
    (re.compile(r"(?<=[A-Za-z]) ?& ?(?=[A-Za-z])"), lambda m: " and "),
]
