"""The process that brings an adapter into GGUF: `python -m genwright.server.convert ADAPTER BASE FILE`.

In a process of its own, for it loads torch. What is wrong stands in its last line, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from genwright.core import GenwrightError, ModelError, UsageError


async def to_gguf(adapter: Path, base: str, path: Path) -> None:
    """`adapter` (a PEFT folder or a GGUF file) as a GGUF adapter at `path`, written whole or not at all.

    Raises ModelError and UsageError as `verbs.export.adapter_to_gguf` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "genwright.server.convert", str(adapter), base, str(partial),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        said = (await process.communicate())[0].splitlines()
        if process.returncode == 0:
            partial.replace(path)
            return
        told = json.loads(said[-1]) if said else {"error": "ModelError", "message": "It could not be converted."}
    finally:
        if process.returncode is None:
            process.kill()
        partial.unlink(missing_ok=True)
    kind = UsageError if told["error"] == "UsageError" else ModelError
    raise kind(told["message"], told.get("hint", ""))


def main(adapter: str, base: str, path: str) -> int:
    """Write the adapter in GGUF; what went wrong goes to standard output as JSON. Returns the exit code."""
    from genwright.verbs.export import adapter_to_gguf

    try:
        adapter_to_gguf(Path(adapter), base, Path(path))
    except GenwrightError as error:
        print(json.dumps(error.as_dict()))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
