"""Serve: open a model, take a port on this machine, answer until told to stop."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

from genwright.core import SILENT, MissingExtra, Tell, UsageError
from genwright.verbs.ask import open_answerer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    ref: str | Path, *, host: str = "127.0.0.1", port: int = 8484, engine: str | None = None, queue: int = 16,
    tell: Tell = SILENT,
) -> None:  # fmt: skip
    """Serve a run, card, folder or GGUF file until SIGINT or SIGTERM; answers under way get 30 seconds to end.

    Raises UsageError when the address is public (that needs keys) or taken, MissingExtra without fastapi and uvicorn.
    """
    if host not in _LOOPBACK:
        raise UsageError(f"{host} is reachable by others, and there are no keys yet to let only some of them in.",
                         "Serve on 127.0.0.1, and let a proxy that asks for a password stand before it.")  # fmt: skip
    try:
        import uvicorn

        from .minimal import create_app
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    with _taken(host, port) as door, closing(open_answerer(ref, engine=engine)) as answerer:
        name = _name(answerer.name)
        where = f"http://{'[::1]' if host == '::1' else host}:{door.getsockname()[1]}/v1"
        tell.note(f"{name} answers at {where} (stop with Ctrl-C).")
        config = uvicorn.Config(create_app(answerer, model=name, queue=queue), log_level="warning", access_log=False,
                                    server_header=False, timeout_graceful_shutdown=30)  # fmt: skip
        uvicorn.Server(config).run(sockets=[door])


def _taken(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(
            f"Port {port} of {host} cannot be had: {error.strerror}.", "Choose another with --port."
        ) from None


def _name(name: str) -> str:
    """What clients call the model: a file's or folder's own name, without where it lies."""
    return Path(name).name.removesuffix(".gguf") if "/" in name else name.removesuffix(".gguf")
