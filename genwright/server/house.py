"""The server's household: what `serve` was told, and the parts that the routes reach through it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from starlette.requests import HTTPConnection

from genwright.core import choose
from genwright.core.home import state

if TYPE_CHECKING:
    from .desk import Desk
    from .fleet import Fleet
    from .jobs import Jobs
    from .keys import Keys
    from .limits import Limits
    from .meters import Meters
    from .store import Store
    from .store.blobs import Blobs
    from .store.tables import Job


class Entry(BaseModel):
    """A model to serve: something on this machine (`source`), or one behind another OpenAI-compatible server."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field("", description="What clients call it; the source's own name when empty")
    source: str = Field("", description="A run, card, folder, GGUF file or hf:org/name")
    engine: dict[str, Any] = Field({}, description="{name: …, and its options}, as in a recipe's `model`")
    base_url: str = Field(
        "",
        description="An OpenAI-compatible server that answers instead of this machine; "
        "for pictures with `engine: {name: openai_images}`",
    )
    api_key_env: str = Field("", description="The environment variable that holds that server's key")
    pin: bool = Field(False, description="Never put out of memory")
    keep_alive: float | None = Field(None, ge=0, description="Seconds it stays in memory unused; null is for ever")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given


class Options(BaseModel):
    """What `genwright serve` was told, by flags or a file (`--config serve.yaml`)."""

    model_config = ConfigDict(extra="forbid")

    models: list[Entry] = Field([], description="Models to serve; the first answers for unnamed ones")
    aliases: dict[str, str] = Field({}, description="What clients may say for a model: {gpt-4o-mini: my-model}")
    host: str = Field("127.0.0.1", description="Address to listen on; a public one needs keys")
    port: int = Field(8484, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    hosts: list[str] = Field([], description="Names that may stand in the Host header besides this machine's own")
    origins: list[str] = Field([], description="Origins of web pages that may call (CORS); none by default")
    data: Path = Field(default_factory=lambda: state() / "server", description="Folder of the database and the files")
    database: str = Field("", description="SQLAlchemy URL; SQLite in the data folder when empty")
    queue: int = Field(32, ge=0, description="Requests that may wait; more are answered with 429")
    memory: int | None = Field(None, ge=0, description="Bytes that models may take; null is 70 % of the machine's")
    keep_alive: float | None = Field(None, ge=0, description="Seconds a model stays in memory unused; null is for ever")
    deadline: float = Field(600, gt=0, description="Seconds a request may take")
    drain: float = Field(30, ge=0, description="Seconds that answers under way get when the server is stopped")
    largest_body: int = Field(10_000_000, ge=1, description="Bytes of a request's body; files have their own limit")
    largest_file: int = Field(512_000_000, ge=1, description="Bytes of an uploaded file")
    embedder: str = Field("universal-sentence-encoder", description="Model of /v1/embeddings and vector stores")
    executor: str | dict[str, Any] = Field("local", description="Where it runs: local, or {name: ray, workers: 3}")
    moderators: list[str | dict[str, Any]] = Field(["pii"], description="Guards that /v1/moderations asks")

    @field_validator("executor")
    @classmethod
    def _known(cls, given: Any) -> Any:
        choose("executors", given)
        return given

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.data / 'server.db'}"


@dataclass(frozen=True)
class Caller:
    """Who asks: `owner` is whose things they see, `key_id` is empty where no keys are needed."""

    owner: str = "local"
    key_id: str = ""
    roles: frozenset[str] = frozenset({"user", "admin"})
    limits: dict[str, int] = field(default_factory=dict)  # requests_per_minute, tokens_per_minute, tokens_per_day

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


@dataclass
class House:
    """What there is one of in a server. `state` is "loading", "ready" or "draining"; `why` says more."""

    options: Options
    store: Store
    blobs: Blobs
    keys: Keys
    limits: Limits
    jobs: Jobs
    fleet: Fleet
    desk: Desk
    meters: Meters
    state: str = "loading"
    why: str = ""


def house_of(request: HTTPConnection) -> House:
    house: House = request.app.state.house
    return house


def caller_of(request: HTTPConnection) -> Caller:
    """Raises nothing: whoever is not known did not get this far."""
    caller: Caller = request.state.caller
    return caller


def whose(caller: Caller) -> dict[str, Any]:
    """What a job's payload says of its caller."""
    return {"key_id": caller.key_id, "roles": sorted(caller.roles), "limits": dict(caller.limits)}


def asker(job: Job) -> Caller:
    """The caller in whose name a job works, as its payload says (`whose`)."""
    return Caller(job.owner, job.payload["key_id"], frozenset(job.payload["roles"]), job.payload["limits"])
