"""A label that programs read: who made a file, with which model, from which data (GB 45438-2025 keys, provenance)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from xml.sax.saxutils import escape

import yaml
from pydantic import Field, field_validator

from genwright.core import Part, Provenance, write_bytes, write_text
from genwright.core import Settings as Options
from genwright.core.pii import find_pii
from genwright.media.sound_label import can_carry
from genwright.media.sound_label import with_label as with_sound_label
from genwright.media.xmp import can_hold, read_xmp, with_xmp
from genwright.trust.sidecar import write_sidecar

last = 1  # it holds the file's hash, so no other mark may change the file afterwards
UNREGISTERED = "UNREGISTERED-genwright"


class Settings(Options):
    producer: str = Field(
        UNREGISTERED,
        description="Code of the service provider: 00 + 1 + 1 + its 18-character social credit code + 5 of its own",
    )
    front_matter: bool = Field(True, description="Write the label into the front matter of Markdown files too")

    @field_validator("producer")
    @classmethod
    def _code(cls, code: str) -> str:
        if not re.fullmatch(r"[\x21-\x7e]+", code):
            raise ValueError("may only hold the characters 0x21 to 0x7E; a company is named by its code")
        if re.fullmatch(r"0011[0-9A-Z]{23}", code) and not find_pii(code[4:22], ["credit_code"]):
            raise ValueError(f"{code[4:22]} is no unified social credit code: its check character is wrong")
        return code


def apply(part: Part, provenance: Provenance, settings: Settings) -> Part:
    """A file gets `<file>.genwright.json` beside it; Markdown its front matter too, pictures their XMP, sounds a
    chunk or comment. A part without file gets its `meta`. `meta["label"]` says how sure it is that the part is
    generated (1 is, 2 may be, 3 is suspected to be), where that is not 1."""
    label = {"AIGC": {**label_of(provenance, settings), "Label": str((part.meta or {}).get("label", 1))}}
    if part.path is None:
        return replace(part, meta={**(part.meta or {}), **label, "provenance": provenance.as_dict()})
    if settings.front_matter and part.path.suffix.lower() in (".md", ".markdown"):
        text = with_front_matter(part.path.read_text(encoding="utf-8"), label)
        write_text(part.path, text)
        part = replace(part, text=text)
    assert part.path
    if can_hold(part.path):
        write_bytes(part.path, with_xmp(part.path, with_label(read_xmp(part.path), label["AIGC"], provenance)))
    elif can_carry(part.path) and (part.meta or {}).get("partial", 1) == 1:  # later pieces of a stream go on from it
        inner = json.dumps(label["AIGC"], separators=(",", ":"))
        write_bytes(part.path, with_sound_label(part.path, inner))
    write_sidecar(part.path, {**label, "provenance": provenance.as_dict()})
    return part


def label_of(provenance: Provenance, settings: Settings) -> dict[str, str]:
    """The seven keys of GB 45438-2025, annex E, in their order. `Label` 1: it is generated."""
    produced = re.sub(r"[^\x21-\x7e]", "-", provenance.request_id)
    return {"Label": "1", "ContentProducer": settings.producer, "ProduceID": produced, "ReservedCode1": "",
            "ContentPropagator": "", "PropagateID": "", "ReservedCode2": ""}  # fmt: skip


def with_label(packet: str, label: dict[str, str], provenance: Provenance) -> str:
    """An XMP packet with exactly one label (`TC260:AIGC`, the inner JSON) and where the file comes from; whatever else
    stood in the packet stays."""
    inner = escape(json.dumps(label, separators=(",", ":")))
    source = escape(json.dumps(provenance.as_dict(), separators=(",", ":"), ensure_ascii=True))
    facts = f"<TC260:AIGC>{inner}</TC260:AIGC><genwright:provenance>{source}</genwright:provenance>"
    own = f"{_DESCRIPTION}{facts}</rdf:Description>"
    kept = _OLD_XMP.sub("", packet).replace(f"{_DESCRIPTION}</rdf:Description>", "")
    if "</rdf:RDF>" in kept:
        return kept.replace("</rdf:RDF>", f"{own}</rdf:RDF>", 1)
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{own}</rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    )


def warning(settings: Settings) -> str:
    """What a door should say once."""
    if settings.producer != UNREGISTERED:
        return ""
    return f"The label names the producer {UNREGISTERED}: give your provider code (marks: metadata, producer)."


def with_front_matter(text: str, label: dict[str, dict[str, str]]) -> str:
    """The text with exactly one `AIGC` in its YAML front matter; other keys stay as they are."""
    own = yaml.safe_dump(label, sort_keys=False, allow_unicode=True)
    match = _FRONT.match(text)
    if not match:
        return f"---\n{own}---\n{text}"
    try:
        is_mapping = isinstance(yaml.safe_load(match["inside"]), dict)
    except yaml.YAMLError:
        is_mapping = False
    if not is_mapping:  # a rule at the top of the page, not front matter
        return f"---\n{own}---\n{text}"
    kept = _OLD_LABEL.sub("", match["inside"])
    return f"---\n{own}{kept}---\n{text[match.end() :]}"


_SPACES = 'xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/" xmlns:genwright="urn:genwright:1"'
_DESCRIPTION = f'<rdf:Description rdf:about="" {_SPACES}>'
_OLD_XMP = re.compile(
    r"<(TC260:AIGC|genwright:provenance)>.*?</\1>" + r"""|\sTC260:AIGC=("[^"]*"|'[^']*')""", re.DOTALL
)
_FRONT = re.compile(r"\A---[ \t]*\n(?P<inside>(?:(?!---).*\n)*)---[ \t]*(?:\n|\Z)")
_OLD_LABEL = re.compile(r"^AIGC:.*\n(?:[ \t].*\n)*", re.M)
