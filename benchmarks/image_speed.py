"""How fast are pictures learned and painted here, next to the libraries people use for it, and how well for the time?

    python benchmarks/image_speed.py --rounds 5 --threads 1 --peer-python /tmp/peers/bin/python
    python benchmarks/image_speed.py --only train-ours train-diffusers --json train.json
    python benchmarks/image_speed.py --budget 60          # and what each has learned after 60 processor seconds

Each contender is a process of its own with the same number of pinned threads. It warms up once; then, a round, each
works in turn while the others wait, and ratios are taken within a round, so that what else the machine does hits both
sides. On a busy machine look at the pictures a processor second, with one thread. GFLOP are those of matrix products
and convolutions, counted in the first step; share is of what one product of 2048³ reaches here. Everything is in fp32.

The pictures are drawn: coloured shapes of any place and size, named in words (ours) or by a class number (theirs).
Diffusers' DiT is the equal network: the same width, depth, heads, patches and tokens, a product's work of each block
within 2 %. What differs: it has biases, plain LayerNorm, GELU with an inside of 4 × the width where ours is gated with
8/3 ×, no norm of queries and keys, and a modulation of its own in each block (twice the weights). `ours` is without the
caption's tokens and the seams' convolutions, `shipped` with them. denoising-diffusion-pytorch is another design (a
U-Net of convolutions) of about as many weights.

`tokens`: DALL-E's transformer of the same width, depth, heads and 64 picture tokens draws pictures, which its decoder
paints (ours with finite scalar quantisation, theirs with a discrete VAE; both to tensors in fp32, untrained weights).
dalle-pytorch is asked as it ships, and once more with its `use_cache`. `gan`: a step of both players, at `--gan-size`
pixels; stylegan2-pytorch of the capacity whose products are nearest to ours (GFLOP each, printed), with its gradient
penalty every fourth step where ours has R1 and R2 on a quarter of the rows of each, so four steps are a turn.

Peers go into a virtual environment of their own, which is given a torch that is there already:
    python -m venv /tmp/peers
    python -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])' > \\
        $(echo /tmp/peers/lib/python3*/site-packages)/torch.pth
    /tmp/peers/bin/pip install --no-deps diffusers accelerate torchvision scipy einops ema-pytorch pytorch-fid \\
        denoising-diffusion-pytorch dalle-pytorch stylegan2-pytorch kornia kornia-rs \
        axial-positional-embedding rotary-embedding-torch g-mlp-pytorch "setuptools<66"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PEERS = ("torch", "diffusers", "accelerate", "denoising-diffusion-pytorch", "dalle-pytorch", "stylegan2-pytorch")
SHIPPED = {"text_tokens": 4, "head_channels": 8}
CONTENDERS = {  # name: (interpreter, what it is)
    "train-ours": ("own", "Genwright's DiT in its loop: captions, clip, EMA, log"),
    "train-shipped": ("own", "the same with 4 tokens of the caption and the seams' convolutions"),
    "train-diffusers": ("peer", "diffusers' DiT, its example loop: flow matching, accelerate, clip, EMA"),
    "train-unet": ("peer", "denoising-diffusion-pytorch: U-Net (other design), its trainer's step"),
    "paint-ours": ("own", "Genwright, Euler, no guidance: words to PNG"),
    "paint-int8": ("own", "the same with dtype: int8 (fewer bits: not the equal network)"),
    "paint-diffusers": ("peer", "diffusers' DiT, FlowMatchEulerDiscreteScheduler, no guidance, to PNG"),
    "guided-ours": ("own", "Genwright, Euler, guidance at every step"),
    "guided-interval": ("own", "Genwright, Euler, guidance in the interval it ships with: 13 of 20 steps"),
    "guided-shipped": ("own", "the same with 4 tokens of the caption and the seams' convolutions"),
    "guided-diffusers": ("peer", "diffusers' DiT, Euler, guidance at every step"),
    "paint-unet": ("peer", "denoising-diffusion-pytorch: U-Net, DDIM, as many steps"),
    "tokens-ours": ("own", "Genwright's DALL-E: words to PNG, 64 tokens a picture"),
    "tokens-dalle": ("peer", "dalle-pytorch: generate_images as it ships"),
    "tokens-cached": ("peer", "dalle-pytorch: generate_images(use_cache=True)"),
    "gan-ours": ("own", "Genwright's StyleGAN in its loop: relativistic, R1 and R2, words, EMA"),
    "gan-stylegan2": ("peer", "stylegan2-pytorch: its Trainer's step, hinge, gradient penalty, EMA"),
}
PAIRS = [  # ours, theirs
    ("train-ours", "train-diffusers"), ("train-shipped", "train-diffusers"), ("train-shipped", "train-unet"),
    ("paint-ours", "paint-diffusers"), ("guided-ours", "guided-diffusers"), ("guided-interval", "guided-diffusers"),
    ("guided-shipped", "guided-diffusers"),
    ("paint-int8", "paint-diffusers"), ("paint-ours", "paint-unet"), ("tokens-ours", "tokens-dalle"),
    ("tokens-ours", "tokens-cached"), ("gan-ours", "gan-stylegan2"),
]  # fmt: skip
COLOURS = {"red": (220, 30, 30), "green": (20, 160, 60), "blue": (30, 60, 210), "orange": (250, 150, 20),
           "black": (10, 10, 10), "violet": (140, 40, 190)}  # fmt: skip
SHAPES = ("circle", "square", "bar", "cross", "ring")
KINDS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
TIMES = (0.2, 0.5, 0.8)
PAINTED = 128  # pictures of each model that has learned
RATE, WARMUP, KEEP = 1e-3, 20, 0.999  # learning rate, its first steps, the share that a moving average keeps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer-python", default=sys.executable, help="interpreter that has the peers; this one if not told"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=64, help="pixels of a side")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32, help="pictures a step of training")
    parser.add_argument("--steps", type=int, default=2, help="steps of training a round")
    parser.add_argument("--paint", type=int, default=8, help="pictures painted together")
    parser.add_argument("--paint-steps", type=int, default=20, help="steps from noise to picture")
    parser.add_argument("--gan-size", type=int, default=32, help="pixels of a side of the pictures of `gan`")
    parser.add_argument("--gan-capacity", type=int, default=4, help="network_capacity of stylegan2-pytorch")
    parser.add_argument("--budget", type=float, help="processor seconds of learning; then the held-out error of each")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), help="contenders; all if not told")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, json.loads(args.job.read_text()))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


# ---- the parent: rounds and tables ---------------------------------------------------------------------------------


def compare(args: argparse.Namespace, folder: Path) -> None:
    keys = ("threads", "size", "patch", "width", "depth", "heads", "batch", "steps", "paint", "paint_steps", "budget",
            "gan_size", "gan_capacity")  # fmt: skip
    job = {key: getattr(args, key) for key in keys} | {"folder": str(folder)}
    (folder / "job.json").write_text(json.dumps(job))
    names = args.only or list(CONTENDERS)
    facts: dict[str, Any] = {"command": sys.argv, "job": job, "machine": machine(), "missing": {}}
    print("\n".join(f"{key}: {value}" for key, value in facts["machine"].items()))
    with Child("ceiling", sys.executable, folder) as ceiling:
        facts["ceiling"] = ceiling.first.get("gflops", 0.0)
    print(f"Matrix product of 2048³, {args.threads} threads, fp32: {facts['ceiling']:.0f} GFLOP/s\n", flush=True)
    facts["results"] = {name: [] for name in names}
    for part in dict.fromkeys(name.split("-")[0] for name in names):
        some = [name for name in names if name.split("-")[0] == part]
        play(some, args, folder, facts)
    report(facts)
    if args.budget:
        facts["learned"] = learned([name for name in names if name.startswith("train-")], args, folder, facts)
    if args.json:
        args.json.write_text(json.dumps(facts, indent=1))


def play(names: list[str], args: argparse.Namespace, folder: Path, facts: dict[str, Any]) -> None:
    """All of one kind are started and warmed up, then each has its turn in every round, the first one another time."""
    here: dict[str, Child] = {}
    try:
        for name in names:
            one = Child(name, args.peer_python if CONTENDERS[name][0] == "peer" else sys.executable, folder)
            if "error" in one.first:
                facts["missing"][name] = one.first["error"]
                print(f"  {name}: not measured: {one.first['error']}", flush=True)
                one.close()
            else:
                here[name] = one
        order = list(here)
        for number in range(args.rounds):
            for name in order[number % len(order) :] + order[: number % len(order)] if order else []:
                found = here[name].turn()
                facts["results"][name].append(here[name].first | found)
                print(
                    f"  round {number + 1} {name:17} {found['per_s']:7.2f} pictures/s"
                    f" {found['per_cpu_s']:7.2f} a processor second", flush=True,
                )  # fmt: skip
    finally:
        for one in here.values():
            one.close()


def learned(names: list[str], args: argparse.Namespace, folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """What each has learned within the budget: the error of the clean picture that it tells, on held-out pictures."""
    print(
        f"\nHeld-out error after {args.budget:g} processor seconds of learning, and KID-effnetlite0 × 1000 of {PAINTED}"
    )
    print(f"pictures ({args.paint_steps} steps, no guidance); the rate of both DiT is {RATE:g}")
    print(f"  {'':17} {'steps':>6} {'pictures':>9} {'CPU s':>6}" + "".join(f"   t={t}" for t in TIMES) + "      KID")
    found: dict[str, Any] = {}
    true = true_pictures(args.size, folder)
    print(f"  {'true pictures':17}{'':47} {kid(true[:PAINTED], true[PAINTED:]):8.1f}")
    for name in names:
        if name in facts["missing"]:
            continue
        with Child(
            f"learn-{name}", args.peer_python if CONTENDERS[name][0] == "peer" else sys.executable, folder
        ) as one:
            found[name] = one.first
        if "error" in one.first:
            print(f"  {name:17} not measured: {one.first['error']}")
            continue
        errors = "".join(f" {one.first[f't={t}']:7.4f}" for t in TIMES)
        found[name]["kid"] = kid([folder / path for path in one.first["painted"]], true[PAINTED:])
        print(
            f"  {name:17} {one.first['steps']:6} {one.first['pictures']:9} {one.first['cpu_s']:6.0f}{errors}"
            f" {found[name]['kid']:8.1f}", flush=True,
        )  # fmt: skip
    return found


def true_pictures(size: int, folder: Path) -> list[Path]:
    """As many true pictures as a model paints, and 512 others to compare with."""
    from PIL import Image

    pictures, _ = drawn(size, PAINTED + 512, 4)
    paths = [folder / f"true-{number}.png" for number in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def kid(some: list[Path], true: list[Path]) -> float:
    """The distance that the product's metric tells, without its interval."""
    from genwright.judging.mmd import mmd, polynomial
    from genwright.nn.picture_features import features, seen_at

    side = seen_at(64)
    return 1000 * mmd(features(some, side), features(true, side), polynomial)[0]


