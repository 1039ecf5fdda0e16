"""Cold start: how long the first words take. `python benchmarks/cold_start.py [--rounds 11]`

Goals: `genwright --help` under 0.3 s, `genwright recipe check` under 0.5 s (medians, whole process).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "text" / "aws_assistant.yaml"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "genwright --help": ["-m", "genwright", "--help"],
    "genwright tune --help": ["-m", "genwright", "tune", "--help"],
    "genwright recipe check": ["-m", "genwright", "recipe", "check", str(RECIPE)],
    "genwright models list": ["-m", "genwright", "models", "list"],
    "import genwright": ["-c", "import genwright"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(args.rounds + 1):  # the first round warms the file cache and is left out
        for name, words in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {args.rounds} rounds")
    result = {}
    for name, times in seconds.items():
        low, middle, high = min(times[1:]), statistics.median(times[1:]), max(times[1:])
        result[name] = {"min": low, "median": middle, "max": high}
        print(f"{name:26} {low:.3f} {middle:.3f} {high:.3f} s (min, median, max)")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
