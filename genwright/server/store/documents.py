"""Documents: JSON bodies that are only kept, shown and listed; and how any owned row is found and paged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy import delete as remove
from sqlalchemy.orm import Session

from ..errors import Wrong
from .tables import Document, Owned

R = TypeVar("R", bound=Owned)
_AT_ONCE = 500


def mine(
    session: Session, table: type[R], id: str, owner: str | None, *also: ColumnElement[bool], lock: bool = False
) -> R:
    """The row of that id. Raises Wrong (404) where there is none, or it is somebody else's.

    Only the command line asks for None, which is any owner. `lock` keeps others from changing the row until this
    transaction ends.
    """
    query = select(table).where(table.id == id, *([] if owner is None else [table.owner == owner]), *also)
    row = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise nothing(id)
    return row


def nothing(id: str, what: str = "object") -> Wrong:
    return Wrong(404, f"There is no {what} {id[:200]!r} here.", param="id", code="not_found")


def paged(
    session: Session, table: type[R], owner: str, after: str | None, limit: int, order: str,
    *also: ColumnElement[bool], fits: Callable[[R], bool] | None = None,
) -> list[R]:  # fmt: skip
    """Up to `limit` + 1 rows behind `after` (an id) by the order of making: one more tells that there is more.

    With `fits`, rows are read until there are enough that fit. Raises Wrong (400) when `after` is no row of this
    owner's.
    """
    rows = filter(fits or (lambda row: True), _in_order(session, table, owner, after, order, *also))
    return [row for row, _ in zip(rows, range(limit + 1), strict=False)]


def put(
    session: Session, kind: str, id: str, owner: str, body: dict[str, Any], *, parent: str = "",
    expires: int | None = None,
) -> None:  # fmt: skip
    """Keep `body`, or replace it if there is one of that kind and id. Raises Wrong (404) if that is another owner's."""
    query = select(Document).where(Document.kind == kind, Document.id == id)
    row = session.scalars(query.with_for_update()).one_or_none()
    if row is None:
        session.add(Document(kind=kind, id=id, owner=owner, created=int(time.time()), parent=parent, body=body,
                             expires=expires))  # fmt: skip
    elif row.owner != owner:
        raise nothing(id)
    else:
        row.body, row.expires = body, expires


def get(session: Session, kind: str, id: str, owner: str) -> dict[str, Any]:
    """Raises Wrong (404) where there is none, it has expired, or it is somebody else's."""
    return mine(session, Document, id, owner, Document.kind == kind, _alive()).body


def delete(session: Session, kind: str, id: str, owner: str) -> None:
    """With everything that has it as parent. Raises Wrong (404)."""
    session.delete(mine(session, Document, id, owner, Document.kind == kind))
    forget_children(session, id, owner)


def forget_children(session: Session, parent: str, owner: str) -> None:
    """Remove everything that has it as parent."""
    session.execute(remove(Document).where(Document.parent == parent, Document.owner == owner))


def listed(
    session: Session, kind: str, owner: str, after: str | None = None, limit: int = 20, order: str = "desc",
    where: dict[str, Any] | None = None, *, parent: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Bodies, one more than `limit` when there is more to come.

    `where` compares fields of the body, also within (`{"metadata.topic": "x"}`); it reads rows until it has enough.
    """
    of = [Document.kind == kind, _alive(), *([] if parent is None else [Document.parent == parent])]
    found = []
    for row in _in_order(session, Document, owner, after, order, *of):
        if all(_field(row.body, path) == wanted for path, wanted in (where or {}).items()):
            found.append(row.body)
            if len(found) > limit:
                break
    return found


def kept(session: Session, kind: str, owner: str) -> Iterator[dict[str, Any]]:
    """The bodies of all of a kind, oldest first, read as they are wanted."""
    return (row.body for row in _in_order(session, Document, owner, None, "asc", Document.kind == kind, _alive()))


def _in_order(
    session: Session, table: type[R], owner: str, after: str | None, order: str, *also: ColumnElement[bool]
) -> Iterator[R]:
    down = order == "desc"
    query = select(table).where(table.owner == owner, *also).order_by(table.seq.desc() if down else table.seq)
    seq = None
    if after:
        seq = session.scalar(select(table.seq).where(table.owner == owner, table.id == after, *also))
        if seq is None:
            raise Wrong(400, f"after: there is nothing {after[:200]!r} here.", param="after", code="invalid_value")
    while True:
        behind = query if seq is None else query.where(table.seq < seq if down else table.seq > seq)
        rows = session.scalars(behind.limit(_AT_ONCE)).all()
        yield from rows
        if len(rows) < _AT_ONCE:
            return
        seq = rows[-1].seq


def _alive() -> ColumnElement[bool]:
    return or_(Document.expires.is_(None), Document.expires > time.time())


def _field(body: Any, path: str) -> Any:
    """`metadata.topic` first as a path; a key may hold dots itself, so the rest counts as one key too."""
    head, _, rest = path.partition(".")
    if not isinstance(body, dict):
        return None
    if path in body or not rest:
        return body.get(path)
    return _field(body.get(head), rest)
