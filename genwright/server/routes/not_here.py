"""What OpenAI's API has and this server has not: 501, and what to use instead. Paths that nobody knows are 404."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ..errors import Wrong

router = APIRouter()

_LATER = "Moving pictures and live calls are not served; this server answers with text, pictures and sound."
ABSENT = {
    "videos": _LATER,
    "realtime": _LATER,
    "live": _LATER,
    "assistants": "Assistants are no longer made; use /v1/responses, which keeps the conversation for you.",
    "threads": "Threads are no longer made; use /v1/responses, which keeps the conversation for you.",
    "conversations": "Conversations are kept by /v1/responses: go on with previous_response_id.",
    "containers": "No code is run here; offer a function as a tool, and run it yourself.",
    "skills": "No code is run here; offer a function as a tool, and run it yourself.",
    "organization": "Keys and usage are seen to on the server's own machine: `genwright keys`.",
}
_METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]


def _add(name: str, why: str) -> None:
    async def absent(request: Request) -> dict[str, Any]:
        raise Wrong(501, f"/v1/{name} is not here. {why}", code="not_implemented")

    for path in (f"/v1/{name}", f"/v1/{name}/{{rest:path}}"):
        router.add_api_route(path, absent, methods=_METHODS, include_in_schema=False)


for _name, _why in ABSENT.items():
    _add(_name, _why)
