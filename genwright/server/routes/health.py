"""Health: is it alive, does it answer, what does it count, which version is it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from ..app import enter, known
from ..errors import Wrong
from ..house import caller_of, house_of
from ..meters import CONTENT_TYPE

PUBLIC = True  # those that ask every few seconds have no keys; the two that tell more want one
router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: this process answers. Restart it when it does not."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"description": "Not yet, or no more: `reason` says why"}})
async def readyz(request: Request) -> Response:
    """Ready: send requests here. 503 while models load and once the server is told to stop."""
    house = house_of(request)
    if house.state == "ready":
        return JSONResponse({"status": "ready"})
    reason = (
        house.why or {"loading": "Starting.", "draining": "Told to stop; answers under way are ended."}[house.state]
    )
    return JSONResponse({"status": house.state, "reason": reason}, 503, {"Retry-After": "1"})


@router.get("/version", dependencies=[Depends(enter)])
async def version() -> dict[str, Any]:
    """What runs here."""
    from genwright import __version__

    return {"name": "genwright", "version": __version__}


@router.get(
    "/metrics", dependencies=[Depends(known)], response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def metrics(request: Request) -> Response:
    """Figures in Prometheus' format, over all callers: for keys with the role admin or metrics, also while draining."""
    if not caller_of(request).roles & {"admin", "metrics"}:
        raise Wrong(403, "This key may not see the figures of all callers.", code="not_an_admin")
    house = house_of(request)
    return Response(house.meters.text(house.fleet.memory()), media_type=CONTENT_TYPE)
