"""Explain: what a key of a recipe means, from the same fields that check it."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel

from .errors import UsageError
from .plugin import Chosen, Pick, did_you_mean, shelves
from .recipe import Recipe


def explain(key: str) -> dict[str, Any]:
    """Type, default, meaning and choices of a dotted key, such as `train.epochs` or `method.lora.rank`.

    Raises UsageError with a "did you mean" for a key that does not exist.
    """
    kind: Any = Recipe
    found: dict[str, Any] = {}
    for number, step in enumerate(steps := key.split(".")):
        known = _members(kind)
        if step not in known:
            where = ".".join(steps[:number]) or "a recipe"
            raise UsageError(f"There is no key {step!r} in {where}. {did_you_mean(step, known)}")
        kind, found = known[step]
    return {"key": key, **found}


def _members(kind: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """What may follow a key: the fields of a settings model, or the plugins of a shelf (`method.lora`)."""
    if isinstance(kind, Pick):
        shelf = shelves[kind.shelf]
        options = {name: shelf.settings(name) for name in shelf}
        return {name: (kind, _entry(shelf.name, None, shelf.help(name), kind)) for name, kind in options.items()}
    found = {}
    for name, field in getattr(kind, "model_fields", {}).items():
        inner = _inner(field.annotation, field.metadata)
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        default = default.as_dict() if isinstance(default, Chosen) else default
        found[name] = (inner, _entry(_type(field.annotation), default, field.description or "", inner))
        if name == "source" and isinstance(inner, Pick):  # data's own options are those of its source
            found |= _members(inner)
    return found


def _entry(kind: str, default: Any, text: str, inner: Any) -> dict[str, Any]:
    choices = {}
    if isinstance(inner, Pick):
        choices = {name: shelves[inner.shelf].help(name) for name in shelves[inner.shelf]}
    elif hasattr(inner, "model_fields"):
        choices = {name: field.description or "" for name, field in inner.model_fields.items()}
        default = None if isinstance(default, BaseModel) else default
    return {"type": kind, "default": default, "help": text, "choices": choices}


def _inner(annotation: Any, metadata: Any = ()) -> Any:
    """The settings model or the shelf behind a field, through lists, unions and Annotated."""
    for extra in metadata:
        if isinstance(extra, Pick):
            return extra
    if hasattr(annotation, "__metadata__"):
        return _inner(annotation.__origin__, annotation.__metadata__)
    for argument in typing.get_args(annotation):
        found = _inner(argument)
        if isinstance(found, Pick) or hasattr(found, "model_fields"):
            return found
    return annotation


def _type(annotation: Any) -> str:
    if hasattr(annotation, "__metadata__"):
        annotation = annotation.__origin__
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(a) for a in arguments)
    if origin:
        return f"{origin.__name__} of {', '.join(_type(a) for a in arguments)}"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
