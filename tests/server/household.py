"""A small household for tests of the full server: real store, keys, limits and jobs; routes served alone.

    house = small_house(tmp_path, queue=3)                    # what Options takes, and fleet, desk, meters
    with at_home(app_of(house, files, uploads)) as address:   # on a real port, jobs running
        client(address).files.list()                          # the official client
    async with asgi(app_of(house, files)) as http: ...        # or without a port (and without jobs)

With GENWRIGHT_TEST_DATABASE, a PostgreSQL URL whose user may create databases, each house has one there instead of a
file of SQLite.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import httpx
from fastapi import Depends, FastAPI

from genwright.core.home import store
from genwright.server.app import LOCAL, FrontDoor, enter
from genwright.server.errors import answer_errors
from genwright.server.house import House, Options
from genwright.server.jobs import Jobs
from genwright.server.keys import Keys
from genwright.server.limits import Limits
from genwright.server.store import Store
from genwright.server.store.blobs import Blobs

_CLIENTS: list[Any] = []
STORE = store()  # this machine's, looked up before any test has a home of its own
DATABASE = os.environ.get("GENWRIGHT_TEST_DATABASE", "")


@contextmanager
def own_home(place: Path, **environment: str) -> Iterator[None]:
    """Within it the ledger lies in `place`, and the weights are those of this machine."""
    (place / "home").mkdir(parents=True, exist_ok=True)
    STORE.mkdir(parents=True, exist_ok=True)
    (place / "home" / "store").symlink_to(STORE)
    with mock.patch.dict(os.environ, {"GENWRIGHT_HOME": str(place / "home")} | environment):
        yield


def small_house(
    tmp_path: Path, *, fleet: Any = None, desk: Any = None, meters: Any = None, lease: float = 30.0, **options: Any
) -> House:
    """A house whose data lies under `tmp_path`; a second one there shares the first one's database and files."""
    chosen = Options(**{"data": tmp_path / "data", "database": fresh_url(tmp_path)} | options)
    store = Store(chosen.url)
    return House(
        options=chosen, store=store, blobs=Blobs(chosen.data / "blobs"), keys=Keys(store, chosen.data),
        limits=Limits(store), jobs=Jobs(store, chosen.data, lease=lease), fleet=fleet, desk=desk, meters=meters,
    )  # fmt: skip


def fresh_url(folder: Path) -> str:
    """The URL of a database of its own, the same one for the same folder."""
    note = folder / "database.url"
    if not note.exists():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(_created(DATABASE) if DATABASE else f"sqlite:///{folder / 'server.db'}", encoding="utf-8")
    return note.read_text(encoding="utf-8")


def _created(url: str) -> str:
    from sqlalchemy import create_engine, make_url, text

    name = f"test_{secrets.token_hex(8)}"
    there = make_url(url).set(drivername="postgresql+pg8000")
    engine = create_engine(there, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    engine.dispose()
    return there.set(database=name).render_as_string(hide_password=False)


def app_of(house: House, *routes: ModuleType) -> FastAPI:
    """The named modules of genwright.server.routes behind the front door; jobs run while it is served."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        for module in routes:
            for kind, work in getattr(module, "JOBS", {}).items():
                house.jobs.register(kind, work)
        await house.jobs.start(house)
        house.state = "ready"
        yield
        await house.jobs.stop()
        await house.limits.flush()

    app = FastAPI(lifespan=life, redirect_slashes=False)
    app.state.house = house
    answer_errors(app)
    for module in routes:
        public = getattr(module, "PUBLIC", False)
        app.include_router(module.router, dependencies=[] if public else [Depends(enter)])
    app.add_middleware(FrontDoor, hosts=LOCAL)
    return app


@contextmanager
def at_home(app: FastAPI) -> Iterator[str]:
    """The address (http://127.0.0.1:port/v1) of a server that runs in a thread."""
    import uvicorn

    door = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}/v1"
    finally:
        while _CLIENTS:
            _CLIENTS.pop().close()
        server.should_exit = True
        thread.join(10)
        door.close()


def asgi(app: FastAPI, key: str = "none") -> httpx.AsyncClient:
    """A client that calls the app itself; nothing of its lifespan runs."""
    head = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1/v1", headers=head)


def client(address: str, key: str = "none", **options: Any) -> Any:
    """The official client, in strict mode and without retries; `at_home` closes it at its end."""
    import openai

    options = {"max_retries": 0, "_strict_response_validation": True} | options
    _CLIENTS.append(openai.OpenAI(base_url=address, api_key=key, **options))
    return _CLIENTS[-1]