class Child:
    """A process that says what it is when it is ready (`first`), and then works for one round a `turn`."""

    def __init__(self, name: str, python: str, folder: Path):
        job = json.loads((folder / "job.json").read_text())
        env = os.environ | {
            k: str(job["threads"]) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        }
        env |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        self.errors = (folder / f"{name}.err").open("w+")
        self.process = subprocess.Popen(
            [python, __file__, "--child", name, "--job", str(folder / "job.json")], env=env, cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self.first = self._read()

    def turn(self) -> dict[str, Any]:
        print("go", file=self.process.stdin, flush=True)
        found = self._read()
        if "error" in found:
            raise SystemExit(found["error"])
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.errors.seek(0)
        return {"error": (self.errors.read().strip().splitlines() or ["no output"])[-1][:300]}


def machine() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    about = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    about = {key.strip(): value.strip() for key, value in about.items()}
    flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in about.get("flags", "").split()]
    found = {"processor": f"{about.get('model name', platform.processor())}, {os.cpu_count()} cores, {' '.join(flags)}"}
    try:
        found["genwright, torch"] = f"{version('genwright')}, {version('torch')}"
    except PackageNotFoundError:
        found["torch"] = version("torch")
    return found | {"python": platform.python_version()}


def report(facts: dict[str, Any]) -> None:
    results = {name: rows for name, rows in facts["results"].items() if rows}

    def middle(name: str, key: str) -> float:
        return statistics.median(row[key] for row in results[name])

    print("\nMedians\n")
    print(f"{'':17} {'pictures/s':>10} {'a CPU s':>8} {'GFLOP each':>10} {'share':>6} {'M weights':>9} {'RSS GB':>7}")
    for name, rows in results.items():
        share = middle(name, "per_cpu_s") * rows[0]["gflop"] / facts["ceiling"]
        print(
            f"{name:17} {middle(name, 'per_s'):10.2f} {middle(name, 'per_cpu_s'):8.2f} {rows[0]['gflop']:10.3f}"
            f" {share:6.0%} {rows[0]['parameters'] / 1e6:9.2f} {middle(name, 'peak_gb'):7.2f}  {CONTENDERS[name][1]}"
        )
    print(f"\nours ÷ theirs, within a round\n  {'':34} a second: min  median     max   a processor second: median")
    facts["ratios"] = {}
    for ours, theirs in PAIRS:
        if ours in results and theirs in results:
            pairs = list(zip(results[ours], results[theirs], strict=True))
            each, used = ([a[key] / b[key] for a, b in pairs] for key in ("per_s", "per_cpu_s"))
            facts["ratios"][f"{ours} ÷ {theirs}"] = {"per_s": each, "per_cpu_s": used}
            print(
                f"  {ours + ' ÷ ' + theirs:34} {min(each):13.2f} {statistics.median(each):7.2f} {max(each):7.2f}"
                f" {statistics.median(used):28.2f}"
            )
    for name, rows in results.items():
        if rows[0].get("note"):
            print(f"\n{name}: {rows[0]['note']}")
    for name, reason in facts["missing"].items():
        print(f"\nNot measured: {name}: {reason}")


