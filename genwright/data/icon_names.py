"""What the name of an icon says: its caption, and the head word by which icons of all sets are grouped."""

from __future__ import annotations

from typing import Any


def named(name: str, known: Any, heads: tuple[str, ...]) -> dict[str, Any]:
    """`meta` of an icon (concept, group, captions, tags) from its `name` ("cat-off") and what is `known` of it: a list
    of tags, or facts of which `tags` is one. `heads` are first words that say only what kind of icon it is.

    >>> named("cat-off", ["pet"], ())
    {'concept': 'cat off', 'group': 'icon cat', 'captions': {'en': ['cat off', 'cat off, pet']}, 'tags': ['pet']}
    """
    words = name.replace("_", "-").split("-")
    head = words[1] if len(words) > 1 and words[0] in heads else words[0]
    plain, tags = " ".join(words), known.get("tags", []) if isinstance(known, dict) else known or []
    tags = [str(tag).replace("-", " ") for tag in tags]
    more = [tag for tag in dict.fromkeys(tags) if tag not in words]
    captions = [plain, *([f"{plain}, {', '.join(more)}"] if more else [])]
    return {"concept": plain, "group": f"icon {head}", "captions": {"en": captions}, "tags": more}
