"""The `openai` client for JavaScript: openai.test.mjs, run by Node's own test runner."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from served import Server


def test_the_javascript_client_is_content(server: Server) -> None:
    environment = dict(os.environ) | {"ADDRESS": server.v1, "KEY": server.keys["alice"]}
    command = ["node", "--test", "openai.test.mjs"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "# pass 0" not in done.stdout