# ---- the child: what every contender shares ------------------------------------------------------------------------


def child(name: str, job: dict[str, Any]) -> None:
    out, sys.stdout = sys.stdout, sys.stderr  # libraries may print what they like
    import torch

    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    declare_vision()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

    def say(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=out, flush=True)

    if name == "ceiling":
        say({"gflops": ceiling()})
    elif name.startswith("learn-"):
        say(LEARN[name.removeprefix("learn-train-")](job, name.removeprefix("learn-")))
    else:
        kind, who = name.split("-")
        WORK[kind, who](job, name, Turns({"train": job["steps"], "gan": 4}.get(kind, 1), say))


class Turns:
    """Between `begin` and each `done`, a step. The first counts what it multiplies, the second warms up; then `each`
    steps are measured whenever the parent says so."""

    def __init__(self, each: int, say: Callable[[dict[str, Any]], None]):
        from torch.utils.flop_counter import FlopCounterMode

        self.each, self.say, self.steps, self.parameters, self.note = each, say, 0, 0, ""
        self.counter = FlopCounterMode(display=False, custom_mapping=_attention())
        self.counter.mod_tracker = Whole()  # whose product it is needs hooks, which penalties of gradients do not bear

    def begin(self, module: Any) -> None:
        self.parameters = sum(p.numel() for p in module.parameters())
        self.counter.__enter__()

    def done(self, pictures: int) -> None:
        self.steps += 1
        if self.steps == 1:
            self.counter.__exit__(None, None, None)
            self.gflop = self.counter.get_total_flops() / pictures / 1e9
            return
        if self.steps == 2:
            self.say({"gflop": self.gflop, "parameters": self.parameters, "note": self.note})
        elif (self.steps - 2) % self.each == 0:
            seconds, used = time.perf_counter() - self.began, time.process_time() - self.used
            count = pictures * self.each
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            self.say({"per_s": count / seconds, "per_cpu_s": count / used, "seconds": seconds, "peak_gb": peak})
        else:
            return
        if sys.stdin.readline() != "go\n":
            os._exit(0)
        self.began, self.used = time.perf_counter(), time.process_time()


