"""Keys: who may come in. A key is 256 random bits, shown once; only its HMAC-SHA256 under the server's secret is kept.

The secret lies in a file that only its owner reads, so a stolen database opens nothing. A key found good is believed
for half a second, then looked up again: that is how fast a revoked one stops working.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from genwright.core import UsageError

from .errors import Wrong
from .house import Caller
from .store import Store
from .store.tables import Key
from .wire import new_id

T = TypeVar("T")

ROLES = ("user", "admin", "metrics")
LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_day")
LOOPBACK = ("127.0.0.1", "localhost", "::1")

_PREFIX = "gw-"
_BELIEVED = 0.5  # seconds
_REMEMBERED = 10_000  # keys, and addresses
_WRONG_TRIES = 60  # of one address in a minute, before it has to wait
_HINT = "Make one with `genwright keys create` and send it as `Authorization: Bearer gw-…`."


@dataclass(frozen=True)
class _Known:
    caller: Caller
    hash: str
    expires: float  # seconds since 1970
    read: float  # when it was read from the store, by the monotonic clock


class Keys:
    """`folder` holds the server's secret. `open_door` lets everybody in as `local` until the first key is made; a
    server that others can reach has none."""

    def __init__(
        self, store: Store, folder: Path, *, open_door: bool = True, clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.store, self.open_door, self.clock, self.ticks = store, open_door, clock, ticks
        self.secret = secret_of(folder / "secret")
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by hash
        self._hashes: dict[str, str] = {}  # by key id
        self._any, self._any_read = False, -_BELIEVED
        self._wrong: dict[str, int] = {}  # wrong tries of this minute, by address
        self._minute = 0
        self._looking: dict[str, asyncio.Future[Any]] = {}

    async def authenticate(self, header: str, address: str = "") -> Caller:
        """The caller behind an Authorization or x-api-key header. Raises Wrong (401; 429 after many wrong tries)."""
        if self.open_door and not await self.required():
            return Caller()
        shown = header[7:].strip() if header[:7].lower() == "bearer " else header.strip()
        known = await self._find(Key.hash == (hash := self._hash(shown)), hash) if shown.startswith(_PREFIX) else None
        if known is None or not hmac.compare_digest(known.hash, hash) or self.clock() >= known.expires:
            self._count(address)  # right keys come in from there all the same
            said = "The API key is not known here, expired or revoked." if shown else "An API key is needed here."
            raise Wrong(401, f"{said} {_HINT}", code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return known.caller

    async def is_valid(self, caller: Caller) -> bool:
        """Whether a caller who was let in may stay: cheap enough to be asked every half second of a long answer."""
        if not caller.key_id:
            return True
        known = await self._find(Key.id == caller.key_id, self._hashes.get(caller.key_id, caller.key_id))
        return known is not None and self.clock() < known.expires

    async def required(self) -> bool:
        """Whether there are keys. Once there is one, even a revoked one, nobody comes in without."""
        if not self._any and self.ticks() - self._any_read >= _BELIEVED:
            self._any = await self._once("any", lambda session: session.scalar(select(Key.seq).limit(1)) is not None)
            self._any_read = self.ticks()
        return self._any

    # -- making and ending keys: here and now, for the command line, which does so beside a running server -----------

    def create(
        self, owner: str, *, name: str = "", roles: Iterable[str] = ("user",), limits: Mapping[str, int] | None = None,
        expires_in: float | None = None,
    ) -> tuple[Key, str]:  # fmt: skip
        """A new key and its secret, which nothing here can show again. `expires_in` is in seconds.

        Raises UsageError for an owner, role or limit that cannot be.
        """
        chosen, most = sorted(set(roles)), dict(limits or {})
        _check(owner, chosen, most, expires_in)
        shown, now = _PREFIX + secrets.token_urlsafe(32), int(self.clock())
        key = Key(
            id=new_id("key_"), owner=owner, created=now, name=name, shown=shown[: len(_PREFIX) + 4],
            hash=self._hash(shown), roles=chosen, limits=most,
            expires=None if expires_in is None else now + int(expires_in), revoked=None,
        )  # fmt: skip
        with self.store.begin() as session:
            session.add(key)
        return key, shown

    def listed(self) -> list[Key]:
        """Every key, revoked and expired ones too, in the order of making."""
        with self.store.begin(reading=True) as session:
            return list(session.scalars(select(Key).order_by(Key.seq)))

    def revoke(self, id: str) -> Key:
        """By its id, or by its first characters where only one key begins so. Raises UsageError."""
        with self.store.begin() as session:
            keys = [key for key in session.scalars(select(Key)) if id in (key.id, key.shown)]
            if len(keys) != 1:
                raise UsageError(f"{'Several keys begin' if keys else 'No key is called or begins'} {id!r}.",
                                 "`genwright keys list` shows their ids.")  # fmt: skip
            keys[0].revoked = keys[0].revoked or int(self.clock())
            return keys[0]

    # -- within -----------------------------------------------------------------------------------------------------

    async def _find(self, which: ColumnElement[bool], hash: str) -> _Known | None:
        """A key that is not revoked, from memory while it is believed."""
        known = self._known.get(hash)
        if known is None or self.ticks() - known.read > _BELIEVED:
            known = await self._once(hash, lambda session: self._read(session, which))
            self._known.pop(hash, None)
            if known is not None:
                self._known[known.hash] = known
                self._hashes[known.caller.key_id] = known.hash
        if len(self._known) > _REMEMBERED:
            _, oldest = self._known.popitem(last=False)
            self._hashes.pop(oldest.caller.key_id, None)
        return known

    async def _once(self, what: str, read: Callable[[Session], T]) -> T:
        """One look into the store for all who ask the same at the same moment."""
        looking: asyncio.Future[T] | None = self._looking.get(what)
        if looking is None:
            looking = self._looking[what] = asyncio.ensure_future(self.store.read(read))
            looking.add_done_callback(lambda _: self._looking.pop(what, None))
        return await asyncio.shield(looking)

    def _read(self, session: Session, which: ColumnElement[bool]) -> _Known | None:
        began = self.ticks()
        key = session.scalars(select(Key).where(which, Key.revoked.is_(None))).one_or_none()
        if key is None:
            return None
        caller = Caller(key.owner, key.id, frozenset(key.roles), dict(key.limits))
        return _Known(caller, key.hash, float("inf") if key.expires is None else key.expires, began)

    def _count(self, address: str) -> None:
        """One more wrong try. Raises Wrong (429) when there were many from that address."""
        if self._minute != (minute := int(self.ticks() // 60)) or len(self._wrong) > _REMEMBERED:
            self._minute, self._wrong = minute, {}
        if self._wrong.get(address, 0) >= _WRONG_TRIES:
            raise Wrong(429, "Too many wrong API keys came from this address; wait a minute.", code="too_many_tries",
                        headers={"Retry-After": "60", "x-should-retry": "false"})  # fmt: skip
        self._wrong[address] = self._wrong.get(address, 0) + 1

    def _hash(self, shown: str) -> str:
        return hmac.new(self.secret, shown.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def secret_of(path: Path) -> bytes:
    """The server's secret, made the first time: 32 random bytes that only this user may read.

    Raises UsageError when the file is not what was written: with another secret every key would be wrong.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # whole, and never over another process's
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    found = path.read_bytes()
    if len(found) != 32:
        raise UsageError(f"{path} is not the server's secret any more ({len(found)} bytes instead of 32).",
                         "Restore it from a backup; or remove it, and make all keys anew.")  # fmt: skip
    return found


def _check(owner: str, roles: list[str], limits: dict[str, int], expires_in: float | None) -> None:
    if not owner.strip() or len(owner) > 100:
        raise UsageError("A key needs an owner of at most 100 characters: whose files and jobs it may see.")
    for role in roles or [""]:
        if role not in ROLES:
            raise UsageError(f"There is no role {role!r}.", f"Roles are {', '.join(ROLES)}.")
    for name, most in limits.items():
        if name not in LIMITS or most < 1:
            raise UsageError(f"{name}={most} is no limit.", f"Limits are {', '.join(LIMITS)}, each at least 1.")
    if expires_in is not None and expires_in < 1:
        raise UsageError("A key must live for at least a second.")
