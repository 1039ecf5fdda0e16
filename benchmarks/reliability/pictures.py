"""Pictures that lie (R28): bombs, endless films, damaged files. Prints what each costs and what was said of it.

    python benchmarks/reliability/pictures.py --damaged 2000

Pictures are decoded in the limited process that pictures from strangers go to (`genwright/media/apart.py`). Every case
must be refused by an error of ours (exit 1 otherwise), a bomb within 64 MB of memory of that process. At last: what it
costs. Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

MOST = 64  # MB of memory more than before that a refusal may take


def png(width: int, height: int, *chunks: tuple[bytes, bytes], bits: int = 1) -> bytes:
    """A PNG of zeros, with other chunks before its pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, packed, line = zlib.compressobj(9), [], bytes(width * bits // 8 + 1)
    packed += [packer.compress(line) for _ in range(height)]
    pixels = b"".join([*packed, packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    inside = [(b"IHDR", head), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in inside)


def film(frames: int) -> bytes:
    """A GIF of so many frames of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\x01\0" * frames + b";"


def svg(inside: str) -> bytes:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">{inside}</svg>'.encode()


def nested(link: str) -> bytes:
    groups = "".join(f'<g id="a{i}">{link.replace("#", f"#a{i - 1}") * 10}</g>' for i in range(1, 12))
    return svg(f'<g id="a0"><rect width="1" height="1"/></g>{groups}{link.replace("#", "#a11")}')


BOMBS = {
    "PNG 12,000 × 12,000": lambda: png(12_000, 12_000),
    "PNG 40,000 × 40,000": lambda: png(40_000, 40_000),
    "PNG 2,000,000,000 × 1": lambda: png(2_000_000_000, 1)[:1000],
    "GIF of 10,000 frames": lambda: film(10_000),
    "GIF of 2,000,000 frames": lambda: film(2_000_000),
    "PNG with 30 MB of EXIF and a broken end": lambda: png(9, 9, (b"eXIf", b"\0" * 30_000_000))[:-40],
    "PNG with a packed text of 500 MB": lambda: png(9, 9, (b"zTXt", b"a\0\0" + zlib.compress(bytes(500_000_000), 9))),
    "SVG, <use> of <use>": lambda: nested('<use href="#"/>'),
    "SVG, mask of mask": lambda: nested('<rect width="9" height="9" mask="url(#)"/>'),
    "SVG, entities": lambda: b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + svg("&b;"),
    "SVG, a hundred thousand groups deep": lambda: svg("<g>" * 100_000 + "</g>" * 100_000),
}


def look(path: Path) -> dict[str, object]:
    """Open one bomb in this process, and say what it cost."""
    from genwright.core import GenwrightError
    from genwright.media.apart import open_given

    open_given(png(8, 8)), open_given(svg(""))  # libraries are loaded before anything is measured
    before, began = _memory(), time.perf_counter()
    try:
        open_given(path, drawn=256)
        said = ""
    except GenwrightError as error:
        said = f"{type(error).__name__}: {error.message.replace(str(path), 'it')}"
    return {"said": said, "mb": _memory() - before, "ms": (time.perf_counter() - began) * 1000}


def _memory() -> float:
    """The most memory that the worker had so far, in MB; 0 when it is gone."""
    status = Path(f"/proc/{_worker()}/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else 0.0


def _worker() -> int:
    from genwright.media import apart

    return apart._Worker.one.process.pid if apart._Worker.one else 0


def cost() -> None:
    """CPU milliseconds of a picture, both processes together: decoded here, apart, and only looked at apart."""
    from PIL import Image

    from genwright.media.apart import look_given, open_given
    from genwright.media.picture import open_picture

    print(f"worker: {_memory():.0f} MB at most so far")
    for side, tries in ((64, 1000), (512, 100), (2048, 10)):
        out, took = io.BytesIO(), {}
        Image.effect_noise((side, side), 60).convert("RGB").save(out, "JPEG")
        for name, way in (("here", open_picture), ("apart", open_given), ("looked at apart", look_given)):
            began = _cpu()
            for _ in range(tries):
                way(out.getvalue())
            took[name] = 1000 * (_cpu() - began) / tries
        print(f"JPEG {side} × {side}: " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in took.items()))


def _cpu() -> float:
    """Seconds that this process and the worker have used."""
    used = Path(f"/proc/{_worker()}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


def damaged(count: int, seed: int) -> Counter[str]:
    """Files of every format with some bytes changed or cut off: opened, refused, or (a fault) something else."""
    from PIL import Image

    from genwright.core import GenwrightError
    from genwright.media.apart import open_given

    chance, found, workers = random.Random(seed), Counter[str](), set()
    picture = Image.frombytes("RGB", (64, 64), chance.randbytes(64 * 64 * 3))
    for form in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        out = io.BytesIO()
        picture.save(out, form)
        for number in range(count // 6):
            bad = bytearray(out.getvalue())
            reach = len(bad) if number % 2 else min(400, len(bad))
            for _ in range(chance.randint(1, 6)):
                bad[chance.randrange(reach)] = chance.randrange(256)
            data = bytes(bad[: chance.randrange(len(bad))] if number % 5 == 0 else bad)
            try:
                open_given(data)
                found["opened"] += 1
            except GenwrightError:
                found["refused"] += 1
            except Exception as error:
                found[f"escaped: {type(error).__name__}"] += 1
            workers.add(_worker())
    print(f"{len(workers)} workers for all damaged files")
    return found


def bomb(name: str, folder: Path) -> bool:
    """Open a bomb in a process of its own and print what it cost. Whether it is a fault."""
    path = folder / ("a.svg" if name.startswith("SVG") else "a.png")
    path.write_bytes(BOMBS[name]())
    done = subprocess.run([sys.executable, __file__, "--look", path], capture_output=True, text=True, timeout=300)
    if done.returncode:
        print(f"FAULT  {name}: the process ended with {done.returncode}: {done.stderr[-300:]}")
        return True
    told = json.loads(done.stdout)
    sound = bool(told["said"]) and told["mb"] < MOST
    cost = f"{path.stat().st_size:>12,} bytes  +{told['mb']:5.1f} MB  {told['ms']:7.1f} ms"
    print(f"{'ok   ' if sound else 'FAULT'}  {name:<42}{cost}  {told['said'] or 'was opened'}", flush=True)
    return not sound


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damaged", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.look:
        print(json.dumps(look(asked.look)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        faults = sum(bomb(name, Path(folder)) for name in BOMBS)
    found = damaged(asked.damaged, asked.seed)
    print(f"damaged files: {', '.join(f'{count:,} {what}' for what, count in found.most_common())}")
    faults += sum(count for what, count in found.items() if what.startswith("escaped"))
    cost()
    print(f"{faults} faults")
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())