class Whole:
    """In place of torch's tracker of modules: everything belongs to one."""

    parents = frozenset(["Global"])

    def __enter__(self) -> Whole:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _attention() -> dict[Any, Any]:
    """torch counts attention on a CPU as nothing; these are its products, forward 2 and backward 5."""
    import torch

    def count(products: int) -> Callable[..., int]:
        def flops(*shapes: Any, **_: Any) -> int:
            b, h, t, size = shapes[0] if len(shapes[0]) == 4 else shapes[1]
            return products * 2 * b * h * t * t * size

        return flops

    ops = torch.ops.aten
    return {
        ops._scaled_dot_product_flash_attention_for_cpu: count(2),
        ops._scaled_dot_product_flash_attention_for_cpu_backward: count(5),
    }


def ceiling() -> float:
    """Best speed of a matrix product of 2048³, fp32, GFLOP/s."""
    import torch

    a, times = torch.randn(2048, 2048), []
    for _ in range(10):
        start = time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
        a @ a
        times.append((time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()) - start)
    return 2 * 2048**3 / min(times) / 1e9


def drawn(size: int, count: int, seed: int) -> tuple[Any, list[int]]:
    """(count, size, size, 3) uint8 and which of KINDS each is: a shape of any place and size on white."""
    import numpy as np

    chance = np.random.default_rng(seed)
    pictures, kinds = np.empty((count, size, size, 3), np.uint8), []
    for picture in pictures:
        kind = int(chance.integers(len(KINDS)))
        (colour, shape), half = KINDS[kind], size * chance.uniform(0.18, 0.38)
        middle = chance.uniform(half, size - half, 2)
        y, x = np.mgrid[:size, :size] + 0.5 - middle[:, None, None]
        wide, high = abs(x), abs(y)
        far = {"circle": np.hypot(x, y), "ring": np.hypot(x, y), "square": np.maximum(wide, high),
               "bar": np.maximum(wide, 3 * high),
               "cross": np.minimum(np.maximum(wide, 3 * high), np.maximum(high, 3 * wide))}[shape]  # fmt: skip
        there = np.clip(half - far + 0.5, 0, 1) * (np.clip(far - 0.55 * half + 0.5, 0, 1) if shape == "ring" else 1)
        picture[:] = np.round(255 + there[..., None] * (np.array(COLOURS[colour]) - 255))
        kinds.append(kind)
    return pictures, kinds


def batches(job: dict[str, Any], seed: int = 1) -> Iterator[tuple[Any, Any]]:
    """Without end: pictures (B, 3, S, S) from -1 to 1, and the numbers of their kinds (B,)."""
    import torch

    pictures, kinds = drawn(job["size"], 2048, seed)
    pixels, numbers = torch.from_numpy(pictures), torch.tensor(kinds)
    while True:
        for some in torch.randperm(len(pixels)).split(job["batch"]):
            if len(some) == job["batch"]:
                yield pixels[some].permute(0, 3, 1, 2).float().div(127.5).sub(1), numbers[some]


def held_out(job: dict[str, Any]) -> tuple[Any, Any, Any]:
    """128 pictures (B, 3, S, S) that nobody learned, their kinds, and the noise that all are asked with."""
    import torch

    pixels, kinds = next(batches(job | {"batch": 128}, seed=2))
    return pixels, kinds, torch.randn(pixels.shape, generator=torch.Generator().manual_seed(3))


def errors_of(clean: Callable[[Any, float, Any], Any], job: dict[str, Any]) -> dict[str, float]:
    """Mean square error of `clean(z, t, kinds)`, the picture told of (1 - t) x + t e, at TIMES."""
    import torch

    x, kinds, noise = held_out(job)
    with torch.no_grad():
        return {f"t={t}": float((clean((1 - t) * x + t * noise, t, kinds) - x).square().mean()) for t in TIMES}


