"""Leaving: a client that hangs up takes its work along, streamed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request

from .errors import Wrong

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; when the client leaves first, the work is cancelled and has ended when this returns.

    Raises Wrong (499), which nobody reads any more, and whatever `work` raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Wrong(499, "The client has left.", code="client_closed_request")
    finally:
        leaving.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
