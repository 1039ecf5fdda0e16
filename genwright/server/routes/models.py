"""/v1/models: what is served, in OpenAI's words and a few of vLLM's; what was tuned here can be deleted again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request

from ..errors import Wrong
from ..house import caller_of, house_of
from ..registry import Served

if TYPE_CHECKING:
    from ..fleet import Fleet

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """Every model that you may ask, adapters with the model that they stand on as `parent`."""
    fleet, caller = house_of(request).fleet, caller_of(request)
    return {"object": "list", "data": [shown(served, fleet) for served in fleet.list(caller)]}


@router.get("/v1/models/{model:path}")
async def retrieve(request: Request, model: str) -> dict[str, Any]:
    """One model, by its id or an alias."""
    fleet = house_of(request).fleet
    served = fleet.find(model, caller_of(request))
    return shown(served, fleet)


@router.delete("/v1/models/{model:path}")
async def delete(request: Request, model: str) -> dict[str, Any]:
    """Serve a model of yours no more. Those that the operator chose stay."""
    fleet, caller = house_of(request).fleet, caller_of(request)
    served = fleet.find(model, caller)
    if served.owner != caller.owner and not caller.is_admin:
        raise Wrong(403, f"{served.id!r} is not yours to delete.", param="model", code="model_not_deletable")
    await fleet.remove(served.id)
    return {"id": served.id, "object": "model", "deleted": True}


def shown(served: Served, fleet: Fleet) -> dict[str, Any]:
    """OpenAI's model, with vLLM's `root`, `parent` and `max_model_len` (null until it was loaded once), and what kind
    of answers it `gives` (text, image; null until that is known).

    `root` says nothing of where the weights lie on this machine.
    """
    return {"id": served.id, "object": "model", "created": served.created, "owned_by": served.owner or "genwright",
            "root": served.parent or Path(served.source).name or served.id, "parent": served.parent or None,
            "max_model_len": fleet.facts(served).get("context"), "gives": fleet.gives(served)}  # fmt: skip