def flowing(clean: Callable[[Any, float, Any], Any], job: dict[str, Any]) -> Any:
    """PAINTED pictures (B, 3, S, S) of kinds in turn: Euler along the velocity that follows from `clean`."""
    import torch

    count, steps = PAINTED, job["paint_steps"]
    z = torch.randn(count, 3, job["size"], job["size"], generator=torch.Generator().manual_seed(5))
    kinds = torch.arange(count) % len(KINDS)
    with torch.no_grad():
        for step in range(steps, 0, -1):
            t = step / steps
            z = z + (clean(z, t, kinds) - z) / step  # (x - z) / t over a time of 1 / steps
    return z


def painted(pictures: Any, job: dict[str, Any], name: str) -> list[str]:
    """Files of pictures (B, 3, S, S) from -1 to 1."""
    from PIL import Image

    pixels = (pictures.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    names = [f"{name}-{number}.png" for number in range(len(pixels))]
    for file, one in zip(names, pixels, strict=True):
        Image.fromarray(one).save(Path(job["folder"], file))
    return names


def spent(steps: Iterator[Any], budget: float) -> tuple[Any, int, float]:
    """What the last step within the budget gave, how many there were, and the processor seconds that they took."""
    began = time.process_time()
    for count, one in enumerate(steps, 1):
        used = time.process_time() - began
        if used >= budget:
            return one, count, used
    raise AssertionError("steps have no end")


# ---- ours ----------------------------------------------------------------------------------------------------------


def our_model(job: dict[str, Any], *, shipped: bool) -> Any:
    from genwright.nn.flow import FlowImage
    from genwright.nn.flow_options import FlowConfig

    shape = {key: job[key] for key in ("size", "patch", "width", "depth", "heads")}
    more = SHIPPED if shipped else {"text_tokens": 0, "head_channels": 0}
    return FlowImage(FlowConfig(**shape, text_encoder="learned", **more))


def caption(kind: int) -> str:
    return "a {} {}".format(*KINDS[kind])


def our_rows(job: dict[str, Any], count: int) -> list[Any]:
    from PIL import Image

    from genwright.core import Example, Part, assistant, user

    folder, found = Path(job["folder"], "pictures"), []
    folder.mkdir(exist_ok=True)
    for number, (picture, kind) in enumerate(zip(*drawn(job["size"], count, 1), strict=True)):
        path = folder / f"{number}.png"
        if not path.exists():
            Image.fromarray(picture).save(path)
        found.append(Example((user(caption(kind)), assistant(Part("image", path=path)))))
    return found


def our_fit(job: dict[str, Any], learner: Any, rows: list[Any], steps: int, log: Callable[..., None]) -> None:
    """The product's own loop and objective."""
    from genwright.core import Dataset, choose
    from genwright.core.recipe import Train
    from genwright.nn.loop import fit

    settings = Train(
        rows_per_batch=job["batch"], tokens_per_pass=job["batch"] * (job["size"] // job["patch"]) ** 2,
        learning_rate=RATE, betas=(0.9, 0.95), weight_decay=0.01, warmup=WARMUP, schedule="constant", max_steps=steps,
        epochs=10_000, ema=KEEP, dtype="float32", threads=job["threads"], checkpoint_every=10**6,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        fit(learner, Dataset(rows), Dataset(), objective=choose("objectives", "flow"), settings=settings, seed=3,
            folder=Path(folder), log=log)  # fmt: skip


def train_ours(job: dict[str, Any], name: str, turns: Turns) -> None:
    learner = our_model(job, shipped="shipped" in name)

    def log(event: str, **facts: Any) -> None:
        if event == "tune.start":
            turns.begin(learner.module)
        if event == "step":
            turns.done(job["batch"])

    our_fit(job, learner, our_rows(job, 512), 10**6, log)


def paint_ours(job: dict[str, Any], name: str, turns: Turns) -> None:
    import torch

    from genwright.core import Request, user

    learner = our_model(job, shipped="shipped" in name)
    options: dict[str, Any] = {"n": job["paint"], "steps": job["paint_steps"], "sampler": "euler", "snap": 0}
    options |= {"guidance": 1.0} if name.startswith("paint") else {"guidance": 3.0}
    options |= {"interval": (0.0, 1.0)} if name == "guided-ours" else {}
    turns.begin(learner.module)
    while True:
        request = Request(messages=(user(caption(0)),), seed=1, options=options, out=Path(job["folder"], "ours.png"))
        made = [part for part in learner.generate(request) if part.path]
        assert len(made) == job["paint"]
        turns.done(len(made))
        if name == "paint-int8":  # the first time it counted in float32: products of whole numbers are not counted
            learner.dtype, learner._cast = torch.int8, learner._cast if learner.dtype == torch.int8 else None


def learn_ours(job: dict[str, Any], name: str) -> dict[str, Any]:
    """A few steps tell how many fit into the budget; then a model learns as long, with the average of its weights."""
    import torch

    rows, when = our_rows(job, 2048), []
    our_fit(job, our_model(job, shipped="shipped" in name), rows, 7, lambda *_, **__: when.append(time.process_time()))
    steps = max(1, round(job["budget"] / statistics.median(b - a for a, b in zip(when[-6:], when[-5:], strict=False))))
    learner, times = our_model(job, shipped="shipped" in name), []

    def log(event: str, **_: Any) -> None:
        if event in ("tune.start", "step"):
            times.append(time.process_time())

    our_fit(job, learner, rows, steps, log)

    def clean(z: Any, t: float, kinds: Any) -> Any:
        words = torch.from_numpy(learner.reader([caption(int(kind)) for kind in kinds]))
        with learner.answering() as module:
            told = module.condition(words, torch.zeros(len(z), dtype=torch.bool), torch.zeros(len(z), dtype=torch.long))
            return module(z, z.new_full((len(z),), t), told)

    used = {"steps": steps, "pictures": steps * job["batch"], "cpu_s": times[-1] - times[0]}
    return used | errors_of(clean, job) | {"painted": painted(flowing(clean, job), job, name)}


# ---- diffusers -----------------------------------------------------------------------------------------------------


def their_dit(job: dict[str, Any]) -> Any:
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(
        num_attention_heads=job["heads"], attention_head_dim=job["width"] // job["heads"], in_channels=3,
        out_channels=3, num_layers=job["depth"], sample_size=job["size"], patch_size=job["patch"],
        num_embeds_ada_norm=len(KINDS),
    )  # fmt: skip


def diffusers_steps(job: dict[str, Any], model: Any) -> Iterator[Any]:
    """The inner loop of diffusers' examples (train_dreambooth_sd3.py: flow matching, logit-normal times), without its
    text encoders and autoencoder, with EMAModel as in train_unconditional.py. Yields the average after each step."""
    import torch
    from accelerate import Accelerator
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import (
        EMAModel,
        compute_density_for_timestep_sampling,
        compute_loss_weighting_for_sd3,
    )

    accelerator, scheduler = Accelerator(cpu=True), FlowMatchEulerDiscreteScheduler()
    average = EMAModel(model.parameters(), decay=KEEP, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.01)
    warmup = get_scheduler("constant_with_warmup", optimizer=optimizer, num_warmup_steps=WARMUP)
    model, optimizer, warmup = accelerator.prepare(model, optimizer, warmup)
    model.train()
    for x, kinds in batches(job):
        with accelerator.accumulate(model):
            noise = torch.randn_like(x)
            u = compute_density_for_timestep_sampling("logit_normal", len(x), logit_mean=1.1, logit_std=1.3)
            indices = (u * scheduler.config.num_train_timesteps).long()
            times = scheduler.timesteps[indices]
            sigmas = scheduler.sigmas[indices].view(-1, 1, 1, 1)
            told = model(hidden_states=(1.0 - sigmas) * x + sigmas * noise, timestep=times, class_labels=kinds,
                         return_dict=False)[0]  # fmt: skip
            weighting = compute_loss_weighting_for_sd3("logit_normal", sigmas)
            loss = (weighting * (told.float() - (noise - x).float()) ** 2).reshape(len(x), -1).mean(1).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            warmup.step()
            optimizer.zero_grad()
        average.step(model.parameters())
        loss.detach().item()
        yield average


def train_diffusers(job: dict[str, Any], name: str, turns: Turns) -> None:
    model = their_dit(job)
    turns.begin(model)
    for _ in diffusers_steps(job, model):
        turns.done(job["batch"])


def paint_diffusers(job: dict[str, Any], name: str, turns: Turns) -> None:
    """The loop of StableDiffusion3Pipeline on the DiT: its scheduler, its guidance, its pictures; no pipeline of
    diffusers joins this network with this scheduler, and none paints without an autoencoder."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.image_processor import VaeImageProcessor

    model, scheduler, processor = their_dit(job).eval(), FlowMatchEulerDiscreteScheduler(), VaeImageProcessor()
    guided, count = name.startswith("guided"), job["paint"]
    labels = torch.tensor([0] * count + [len(KINDS)] * (count if guided else 0))
    turns.begin(model)
    while True:
        with torch.no_grad():
            scheduler.set_timesteps(job["paint_steps"])
            seeds = [torch.Generator().manual_seed(number) for number in range(count)]
            latents = torch.cat([torch.randn(1, 3, job["size"], job["size"], generator=one) for one in seeds])
            for t in scheduler.timesteps:
                given = torch.cat([latents] * 2) if guided else latents
                told = model(
                    hidden_states=given, timestep=t.expand(len(given)), class_labels=labels, return_dict=False
                )[0]
                if guided:
                    with_label, without = told.chunk(2)
                    told = without + 3.0 * (with_label - without)
                latents = scheduler.step(told, t, latents, return_dict=False)[0]
        for number, picture in enumerate(processor.postprocess(latents, output_type="pil")):
            picture.save(Path(job["folder"], f"theirs-{number}.png"))
        turns.done(count)


def learn_diffusers(job: dict[str, Any], name: str) -> dict[str, Any]:
    model = their_dit(job)
    average, steps, used = spent(diffusers_steps(job, model), job["budget"])
    average.copy_to(model.parameters())
    model.eval()

    def clean(z: Any, t: float, kinds: Any) -> Any:
        velocity = model(
            hidden_states=z, timestep=z.new_full((len(z),), 1000 * t), class_labels=kinds, return_dict=False
        )[0]
        return z - t * velocity

    found = {"steps": steps, "pictures": steps * job["batch"], "cpu_s": used} | errors_of(clean, job)
    return found | {"painted": painted(flowing(clean, job), job, name)}


# ---- denoising-diffusion-pytorch -----------------------------------------------------------------------------------


def their_unet(job: dict[str, Any]) -> Any:
    """A U-Net of about as many weights as the DiT, and its diffusion."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    network = Unet(dim=max(8, job["width"] * 7 // 64 // 4 * 8), dim_mults=(1, 2, 4))
    return GaussianDiffusion(network, image_size=job["size"], sampling_timesteps=job["paint_steps"])


def unet_steps(job: dict[str, Any], diffusion: Any) -> Iterator[Any]:
    """What its Trainer does a step: loss of pictures from 0 to 1, clipped, Adam, EMA every tenth."""
    import torch
    from accelerate import Accelerator
    from ema_pytorch import EMA

    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)
    model, optimizer = accelerator.prepare(diffusion, optimizer)
    for x, _ in batches(job):
        model.train()
        with accelerator.autocast():
            loss = model(x.add(1).div(2))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        loss.item()
        yield average


def train_unet(job: dict[str, Any], name: str, turns: Turns) -> None:
    diffusion = their_unet(job)
    turns.begin(diffusion)
    for _ in unet_steps(job, diffusion):
        turns.done(job["batch"])


def paint_unet(job: dict[str, Any], name: str, turns: Turns) -> None:
    from torchvision.utils import save_image

    diffusion = their_unet(job).eval()
    turns.begin(diffusion)
    while True:
        for number, picture in enumerate(diffusion.sample(batch_size=job["paint"])):
            save_image(picture, Path(job["folder"], f"unet-{number}.png"))
        turns.done(job["paint"])


def learn_unet(job: dict[str, Any], name: str) -> dict[str, Any]:
    """It is not told what is to be seen, as it ships; its error is that of the time with as much noise."""
    average, steps, used = spent(unet_steps(job, their_unet(job)), job["budget"])
    model = average.ema_model.eval()

    def clean(z: Any, t: float, kinds: Any) -> Any:
        import torch

        share = model.alphas_cumprod  # signal², of z / norm
        norm = (t * t + (1 - t) * (1 - t)) ** 0.5
        at = int((share - ((1 - t) / norm) ** 2).abs().argmin())
        found = model.model_predictions(z / norm, torch.full((len(z),), at), clip_x_start=True)
        return found.pred_x_start

    found = {"steps": steps, "pictures": steps * job["batch"], "cpu_s": used} | errors_of(clean, job)
    return found | {"painted": painted(average.ema_model.sample(batch_size=PAINTED).mul(2).sub(1), job, name)}


# ---- DALL-E --------------------------------------------------------------------------------------------------------


def tokens_ours(job: dict[str, Any], name: str, turns: Turns) -> None:
    from genwright.core import Request, user
    from genwright.nn.dalle import VqImage
    from genwright.nn.dalle_options import DalleConfig

    shape = {key: job[key] for key in ("size", "width", "depth", "heads")}
    learner = VqImage(DalleConfig(**shape, grid=8, text_encoder="learned", text_tokens=4))
    options = {"n": job["paint"], "guidance": 1.0}
    turns.begin(learner.module)
    while True:
        request = Request(messages=(user(caption(0)),), seed=1, options=options, out=Path(job["folder"], "tokens.png"))
        made = [part for part in learner.generate(request) if part.path]
        assert len(made) == job["paint"]
        turns.done(len(made))


def tokens_dalle(job: dict[str, Any], name: str, turns: Turns) -> None:
    """Its own sampler; half of the tokens' choices are cut by default (filter_thres 0.5)."""
    import torch

    absent("youtokentome", "omegaconf", "taming", "taming.models", "taming.models.vqgan")
    from dalle_pytorch import DALLE, DiscreteVAE
    from torchvision.utils import save_image

    vae = DiscreteVAE(image_size=job["size"], num_layers=3, num_tokens=1000, codebook_dim=job["width"], hidden_dim=64)
    model = DALLE(
        dim=job["width"], vae=vae, num_text_tokens=1000, text_seq_len=4, depth=job["depth"], heads=job["heads"],
        dim_head=job["width"] // job["heads"],
    ).eval()  # fmt: skip
    words = torch.ones(job["paint"], 4, dtype=torch.long)
    turns.begin(model)
    while True:
        with torch.no_grad():
            pictures = model.generate_images(words, use_cache="cached" in name)
        for number, picture in enumerate(pictures):
            save_image(picture, Path(job["folder"], f"dalle-{number}.png"))
        turns.done(job["paint"])


# ---- StyleGAN ------------------------------------------------------------------------------------------------------


def gan_ours(job: dict[str, Any], name: str, turns: Turns) -> None:
    from genwright.core import Dataset, choose
    from genwright.core.recipe import Train
    from genwright.nn.loop import fit
    from genwright.nn.style_gan import StyleGan
    from genwright.nn.style_options import StyleConfig

    size = job["gan_size"]
    learner = StyleGan(StyleConfig(size=size, text_encoder="learned"))
    settings = Train(
        optimizer="adam", betas=(0.0, 0.99), learning_rate=1e-3, clip=None, rows_per_batch=job["batch"],
        tokens_per_pass=job["batch"] * size**2 // 64, max_steps=10**6, epochs=10**6, ema=0.995, dtype="float32",
        threads=job["threads"], checkpoint_every=10**6, schedule="constant",
    )  # fmt: skip

    def log(event: str, **facts: Any) -> None:
        if event == "tune.start":
            turns.begin(learner.module)
        if event == "step":
            turns.done(job["batch"])

    with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
        fit(learner, Dataset(our_rows(job, 512)), Dataset(), objective=choose("objectives", "adversarial"),
            settings=settings, seed=3, folder=Path(folder), log=log)  # fmt: skip


def gan_stylegan2(job: dict[str, Any], name: str, turns: Turns) -> None:
    """What its Trainer does a step (hinge loss, gradient penalty every fourth, EMA every tenth after some thousand
    steps: here always), without its files. It asks for CUDA when it is imported, though nothing in it needs one."""
    import torch

    absent("fire", "aim", "vector_quantize_pytorch")
    torch.cuda.is_available, own = lambda: True, torch.cuda.is_available
    for kind in (torch.nn.Module, torch.Tensor):
        kind.cuda = lambda self, *_: self  # type: ignore[assignment, method-assign]
    from stylegan2_pytorch import stylegan2_pytorch as theirs

    torch.cuda.is_available = own
    size = job["gan_size"]
    gan = theirs.StyleGAN2(size, network_capacity=job["gan_capacity"], latent_dim=128)

    def painted(count: int) -> Any:
        style = theirs.mixed_list(count, gan.G.num_layers, gan.G.latent_dim, device="cpu")
        noise = torch.rand(count, size, size, 1)
        return gan.G(theirs.styles_def_to_tensor(theirs.latent_to_w(gan.S, style)), noise)

    def step(number: int, x: Any) -> None:
        gan.D_opt.zero_grad()
        true, made = x.add(1).div(2), painted(len(x)).detach()
        if penalised := number % 4 == 0:
            true.requires_grad_(), made.requires_grad_()
        (said_true, _), (said_made, _) = gan.D_aug(true), gan.D_aug(made)
        loss = theirs.hinge_loss(said_made, said_true)
        if penalised:
            loss = loss + theirs.gradient_penalty(true, said_true) + theirs.gradient_penalty(made, said_made)
        loss.backward()
        gan.D_opt.step()
        gan.G_opt.zero_grad()
        theirs.gen_hinge_loss(gan.D_aug(painted(len(x)))[0], None).backward()
        gan.G_opt.step()
        gan.EMA()

    if crashes(lambda: step(1, next(batches(job | {"size": size}))[0])):
        torch.backends.mkldnn.enabled = False
        turns.note = "without oneDNN, whose grouped convolutions crash here when they go backward"
    turns.begin(torch.nn.ModuleList([gan.S, gan.G, gan.D]))
    for number, (x, _) in enumerate(batches(job | {"size": size})):
        step(number, x)
        turns.done(len(x))


def crashes(work: Callable[[], None]) -> bool:
    """Whether a process that does it dies by a signal."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    work()
    os._exit(0)


def absent(*names: str) -> None:
    """Modules that a peer imports and that are not needed for what is measured: whatever is taken from them is a type
    of no use."""
    from types import ModuleType

    class Absent(ModuleType):
        __path__ = ()

        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for one in names:
        sys.modules[one] = Absent(one)


def declare_vision() -> None:
    """torchvision's wheel from the registry looks for two kernels that a CPU build of torch does not know."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_kept"] = library


WORK: dict[tuple[str, str], Callable[..., None]] = {
    ("train", "ours"): train_ours, ("train", "shipped"): train_ours, ("train", "diffusers"): train_diffusers,
    ("train", "unet"): train_unet, ("paint", "ours"): paint_ours, ("guided", "ours"): paint_ours,
    ("guided", "interval"): paint_ours, ("guided", "shipped"): paint_ours, ("paint", "int8"): paint_ours,
    ("paint", "diffusers"): paint_diffusers,
    ("guided", "diffusers"): paint_diffusers, ("paint", "unet"): paint_unet,
    ("tokens", "ours"): tokens_ours, ("tokens", "dalle"): tokens_dalle, ("tokens", "cached"): tokens_dalle,
    ("gan", "ours"): gan_ours, ("gan", "stylegan2"): gan_stylegan2,
}  # fmt: skip
LEARN: dict[str, Callable[..., dict[str, Any]]] = {
    "ours": learn_ours, "shipped": learn_ours, "diffusers": learn_diffusers, "unet": learn_unet,
}  # fmt: skip


if __name__ == "__main__":
    main()
