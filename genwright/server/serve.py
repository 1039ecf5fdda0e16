"""Serve: build the household, take a port, answer until told to stop, and end what was begun before going."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genwright.core import SILENT, Chosen, GenwrightError, MissingExtra, ModelError, Tell, UsageError, choose

if TYPE_CHECKING:
    from .house import House, Options

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STALLED = 30.0  # seconds after which a client that takes none of its answer is dropped
_LAST = 1  # seconds that connections get to close once the answers have ended


def serve(
    ref: str | Path, *, host: str = "127.0.0.1", port: int = 8484, engine: str | None = None, queue: int = 32,
    tell: Tell = SILENT,
) -> None:  # fmt: skip
    """Serve one run, card, folder, GGUF file or hf:org/name; everything else as `Options` has it by itself."""
    try:
        from .house import Entry, Options
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    entry = Entry(source=str(ref), engine={"engine": engine} if engine else {})
    serve_options(Options(models=[entry], host=host, port=port, queue=queue), tell=tell)


def serve_options(options: Options, *, tell: Tell = SILENT) -> None:
    """Serve until SIGINT or SIGTERM; answers under way then get `options.drain` seconds to end.

    Raises UsageError when the address is public and there are no keys, or is taken; what loading a model raises, when
    none of those that are loaded at the start could be; MissingExtra without the libraries of the extra `serve`.
    """
    try:
        import uvicorn

        from . import logs
        from .app import create_app
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    logs.begin()
    chosen = choose("executors", options.executor)
    if hasattr(chosen.module, "replicas"):
        _serve_replicas(options, chosen, tell)
        return
    with _taken(options.host, options.port) as door:
        house = household(options)
        config = uvicorn.Config(
            create_app(house), log_config=None, access_log=False, server_header=False, timeout_keep_alive=30,
            timeout_graceful_shutdown=_LAST,
        )  # fmt: skip
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            trouble = runner.run(_served(house, config, door, tell))
    if isinstance(trouble, GenwrightError):
        raise trouble
    if trouble:
        raise ModelError(str(trouble))


def _serve_replicas(options: Options, chosen: Chosen, tell: Tell) -> None:
    """Whole servers side by side, as the executor has it; what they share is the database and the data folder."""
    household(options).store.close()  # whatever is wrong is said here, once, and the tables are made once

    def app() -> Any:
        from . import logs
        from .app import create_app

        logs.begin()
        return create_app(household(options))

    where = {"host": options.host, "port": options.port, "drain": options.drain}
    with chosen.module.replicas(app, chosen.settings, **where):
        tell.note(f"Replicas answer at http://{options.host}:{options.port}/v1 (stop with Ctrl-C).")
        told = threading.Event()
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, lambda *_: told.set())
        told.wait()


def household(options: Options) -> House:
    """The parts of a server, made and not yet begun. Raises UsageError for a public address without keys."""
    from .desk import Desk
    from .fleet import Fleet
    from .house import House
    from .jobs import Jobs
    from .keys import Keys
    from .limits import Limits
    from .meters import Meters
    from .store import Store
    from .store.blobs import Blobs

    options.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(options.url)
    keys = Keys(store, options.data, open_door=options.host in _LOOPBACK)
    if options.host not in _LOOPBACK and not keys.listed():
        raise UsageError(f"{options.host} can be reached by others, and there are no keys yet to let in only some.",
                         "Make one with `genwright keys create`, or serve on 127.0.0.1.")  # fmt: skip
    fleet, limits, meters = Fleet(options, store), Limits(store), Meters()
    return House(
        options=options, store=store, blobs=Blobs(options.data / "blobs"), keys=keys, limits=limits,
        jobs=Jobs(store, options.data), fleet=fleet, desk=Desk(options, fleet, keys, limits, meters), meters=meters,
    )  # fmt: skip


async def _served(house: House, config: Any, door: socket.socket, tell: Tell) -> Exception | None:
    """Serve until told to stop. Returns why no model could be loaded, if none could."""
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn's, but for what happens at a signal: it would close its door first and tell nobody."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    gc.collect()
    gc.freeze()  # what is there now stays for good: looking through it again and again takes longer than an answer
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[door]))
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if stopping:  # told twice: at once
            server.should_exit = True
        stopping.append(asyncio.create_task(_drain(house, server)))

    if threading.current_thread() is threading.main_thread():
        for one in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(one, stop)
    warm = asyncio.create_task(house.fleet.warmed.wait())
    await asyncio.wait((serving, warm), return_when=asyncio.FIRST_COMPLETED)
    warm.cancel()
    troubles = house.fleet.troubles
    if troubles and len(troubles) == len(house.options.models):
        server.should_exit = True
    elif not serving.done():
        for served, error in troubles:
            tell.note(f"{served.id} could not be loaded: {error}")
        tell.note(f"{_names(house)} at {_address(door, house.options.host)} (stop with Ctrl-C).")
    await serving
    return troubles[0][1] if troubles and len(troubles) == len(house.options.models) else None


async def _drain(house: House, server: Any) -> None:
    """Say that we are going, let what was begun end, then close the door."""
    house.state = "draining"
    loop = asyncio.get_running_loop()
    end = loop.time() + house.options.drain
    while server.server_state.tasks and loop.time() < end:
        await asyncio.sleep(0.05)
    server.should_exit = True


def _taken(host: str, port: int) -> socket.socket:
    try:
        door = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be had: {error.strerror}.", "Choose another with --port."
        ) from None
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections have it from the door
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_STALLED * 1000))
    return door


def _names(house: House) -> str:
    names = [served.id for served in house.fleet.list() if not served.embeds] or ["Nothing yet"]
    return f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''} answer{'s' if len(names) == 1 else ''}"


def _address(door: socket.socket, host: str) -> str:
    return f"http://{'[::1]' if host == '::1' else host}:{door.getsockname()[1]}/v1"
