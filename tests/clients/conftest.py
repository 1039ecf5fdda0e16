"""One real server for all of other people's clients."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

collect_ignore_glob = [] if find_spec("langchain_tests") else ["*"]  # the product's environment has no such clients
os.environ["LANGSMITH_TRACING"] = "false"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from served import served

    with served(tmp_path_factory.mktemp("house")) as running:
        yield running
