"""Item schemas: whether an item is as an eval's JSON schema wants it, in a time that no schema can draw out.

Regular expressions can take for ever and references can unfold without end, so the first are refused and the second
counted. Nothing is fetched: a reference leads into the schema itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from genwright.core import MissingExtra

from .errors import Wrong

_MOST_REFERENCES = 10_000  # that are followed for one item
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")  # what stands in them are names, not keywords
_DATA = ("const", "enum", "default", "examples")


class _Unfolding(Exception):
    pass


def checker(schema: dict[str, Any], param: str) -> Callable[[Any], str]:
    """What says of an item what is wrong with it, or "". Raises Wrong (400) for a schema that is none, MissingExtra."""
    try:
        from jsonschema import Draft202012Validator, SchemaError, validators
        from referencing import Registry
    except ImportError:
        raise MissingExtra("jsonschema", "text") from None
    followed = 0

    def counted(rule: Any) -> Any:
        def follow(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            nonlocal followed
            followed += 1
            if followed > _MOST_REFERENCES:
                raise _Unfolding
            yield from rule(validator, value, instance, schema) or ()

        return follow

    rules = Draft202012Validator.VALIDATORS
    kind = validators.extend(Draft202012Validator, {name: counted(rules[name]) for name in ("$ref", "$dynamicRef")})
    try:
        plain = _plain(schema)
        Draft202012Validator.check_schema(plain)
        made = kind(plain, registry=Registry())
        _told(made, {})  # a reference that leads nowhere is seen now
    except SchemaError as error:
        said = str(error.message)[:300]
        raise Wrong(400, f"{param} is no JSON schema: {said}.", param=param, code="invalid_schema") from None
    except _Unusable as error:
        raise Wrong(400, f"{param}: {error}", param=param, code="invalid_schema") from None
    except (RecursionError, _Unfolding):
        raise Wrong(400, f"{param} is nested too deep.", param=param, code="invalid_schema") from None

    def check(item: Any) -> str:
        nonlocal followed
        followed = 0
        try:
            return _told(made, item)
        except _Unusable as error:
            return str(error)
        except (RecursionError, _Unfolding):
            return "it is nested deeper than its schema can be followed"

    return check


class _Unusable(ValueError):
    pass


def _told(validator: Any, item: Any) -> str:
    from referencing.exceptions import Unresolvable

    try:
        wrong = next(validator.iter_errors(item), None)
    except Unresolvable as error:
        raise _Unusable(f"a reference leads nowhere: {error.ref!r:.200}.") from None
    if wrong is None:
        return ""
    place = ".".join(map(str, wrong.absolute_path))
    return f"{place + ': ' if place else ''}{wrong.message[:300]}"


def _plain(schema: Any, *, names: bool = False) -> Any:
    """A copy without `$schema`, by which parts of it would be read by other rules. Raises _Unusable."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: _plain(one) for name, one in schema.items()}
    for word in ("pattern", "patternProperties"):
        if word in schema:
            raise _Unusable(f"`{word}` is not looked at here, for a regular expression may run for ever; leave it out.")
    for word in ("$ref", "$dynamicRef"):
        if not str(schema.get(word, "#")).startswith("#"):
            raise _Unusable(f"`{word}` may only lead into the schema itself (#/$defs/…); nothing is fetched.")
    return {word: one if word in _DATA else _plain(one, names=word in _NAMED)
            for word, one in schema.items() if word not in ("$schema", "$id")}  # fmt: skip
