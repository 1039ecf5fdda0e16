"""Doctor: what this machine has, and what is missing for what."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, util
from typing import Any

from genwright.core import cards
from genwright.core.home import store

_EXTRAS = {
    "text": ("torch", "transformers", "peft", "tokenizers", "gguf", "llguidance", "xllamacpp", "pyarrow", "sacrebleu"),
    "serve": ("fastapi", "uvicorn"),
    "search": ("optuna",),
}


def examine() -> dict[str, Any]:
    """Checks as rows {what, found, meaning}, and `ok`: whether text can be tuned and answered here."""
    checks = [
        _row("python", platform.python_version(), "3.11 or newer is needed"),
        _row("processor", f"{os.cpu_count()} cores", _processor()),
        _row(
            "memory", f"{_memory() / 1e9:.1f} GB free" if _memory() else "unknown", "a 135M model tunes in about 4 GB"
        ),
        _row("disk", f"{shutil.disk_usage(_existing(store())).free / 1e9:.0f} GB free", f"the store is {store()}"),
        _row("accelerator", _accelerator(), "only makes it faster"),
        _row("C++ compiler", shutil.which("c++") or shutil.which("g++") or "none", "for train.compile only"),
    ]
    missing = []
    for extra, names in _EXTRAS.items():
        for name in names:
            found = metadata.version(name) if util.find_spec(name) else "missing"
            if found == "missing":
                missing.append(name)
            checks.append(_row(name, found, f"pip install 'genwright[{extra}]'" if found == "missing" else extra))
    checks.append(_row("cards", str(len(cards())), "`genwright models list` shows them"))
    return {"ok": not any(name in _EXTRAS["text"] for name in missing), "missing": missing, "checks": checks}


def _row(what: str, found: str, meaning: str) -> dict[str, str]:
    return {"what": what, "found": found, "meaning": meaning}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return platform.machine()
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f" {name}" in flags]
    bf16 = "avx512_bf16" in fast or "amx_bf16" in fast
    return f"{' '.join(fast) or 'no AVX2'}: {'bfloat16' if bf16 else 'float32'} is the faster precision"


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _accelerator() -> str:
    if not util.find_spec("torch"):
        return "unknown without torch"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple GPU" if torch.backends.mps.is_available() else "none"


def _existing(path: Any) -> Any:
    while not path.exists():
        path = path.parent
    return path
