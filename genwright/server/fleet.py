"""The fleet: every model that is served, each set of weights in a process of its own, within a budget of memory.

A model is loaded when it is first asked, or at the start when it is pinned or the first of all. When memory is short,
the one that was not used for longest goes, after it has ended what it was doing. A process that dies is started again,
less and less eagerly; whoever waited for it is told so. Models that are adapters of one base share one process, and
when there comes a new one, a new process takes over before the old one ends what it has begun and goes.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from array import array
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from genwright.core import GenwrightError, Message, ModelError, Part, Request, UsageError

from . import memory
from .errors import Wrong
from .house import Caller, Options
from .link import Link, Mailbox
from .orders import Order
from .registry import Registry, Served
from .seats import Seat
from .store import Store

_LOG = logging.getLogger("genwright.server.fleet")
_TICK = 0.5  # seconds between two looks at who may go
_LOOK = 5.0  # seconds between two looks at the memory
_STEADY = 600.0  # seconds after which a process that dies did not die of its start
ADAPTERS = "adapters"  # folder in the data folder for adapters that are loaded while the server runs
_LARGEST_LOG = 10_000_000  # bytes of a worker's log; then it is begun anew


class Fleet:
    """Models by name. `start` before use; `stop` ends all processes."""

    def __init__(self, options: Options, store: Store):
        self.options = options
        self.registry = Registry(options, store)
        self.budget = memory.budget() if options.memory is None else options.memory
        self.seats: dict[str, Seat] = {}
        self.warmed = asyncio.Event()  # what is loaded at the start has been loaded, or has not been to be
        self.troubles: Sequence[tuple[Served, Exception]] = ()
        self._links: set[Link] = set()  # those that run, also while they end what they have begun
        self._loading = asyncio.Lock()  # one load at a time, in the order of asking
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    async def start(self) -> None:
        """Learn from the store what is served, and begin to look after the processes. Loads nothing yet: `warm`."""
        await asyncio.to_thread(self.registry.read)
        self._go(self._look_after())

    async def warm(self) -> None:
        """Load the first model and those that are pinned; `troubles` are those that could not be."""
        wanted = [s for number, s in enumerate(self.registry) if s.pinned or (number == 0 and not s.embeds)]
        found = await asyncio.gather(*(self._ready(served) for served in wanted), return_exceptions=True)
        self.troubles = [(s, error) for s, error in zip(wanted, found, strict=True) if isinstance(error, Exception)]
        self.warmed.set()

    async def stop(self) -> None:
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, *(link.close() for link in list(self._links)), return_exceptions=True)

    # -- which models there are ------------------------------------------------------------------------------------

    def list(self, caller: Caller | None = None) -> Sequence[Served]:
        """Models that the caller may see, in the order in which they are shown."""
        return self.registry.list(caller)

    def find(self, name: str, caller: Caller | None = None) -> Served:
        """By id or alias; no name is the first model. Raises Wrong (404), also for what is somebody else's."""
        return self.registry.find(name, caller)

    async def register(self, served: Served) -> Served:
        """Serve one more model from now on, also after a restart. An adapter is loaded at once.

        Raises Wrong (404) without its parent, (409) when the name is taken, and whatever loading an adapter raises.
        """
        if served.adapter and self.find(served.parent).adapter:
            raise UsageError(f"{served.parent} is an adapter itself.", "Name the model whose weights it changes.")
        before = self.registry.by_id(served.id)
        served = await self.registry.add(served)
        if served.adapter:
            seat = self._seat(served)
            try:  # one that cannot be worn would keep the others from being loaded
                await (self._bring(seat) if before and seat.link else self._ready(served))
            except GenwrightError:
                await (self.registry.add(before) if before else self.remove(served.id))
                raise
            except Wrong as error:
                _LOG.info("%s is loaded later: %s", served.id, error)
        if before and before.adapter != served.adapter:
            self._forget(before)
        return served

    async def remove(self, id: str) -> None:
        """Serve a model no more; what it is answering is ended. Raises Wrong (403, 404, 409)."""
        served = self.find(id)
        seat = self._seat(served)
        await self.registry.remove(served.id)
        self._forget(served)
        if seat.wears and self._voices(seat):
            if seat.link:
                self._go(self._bring(seat))
        elif not any(True for _ in self._members(seat)):
            self.seats.pop(seat.key, None)
            self._go(self._put_out(seat))

    # -- asking them -----------------------------------------------------------------------------------------------

    async def ask(self, name: str, request: Request, *, caller: Caller | None = None) -> AsyncGenerator[Part]:
        """The parts of an answer; closing it cancels the decoding. Raises as `begin` does."""
        box = Mailbox()
        await self.begin(self.find(name, caller), request, box)
        try:
            while (part := await box.get()) is not None:
                yield part
        finally:
            box.cancel()

    async def begin(self, served: Served, asked: Request | Order, box: Mailbox) -> None:
        """Order an answer; its parts arrive in the box. The model's defaults stand for what the request does not set.

        Loads the model if it is not. Raises Wrong (400 for a model that gives something else, 503 …) and what loading
        raises; the box raises the rest.
        """
        seat = self._seat(served)
        seat.check_upstream()
        link = await self._ready(served)
        request = Order.of(asked).made(served.id, link.facts)
        if served.is_elsewhere:
            box.seen = seat.heard
        link.ask(box, _voice(served), request.model_dump(mode="json", exclude_unset=True))

    async def embed(
        self, name: str, texts: Sequence[str], *, caller: Caller | None = None
    ) -> tuple[Sequence[Sequence[float]], int]:
        """A vector of length 1 for each text, and the tokens that were read. Raises Wrong, UsageError."""
        found = await self._call(name, caller, "embed", texts=list(texts))
        flat, width = array("f", base64.b64decode(found["vectors"])), found["width"]
        return [flat[at : at + width].tolist() for at in range(0, len(flat), width)], found["tokens"]

    async def tokenize(
        self, name: str, asked: str | Sequence[Message], *, special: bool = False, caller: Caller | None = None
    ) -> Sequence[int]:
        """Tokens of a text (`special`: with what begins and ends one), or of a conversation as the model sees it."""
        plain = asked if isinstance(asked, str) else [_message(message) for message in asked]
        found: Sequence[int] = await self._call(name, caller, "tokenize", asked=plain, special=special)
        return found

    async def pieces(self, name: str, tokens: Sequence[int], *, caller: Caller | None = None) -> Sequence[str]:
        """What each token says."""
        found: Sequence[str] = await self._call(name, caller, "pieces", tokens=list(tokens))
        return found

    async def detokenize(self, name: str, tokens: Sequence[int], *, caller: Caller | None = None) -> str:
        """The text that tokens stand for."""
        text: str = await self._call(name, caller, "detokenize", tokens=list(tokens))
        return text

    async def tokenizer_info(self, name: str, *, caller: Caller | None = None) -> dict[str, Any]:
        """{"tokenizer_class", "chat_template", "special_tokens"}."""
        found: dict[str, Any] = await self._call(name, caller, "tokenizer")
        return found

    async def score(
        self, name: str, text: str, top: int = 0, *, caller: Caller | None = None
    ) -> Sequence[dict[str, Any]]:
        """How likely each token of a text is behind those before it: {"token", "bytes", "logprob", "top"} each; the
        first has no logprob. Raises UsageError for models that cannot tell, and for those with guards."""
        found: Sequence[dict[str, Any]] = await self._call(name, caller, "score", text=text, top=top)
        return found

    async def ready(self, served: Served) -> dict[str, Any]:
        """Load it if it is not; what is known of it ({"parallel", "context" …}). Raises Wrong, ModelError."""
        return (await self._ready(served)).facts

    def seat_of(self, served: Served) -> str:
        """The same for models that one process answers for."""
        return self._key(served)

    def facts(self, served: Served) -> dict[str, Any]:
        """What was known of it when it was last loaded; empty before."""
        seat = self.seats.get(self._key(served))
        return seat.facts if seat else {}

    def gives(self, served: Served) -> str | None:
        """The modality of its answers: as its process said, or before it was loaded as its recipe says."""
        found = self.facts(served).get("gives") or served.gives
        return str(found) if found else None

    def parallel(self, served: Served) -> int:
        """Answers that it gives at once; 1 as long as nobody knows better."""
        return int(self.facts(served).get("parallel") or served.engine.get("parallel") or 1)

    async def _call(self, name: str, caller: Caller | None, do: str, **order: Any) -> Any:
        served = self.find(name, caller)
        link = await self._ready(served)
        return await link.call(do, voice=_voice(served), **order)

    # -- what the operator may do ------------------------------------------------------------------------------------

    async def load(self, name: str) -> None:
        """Load a model now. Raises what loading it raises."""
        seat = self._seat(self.find(name))
        seat.loads.went_well()  # somebody asks by name: try at once
        seat.crashes.went_well()
        await self._ready(self.find(name))

    async def reload(self, name: str) -> None:
        """Load it anew beside the old one, which goes when it has ended what it began; if that fails it stays."""
        await self._bring(self._seat(self.find(name)))

    async def unload(self, name: str) -> None:
        """Put it out of memory once it has ended what it is doing; it is loaded again when it is asked."""
        await self._put_out(self._seat(self.find(name)))

    async def pin(self, name: str, pinned: bool = True) -> None:
        """Keep it in memory, or no longer."""
        served = await self.registry.pin(self.find(name), pinned)
        if pinned:
            await self._ready(served)

    def keep_alive(self, name: str, seconds: float | None) -> None:
        """How long it stays in memory unused, from now on; None is for ever."""
        self._seat(self.find(name)).keep_alive = float("inf") if seconds is None else seconds

    async def ps(self) -> Sequence[dict[str, Any]]:
        """What is in memory or has tried to be: models, process, bytes, orders under way, since when, and why not."""
        await self._measure()
        return [self._shown(seat) for seat in self.seats.values()]

    def memory(self) -> dict[str, int]:
        """Bytes by model, as last measured."""
        return {seat.name: seat.size for seat in self.seats.values() if seat.link}

    def _shown(self, seat: Seat) -> dict[str, Any]:
        link, keep = seat.link, self._keep(seat)
        left = keep - (time.monotonic() - seat.used) if link and keep != float("inf") else None
        return {"key": seat.key, "name": seat.name, "models": [s.id for s in self.registry if self._key(s) == seat.key],
                "state": "loaded" if link else "loading" if seat.opening else "failed" if seat.error else "unloaded",
                "error": str(seat.error) if seat.error and not link else None,
                "pid": link.pid if link else None, "bytes": seat.size if link else 0,
                "running": link.busy if link else 0, "since": int(link.started) if link else None,
                "expires_in": max(0.0, round(left, 1)) if left is not None else None,
                "pinned": self._pinned(seat), "crashes": seat.crashes.failures,
                **{name: value for name, value in seat.facts.items() if name != "name"}}  # fmt: skip

    # -- seats -----------------------------------------------------------------------------------------------------

    def _key(self, served: Served) -> str:
        base = self.registry.by_id(served.parent) if served.adapter else served
        return f"{'+' if served.adapter else ''}{base.weights if base else served.parent}"

    def _seat(self, served: Served) -> Seat:
        key = self._key(served)
        if key not in self.seats:
            base = self.find(served.parent) if served.adapter else served
            self.seats[key] = Seat(key, base, wears=bool(served.adapter))
        return self.seats[key]

    def _members(self, seat: Seat) -> Iterator[Served]:
        return (served for served in self.registry if self._key(served) == seat.key)

    def _voices(self, seat: Seat) -> dict[str, dict[str, str]]:
        """The adapters that it wears, as far as their files are there."""
        return {s.id: {"path": s.adapter, "run": s.run} for s in self._members(seat) if Path(s.adapter).is_file()}

    def _pinned(self, seat: Seat) -> bool:
        return any(served.pinned for served in self._members(seat))

    def _keep(self, seat: Seat) -> float:
        """Seconds that it stays in memory unused."""
        if seat.keep_alive is not None:
            return seat.keep_alive
        said = [served.keep_alive for served in self._members(seat)]
        return max((float("inf") if keep is None else keep for keep in said), default=0.0)

    async def _ready(self, served: Served) -> Link:
        """The process that answers for a model, started if need be."""
        seat, voice = self._seat(served), _voice(served)
        if served.adapter and not Path(served.adapter).is_file():
            raise ModelError(f"The adapter of {served.id} is gone: {served.adapter}.", "Load it again.")
        while seat.link is None or (voice and voice not in seat.link.voices):
            if seat.link is None and not seat.opening:
                seat.check_patience()
            await self._bring(seat)
        seat.used = time.monotonic()
        return seat.link

    async def _bring(self, seat: Seat) -> None:
        """Start a process for the seat, in place of the one that may be there. Raises what loading raises."""
        if seat.opening is None:
            seat.opening = self._go(self._open(seat))
        await asyncio.shield(seat.opening)

    async def _open(self, seat: Seat) -> None:
        try:
            async with self._loading:
                await self._make_room(seat)
                voices = self._voices(seat) if seat.wears else {}
                link = await Link.open(seat.told(voices), name=seat.name, log=self._log(seat))
        except (GenwrightError, Wrong) as error:
            seat.error = error
            seat.loads.failed()
            _LOG.warning("%s could not be loaded: %s", seat.name, error)
            raise
        finally:
            seat.opening = None
        if self.seats.get(seat.key) is not seat:  # removed meanwhile
            await link.close()
            return
        link.voices = set(voices)
        self._links.add(link)
        link.gone.add_done_callback(lambda _: self._lost(seat, link))
        before, seat.link, seat.error, seat.facts = seat.link, link, None, link.facts
        seat.loads.went_well()
        seat.used = time.monotonic()
        seat.size = await asyncio.to_thread(memory.taken, link.pid)
        if before:
            self._go(_let_go(before))

    def _lost(self, seat: Seat, link: Link) -> None:
        """A process has ended. If nobody wanted that, it is started again."""
        self._links.discard(link)
        if seat.link is not link:
            return
        seat.link = None
        if self._closing:
            return
        if time.time() - link.started > _STEADY:
            seat.crashes.went_well()
        wait = seat.crashes.failed()
        _LOG.error("the process of %s has ended; it is started again in %.0f s", seat.name, wait)
        self._go(self._again(seat, wait))

    async def _again(self, seat: Seat, wait: float) -> None:
        await asyncio.sleep(wait)
        if seat.link is None and self.seats.get(seat.key) is seat:
            with suppress(GenwrightError, Wrong):  # it is logged; the next who asks tries again
                await self._bring(seat)

    async def _put_out(self, seat: Seat) -> None:
        """Out of memory, after it has ended what it is doing."""
        link, seat.link = seat.link, None
        if link:
            await _let_go(link)

    # -- memory ----------------------------------------------------------------------------------------------------

    async def _make_room(self, seat: Seat) -> None:
        """Put out others, longest unused first, idle ones before busy ones, until the seat's model fits.

        Raises Wrong (503) when it cannot.
        """
        need = seat.size or await asyncio.to_thread(memory.likely, seat.served.source)
        if need > self.budget:
            raise _too_large(seat, need, f"models may take {_size(self.budget)}")
        while await self._measure() + need > self.budget:
            others = [s for s in self.seats.values() if s is not seat and s.link and not self._pinned(s)]
            if not others:
                if seat.link:
                    return  # it is to be loaded anew, and nobody else can make room: for a moment it is there twice
                raise _too_large(seat, need, "those in memory are pinned")
            first = min(others, key=lambda s: (s.link.busy > 0 if s.link else False, s.used))
            _LOG.info("%s leaves memory for %s", first.name, seat.name)
            await self._put_out(first)

    async def _shrink(self) -> None:
        """Models grow while they answer: when they take more than they may, the one unused for longest goes."""
        if await self._measure() > self.budget:
            loaded = [s for s in self.seats.values() if s.link]
            idle = [s for s in loaded if s.link and not s.link.busy and not self._pinned(s)]
            if idle and len(loaded) > 1:
                await self._put_out(min(idle, key=lambda s: s.used))

    async def _measure(self) -> int:
        """Bytes that all processes take now."""
        pids = {link: link.pid for link in self._links}
        found = await asyncio.to_thread(lambda: {link: memory.taken(pid) for link, pid in pids.items()})
        for seat in self.seats.values():
            if seat.link in found:
                seat.size = found[seat.link]
        return sum(found.values())

    async def _look_after(self) -> None:
        """Put out what was not used for as long as it may stay, and look at the memory now and then."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            for seat in list(self.seats.values()):
                if seat.link and seat.link.busy:
                    seat.used = now
                elif seat.link and now - seat.used >= self._keep(seat) and not self._pinned(seat):
                    self._go(self._put_out(seat))
            if now - looked > _LOOK:
                looked = now
                await self._shrink()

    def _forget(self, served: Served) -> None:
        """Remove the file of an adapter that was made here for serving it."""
        path = Path(served.adapter)
        if served.adapter and path.parent == self.options.data / ADAPTERS:
            path.unlink(missing_ok=True)

    def _log(self, seat: Seat) -> Path:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in seat.name)
        path = self.options.data / "logs" / f"{name[:100]}.log"
        if path.is_file() and path.stat().st_size > _LARGEST_LOG:
            path.write_bytes(b"")
        return path

    def _go(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that somebody holds on to, and whose error somebody looks at."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        return task


def _voice(served: Served) -> str:
    return served.id if served.adapter else ""


def _message(message: Message) -> dict[str, Any]:
    parts = [{"kind": p.kind, "text": p.text, "path": str(p.path) if p.path else None} for p in message.parts]
    return {"role": message.role, "parts": parts}


async def _let_go(link: Link) -> None:
    await link.idle.wait()
    await link.close()


def _too_large(seat: Seat, need: int, why: str) -> Wrong:
    return Wrong(503, f"{seat.name} takes about {_size(need)} of memory, which is not to be had: {why}.",
                 code="model_too_large", headers={"x-should-retry": "false"})  # fmt: skip


def _size(count: int) -> str:
    return f"{count / 1e9:.2g} GB"
