"""/v1/content_provenance_checks: whether a file says, or this server's ledger knows, that a model here made it.

`results` holds OpenAI's signals, as far as they can be looked for here: C2PA for pictures, "trusted" when this house
has signed it itself, "valid" when the signer is not known (no list of trusted signers is kept). Without the extra
`image` a file with a manifest is answered with 501. SynthID cannot be looked for and is never told of. What this house
knows stands beside them under `genwright`.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from genwright.verbs.provenance import GENERATED, look_up

from ..errors import Wrong
from ..forms import read_form
from ..house import caller_of, house_of
from ..wire import Body, documented, now, shaped

router = APIRouter()
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")


class CheckForm(Body):
    """The file to look at."""

    file: str = Field(json_schema_extra={"format": "binary"})


class Nothing(Body):
    """What the form says beside the file."""


@router.post("/v1/content_provenance_checks", openapi_extra=documented(CheckForm, kind="multipart/form-data"))
async def check(request: Request) -> dict[str, Any]:
    """What is known of where a file comes from. The file is not kept."""
    house, caller = house_of(request), caller_of(request)
    async with read_form(request, file="file", largest=house.options.largest_file) as form:
        shaped(form.fields, Nothing)
        await asyncio.to_thread(form.draft.sync)
        found = await asyncio.to_thread(look_up, form.draft.path)
        head = await asyncio.to_thread(_head, form.draft.path)
    picture = head.startswith(_PICTURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if found.pop("c2pa") and find_spec("c2pa") is None:
        raise Wrong(501, "The file carries a C2PA manifest, which only the extra `image` can validate.",
                    param="file", code="not_implemented")  # fmt: skip
    signal = _signal(found["signature"])
    seen = {served.id for served in house.fleet.list(caller)}
    answers = [answer if answer["model"] in seen else _nameless(answer) for answer in found.pop("answers")]
    signed_here = (found["signature"] or {}).get("state") == "own"
    made_here = signed_here or bool(answers) or found["label"] is not None or found["visible"] is not None
    return {
        "object": "content_provenance_check", "created_at": now(), "results": [signal] if picture else [],
        "genwright": {"outcome": "detected" if made_here else "not_detected", **found, "answers": answers},
    }  # fmt: skip


def _signal(signature: dict[str, Any] | None) -> dict[str, Any]:
    """A manifest in OpenAI's words."""
    if signature is None:
        return {"type": "c2pa", "outcome": "not_detected", "validation_state": "not_present"}
    state = {"own": "trusted", "valid": "valid"}.get(signature["state"], "invalid")
    outcome = "not_detected" if state == "invalid" or signature["source_type"] != GENERATED else "detected"
    return {"type": "c2pa", "outcome": outcome, "validation_state": state, "issuer": signature["signer"] or None}


def _head(path: Any) -> bytes:
    with path.open("rb") as file:
        found: bytes = file.read(16)
    return found


def _nameless(answer: dict[str, Any]) -> dict[str, Any]:
    """The model is somebody else's: that it made this is told, what it is called is not."""
    facts = {name: value for name, value in (answer["provenance"] or {}).items() if name != "model"}
    return answer | {"model": None, "provenance": facts}
