"""Row shapes: the spellings of a training row that the field's tools use, turned into one conversation.

Known: OpenAI `messages`, ShareGPT `conversations`, Alpaca `instruction/input/output`, `prompt`/`completion`
(also `question`/`answer`, `source`/`target`), plain `text` (with `label` for classification) and preference rows
`chosen`/`rejected` (OpenAI's `input`, `preferred_output`/`non_preferred_output`). `images` and `audios` are put where
`<image>` and `<audio>` stand in the words; plain `text` beside a file is what is to be said of it. Where the answer is
to be a picture, `image` is the answer, and the words (`caption`, `captions`, `prompt`, `text` …), `input_image` and
`mask_image` are the question. A file is a path or holds its own bytes, alone or as `datasets` has them: {"bytes": …,
"path": …}.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .content import ROLES, Message, Part

_ROLE_OF = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "function": "tool",
            "observation": "tool", "developer": "system", "function_call": "assistant",
            "chatgpt": "assistant"}  # fmt: skip
_PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("source", "target"),
          ("input", "output"), ("query", "response"))  # fmt: skip
_FILES = {"images": "image", "image": "image", "audios": "audio", "audio": "audio"}
_CAPTIONS = ("prompt", "caption", "text", "instruction", "question", "input")
_KNOWN = ("style", "concept", "tags", "lang", "licence", "attribution")  # of a picture, kept in its meta
# What stays of a row beside the words that a template makes.
KEPT = ("system", "meta", "group", "id", "label", "captions", *_KNOWN, *_FILES,
        *(f"{role}_{kind}" for role in ("input", "mask") for kind in ("image", "audio")))  # fmt: skip


def read_row(fields: dict[str, Any], gives: str = "text") -> tuple[tuple[Message, ...], dict[str, Any]]:
    """The messages and the meta of a row of any known shape. `gives` is the kind of the answer that is wanted.

    Raises ValueError with a sentence when the row has no known shape or holds a wrong type.
    """
    if gives != "text" and any(fields.get(name) and kind == gives for name, kind in _FILES.items()):
        return _described(fields, gives)
    meta = fields.get("meta")
    meta = dict(meta) if isinstance(meta, dict) else {}
    for name in ("label", "group", "id"):
        if name in fields:
            meta[name] = fields[name]
    messages, meta = _shaped(fields, meta)
    if not _FILES.keys().isdisjoint(fields):
        messages = _with_files(messages, fields)
    return messages, meta


def _described(fields: dict[str, Any], kind: str) -> tuple[tuple[Message, ...], dict[str, Any]]:
    """A file for its description: words, and what they are said of, are the question; the file is the answer."""
    name = next(name for name, of in _FILES.items() if of == kind and fields.get(name))
    answer = _file_parts(fields[name], name, kind)
    meta = dict(fields["meta"]) if isinstance(fields.get("meta"), dict) else {}
    meta |= {key: fields[key] for key in (*_KNOWN, "label", "group", "id") if fields.get(key) is not None}
    said = [_words(fields[key], key) for key in _CAPTIONS if fields.get(key)][:1]
    if captions := _captions(fields.get("captions") or meta.get("captions")):
        meta["captions"] = captions
        said = said or [next(iter(captions.values()))[0]]
    given = [*_file_parts(fields.get(f"input_{kind}") or [], f"input_{kind}", kind)]
    given += [Part(kind, "mask", p.path, p.meta) for p in _file_parts(fields.get(f"mask_{kind}") or [], "mask", kind)]
    asked = [*(Part(text=words) for words in said), *given]
    head = [_said("system", fields["system"])] if fields.get("system") else []
    questions = [Message("user", tuple(asked))] if asked else []
    return (*head, *questions, Message("assistant", tuple(answer))), meta


def _captions(given: Any) -> dict[str, list[str]]:
    """{language: [caption, …]}; captions whose language is not known stand under ""."""
    by_language = given if isinstance(given, dict) else {"": given} if given else {}
    found: dict[str, list[str]] = {}
    for language, captions in by_language.items():
        texts = [captions] if isinstance(captions, str) else _list(captions or [], "captions")
        if kept := [text for text in (_words(text, "captions") for text in texts) if text.strip()]:
            found[str(language)] = kept
    return found


def _file_parts(given: Any, name: str, kind: str) -> list[Part]:
    return [_file_part(one, name, kind) for one in (given if isinstance(given, (list, tuple)) else [given])]


def _file_part(given: Any, name: str, kind: str) -> Part:
    """A file by its path or with its bytes (in `meta`)."""
    if isinstance(given, dict) and given.get("bytes"):
        return Part(kind, path=Path(str(given.get("path") or name)), meta={"bytes": given["bytes"]})
    if isinstance(given, dict):
        given = given.get("path")
    if isinstance(given, (bytes, bytearray)):
        return Part(kind, path=Path(name), meta={"bytes": bytes(given)})
    if isinstance(given, Path):
        return Part(kind, path=given)
    if not _words(given, name).strip():
        raise ValueError(f"`{name}` is empty")
    return Part(kind, path=Path(given))


def _shaped(fields: dict[str, Any], meta: dict[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    if "chosen" in fields and "rejected" in fields:
        return _preference(fields, meta)
    if "preferred_output" in fields and "non_preferred_output" in fields:
        return _preference(_openai_preference(fields), meta)
    if "messages" in fields:
        return example_messages(fields["messages"]), _with_rejected(fields, meta)
    if "conversations" in fields:
        turns = _list(fields["conversations"], "conversations")
        system = fields.get("system")
        head = [_said("system", system)] if system else []
        return (*head, *example_messages(turns)), meta
    if "instruction" in fields:
        return _alpaca(fields), meta
    for asked, told in _PAIRS:
        if asked in fields and told in fields:
            return _pair(fields.get("system"), fields[asked], fields[told]), meta
    if "text" in fields:
        text = _words(fields["text"], "text")
        if "label" in fields:
            return (_said("user", text), _said("assistant", str(fields["label"]))), meta
        return (Message("assistant", (Part("text", text),)),), meta
    known = "messages, conversations, instruction/output, prompt/completion, text, chosen/rejected"
    raise ValueError(f"unknown row shape with the keys {sorted(map(str, fields))[:8]}; known shapes: {known}")


def example_messages(turns: Any) -> tuple[Message, ...]:
    """OpenAI or ShareGPT turns as messages. Raises ValueError with a sentence."""
    messages = []
    for number, turn in enumerate(_list(turns, "messages")):
        if not isinstance(turn, dict):
            raise ValueError(f"turn {number} is {type(turn).__name__}, not an object with role and content")
        role = turn.get("role") or turn.get("from")
        role = _ROLE_OF.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            raise ValueError(f"turn {number} has the role {role!r}; known roles: {', '.join(ROLES)}")
        content = turn["content"] if "content" in turn else turn.get("value")
        if isinstance(content, str):
            messages.append(Message(role, (Part("text", _words(content, "content")),)))
        elif isinstance(content, list):
            messages.append(Message(role, tuple(_part(p, number) for p in content)))
        else:
            raise ValueError(f"turn {number} has no words: content is {type(content).__name__}")
    if not messages:
        raise ValueError("the conversation is empty")
    return tuple(messages)


def _preference(fields: dict[str, Any], meta: dict[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
    chosen, rejected = fields["chosen"], fields["rejected"]
    if isinstance(chosen, str):
        prompt = fields.get("prompt", fields.get("question", fields.get("instruction")))
        if isinstance(prompt, list):
            head = example_messages(prompt)
        else:
            system = fields.get("system")
            head = tuple(_said(role, words) for role, words in (("system", system), ("user", prompt)) if words)
        good, bad = _words(chosen, "chosen"), _words(rejected, "rejected")
        if not head:
            raise ValueError("a preference row with plain `chosen` and `rejected` needs a `prompt`")
        meta["rejected"] = Message("assistant", (Part(text=bad),))
        return (*head, Message("assistant", (Part(text=good),))), meta
    if isinstance(chosen, dict):
        chosen, rejected = [chosen], [rejected]
    head = example_messages(fields.get("prompt") or fields.get("messages") or fields.get("conversations") or []) if (
        isinstance(fields.get("prompt") or fields.get("messages") or fields.get("conversations"), list)
    ) else ()  # fmt: skip
    good_turns, bad_turns = example_messages(chosen), example_messages(rejected)
    meta["rejected"] = bad_turns[-1]
    return (*head, *good_turns), meta


def _openai_preference(fields: dict[str, Any]) -> dict[str, Any]:
    asked = fields.get("input")
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list) or not asked["messages"]:
        raise ValueError("a preference row needs `input` with `messages`")
    better, worse = fields["preferred_output"], fields["non_preferred_output"]
    if len(_list(better, "preferred_output")) != 1 or len(_list(worse, "non_preferred_output")) != 1:
        raise ValueError("`preferred_output` and `non_preferred_output` must hold one message each")
    return {"prompt": asked["messages"], "chosen": better, "rejected": worse}


def _with_rejected(fields: dict[str, Any], meta: dict[str, Any]) -> dict[str, Any]:
    rejected = fields.get("rejected") or fields.get("rejected_response") or meta.get("rejected")
    if isinstance(rejected, str):
        meta["rejected"] = Message("assistant", (Part(text=rejected),))
    elif isinstance(rejected, dict):
        meta["rejected"] = example_messages([rejected])[0]
    return meta


def _alpaca(fields: dict[str, Any]) -> tuple[Message, ...]:
    asked = _words(fields["instruction"], "instruction")
    if fields.get("input"):
        asked += "\n" + _words(fields["input"], "input")
    told = fields.get("output", fields.get("response"))
    turns: list[Any] = []
    for old in fields.get("history") or []:
        if not isinstance(old, list) or len(old) != 2:
            raise ValueError("`history` must be a list of [question, answer] pairs")
        turns += [("user", old[0]), ("assistant", old[1])]
    turns += [("user", asked), ("assistant", told)]
    system = fields.get("system")
    return tuple(_said(role, words) for role, words in ([("system", system)] if system else []) + turns)


def _pair(system: Any, asked: Any, told: Any) -> tuple[Message, ...]:
    if isinstance(asked, list) and isinstance(told, list):
        return (*example_messages(asked), *example_messages(told))
    pair = (_said("user", asked), _said("assistant", told))
    return (_said("system", system), *pair) if system else pair


def _said(role: str, words: Any) -> Message:
    return Message(role, (Part("text", _words(words, role)),))


def _part(part: Any, number: int) -> Part:
    if isinstance(part, str):
        return Part(text=_words(part, f"turn {number}"))
    if not isinstance(part, dict):
        raise ValueError(f"turn {number} has a part that is {type(part).__name__}")
    kind = part.get("type") or part.get("kind") or "text"
    if kind == "text":
        return Part(text=_words(part.get("text"), f"turn {number}"))
    if not isinstance(part.get("path"), str):
        raise ValueError(f"turn {number} has a part of kind {kind!r} without a path")
    return Part(kind=str(kind), text=str(part.get("text") or ""), path=Path(part["path"]))


def _with_files(messages: tuple[Message, ...], fields: dict[str, Any]) -> tuple[Message, ...]:
    """Put each file where its `<image>` or `<audio>` stands; without such words, before the first question
    (plain words are said of the files)."""
    for name, kind in _FILES.items():
        given = fields.get(name)
        if not given:
            continue
        found = _file_parts(given, name, kind)
        files, sign = iter(found), f"<{kind}>"
        marked = sum(message.text.count(sign) for message in messages)
        if marked not in (0, len(found)):
            raise ValueError(f"`{name}` has {len(found)} files but the words have {marked} {sign}")
        if marked:
            messages = tuple(Message(m.role, tuple(_filled(m.parts, sign, files))) for m in messages)
        elif len(messages) == 1:
            messages = (Message("user", tuple(found)), *messages)
        else:
            first = next((i for i, m in enumerate(messages) if m.role == "user"), 0)
            asked = Message(messages[first].role, (*files, *messages[first].parts))
            messages = (*messages[:first], asked, *messages[first + 1 :])
    return messages


def _filled(parts: tuple[Part, ...], sign: str, files: Iterator[Part]) -> Iterator[Part]:
    for part in parts:
        if part.kind != "text" or sign not in part.text:
            yield part
            continue
        for number, words in enumerate(part.text.split(sign)):
            if number:
                yield next(files)
            if words.strip():
                yield Part("text", words)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"`{name}` is {type(value).__name__}, not a list of turns")
    return list(value)


def _words(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is {type(value).__name__}, not words")
    if "\0" in value:
        raise ValueError(f"`{name}` holds a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"`{name}` holds half a character (a lone surrogate)") from None
    return value
