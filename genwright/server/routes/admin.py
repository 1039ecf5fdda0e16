"""/admin and adapters: what is in memory, and what is to be. For keys with the role admin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from genwright.core import ModelError

from ..app import enter_as_admin
from ..conversation import Strict
from ..convert import to_gguf
from ..errors import Wrong
from ..fleet import ADAPTERS
from ..house import House, house_of
from ..registry import Served
from ..wire import documented, new_id, read_body

router = APIRouter(dependencies=[Depends(enter_as_admin)])
_NAME = re.compile(r"[\w.:/@+-]{1,200}")


class Named(Strict):
    model: str = Field(min_length=1, max_length=500)


class Pinned(Named):
    pinned: bool = True


class Loading(Strict):
    """vLLM's request, and which model the adapter stands on where several are served."""

    lora_name: str = Field(min_length=1, max_length=200)
    lora_path: str = Field(min_length=1, max_length=4096)
    load_inplace: bool = False
    base_model_name: str | None = Field(None, max_length=500)


class Unloading(Strict):
    lora_name: str = Field(min_length=1, max_length=200)
    lora_int_id: int | None = None


@router.get("/admin/ps")
async def ps(request: Request) -> dict[str, Any]:
    """What is in memory: models, process, bytes, answers under way."""
    fleet = house_of(request).fleet
    return {"object": "list", "data": await fleet.ps(), "budget": fleet.budget}


@router.post("/admin/load", openapi_extra=documented(Named))
async def load(request: Request) -> dict[str, Any]:
    """Bring a model into memory now."""
    asked = await read_body(request, Named)
    await house_of(request).fleet.load(asked.model)
    return await _one(request, asked.model)


@router.post("/admin/reload", openapi_extra=documented(Named))
async def reload(request: Request) -> dict[str, Any]:
    """Load a model anew beside itself; the old one ends what it began. If that fails, the old one stays."""
    asked = await read_body(request, Named)
    await house_of(request).fleet.reload(asked.model)
    return await _one(request, asked.model)


@router.post("/admin/unload", openapi_extra=documented(Named))
async def unload(request: Request) -> dict[str, Any]:
    """Put a model out of memory once it has ended what it is doing; it comes back when it is asked."""
    asked = await read_body(request, Named)
    await house_of(request).fleet.unload(asked.model)
    return await _one(request, asked.model)


@router.post("/admin/pin", openapi_extra=documented(Pinned))
async def pin(request: Request) -> dict[str, Any]:
    """Keep a model in memory whatever comes, or no longer."""
    asked = await read_body(request, Pinned)
    await house_of(request).fleet.pin(asked.model, asked.pinned)
    return await _one(request, asked.model)


@router.post("/v1/load_lora_adapter", openapi_extra=documented(Loading), response_class=Response)
async def load_lora_adapter(request: Request) -> Response:
    """Serve a LoRA (a PEFT folder or a GGUF adapter on this machine) beside its base, also after a restart."""
    asked = await read_body(request, Loading)
    house = house_of(request)
    if not _NAME.fullmatch(asked.lora_name):
        raise Wrong(
            400, "A name holds letters, digits and . : / @ + - _ only.", param="lora_name", code="invalid_value"
        )
    before = house.fleet.registry.by_id(asked.lora_name)
    if before and not (asked.load_inplace and before.adapter):
        raise Wrong(400, f"The lora adapter '{asked.lora_name}' has already been loaded.", param="lora_name",
                    code="name_taken")  # fmt: skip
    base = _base(house, asked)
    path = house.options.data / ADAPTERS / f"{new_id('')}.gguf"
    try:
        await to_gguf(Path(asked.lora_path), base.source, path)
    except ModelError as error:
        said = f"{error.message} {error.hint}".strip()
        raise Wrong(400, said, param="lora_path", code="invalid_value") from None
    try:
        await house.fleet.register(
            Served(
                asked.lora_name, source=asked.lora_path, parent=base.id, adapter=str(path), keep_alive=base.keep_alive
            )
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Response(f"Success: LoRA adapter '{asked.lora_name}' added successfully.", media_type="text/plain")


@router.post("/v1/unload_lora_adapter", openapi_extra=documented(Unloading), response_class=Response)
async def unload_lora_adapter(request: Request) -> Response:
    """Serve an adapter no more."""
    asked = await read_body(request, Unloading)
    fleet = house_of(request).fleet
    served = fleet.registry.by_id(asked.lora_name)
    if served is None or not served.adapter:
        raise Wrong(404, f"The lora adapter '{asked.lora_name}' cannot be found.", param="lora_name", code="not_found")
    await fleet.remove(served.id)
    return Response(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.", media_type="text/plain")


def _base(house: House, asked: Loading) -> Served:
    """The model that the adapter stands on: as told, else the only one that there is."""
    models = [s for s in house.fleet.list() if not (s.embeds or s.adapter or s.is_elsewhere)]
    named = asked.base_model_name
    if named:
        return house.fleet.find(named)
    if not models:
        raise Wrong(400, "No model is served that an adapter could stand on.", param="base_model_name")
    if len(models) > 1:
        raise Wrong(400, f"Say which model it stands on: {', '.join(s.id for s in models)[:300]}.",
                    param="base_model_name", code="invalid_value")  # fmt: skip
    return models[0]


async def _one(request: Request, name: str) -> dict[str, Any]:
    fleet = house_of(request).fleet
    key = fleet.seat_of(fleet.find(name))
    found = [one for one in await fleet.ps() if one["key"] == key]
    return found[0] if found else {"name": name, "state": "unloaded"}
