"""One whole server for all tests of what is said: it takes seconds to make and milliseconds to ask. It ends with this
folder, for the home that it sets would else be that of all tests after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .parlour import Parlour, client, parlour_in


@pytest.fixture(scope="package")
def whole_parlour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parlour]:
    with parlour_in(tmp_path_factory.mktemp("parlour")) as parlour:
        yield parlour


@pytest.fixture
def parlour(whole_parlour: Parlour) -> Parlour:
    """The server, its upstream saying "Hello." again."""
    whole_parlour.script.says("Hel", "lo.")
    return whole_parlour


@pytest.fixture
def talk(parlour: Parlour) -> Iterator[Any]:
    """The official client to it."""
    with client(parlour.address) as made:
        yield made


@pytest.fixture
def lenient(parlour: Parlour) -> Iterator[Any]:
    """The client without strict mode: its type has no place for the null that streamed choices have by OpenAI's own
    description (`finish_reason`), and a value there would end the stream for those who read it."""
    with client(parlour.address, _strict_response_validation=False) as made:
        yield made
