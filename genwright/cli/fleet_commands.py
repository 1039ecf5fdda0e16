"""Commands that look into a running server and tell it what to keep in memory; they speak to it over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from argparse import Namespace
from typing import Any

from genwright.core import GenwrightError, ModelError, UsageError

from .render import Screen, size

_LONG = 900.0  # seconds: a large model takes a while to load


def ps(args: Namespace, screen: Screen) -> dict[str, Any]:
    """[--url http://127.0.0.1:8484]; the key from GENWRIGHT_API_KEY. What is in memory."""
    found = _call(args.url, "GET", "/admin/ps")
    screen.table(
        ("model", "state", "memory", "answering", "at once", "for", "leaves in", "engine"),
        [_row(one) for one in found["data"]],
        note=f"Models may take {size(found['budget'])}.",
    )
    for one in found["data"]:
        if one["error"]:
            screen.say(f"{one['name']}: {one['error']}")
    return found


def load(args: Namespace, screen: Screen) -> dict[str, Any]:
    """MODEL [--pin] [--url …]: bring it into memory now, and with --pin keep it there."""
    found = _call(args.url, "POST", "/admin/load", {"model": args.model})
    if args.pin:
        found = _call(args.url, "POST", "/admin/pin", {"model": args.model, "pinned": True})
    screen.say(f"{found['name']} is in memory ({size(found['bytes'])}){', and stays there' if args.pin else ''}.")
    return found


def unload(args: Namespace, screen: Screen) -> dict[str, Any]:
    """MODEL [--url …]: out of memory once it has ended what it is doing; it comes back when it is asked."""
    _call(args.url, "POST", "/admin/pin", {"model": args.model, "pinned": False})
    found = _call(args.url, "POST", "/admin/unload", {"model": args.model})
    screen.say(f"{found['name']} is out of memory; it comes back when it is asked.")
    return found


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    leaves = "never (pinned)" if one["pinned"] else "–" if one["expires_in"] is None else f"{one['expires_in']:.0f} s"
    runner = one.get("runner") if one.get("runner") not in (None, "NoneType") else one.get("engine")
    names = ", ".join(one["models"]) or one["name"]
    loaded = one["state"] == "loaded"
    return (names, one["state"], size(one["bytes"]) if loaded else "–", str(one["running"]) if loaded else "–",
            str(one.get("parallel", "–")), f"{_age(one['since'])}" if loaded else "–", leaves if loaded else "–",
            str(runner or "–"))  # fmt: skip


def _age(since: int) -> str:
    seconds = max(0, int(time.time()) - since)
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def _call(url: str, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the server answers. Raises UsageError in its own words, ModelError when nobody answers."""
    key = os.environ.get("GENWRIGHT_API_KEY", "")
    head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    place = url.rstrip("/").removesuffix("/v1")
    if not place.startswith(("http://", "https://")):
        raise UsageError(f"{url} is no address.", "Write --url http://127.0.0.1:8484.")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(place + path, data, head, method=verb)
    try:
        with urllib.request.urlopen(request, timeout=_LONG) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error, bool(key)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ModelError(f"No Genwright server answers at {place}: {reason}.",
                         "Start one with `genwright serve MODEL`, or name another with --url.") from None  # fmt: skip


def _refusal(error: urllib.error.HTTPError, has_key: bool) -> GenwrightError:
    try:
        said = json.loads(error.read(100_000))["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ModelError(f"What answers there is no Genwright server ({error.code}).", "Name another with --url.")
    hint = ""
    if error.code in (401, 403):
        hint = "Put an admin's key into GENWRIGHT_API_KEY" + (
            "; this one is none." if has_key else " (`genwright keys create --admin`)."
        )
    return (UsageError if error.code < 500 else ModelError)(said, hint)
