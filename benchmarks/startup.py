"""Start-up: how long `fst --help` and `fst list-plugins` take, beside Python alone and `transformers --help`.

Usage: python benchmarks/startup.py [--repeat 11]

The commands take turns, so that whatever else the machine does meets all of them; the table has the
median of each, and its ratio to `python -c pass` and to `transformers --help`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import click

BIN = Path(sys.executable).parent
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "fst --help": [str(BIN / "fst"), "--help"],
    "fst list-plugins": [str(BIN / "fst"), "list-plugins"],
    "transformers --help": [str(BIN / "transformers"), "--help"],
}


@click.command()
@click.option("--repeat", default=11, show_default=True)
def main(repeat: int) -> None:
    """Measure and print the table."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeat + 1):
        for name, command in COMMANDS.items():
            begun = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if turn:  # the first reads the files from disk
                times[name].append(time.perf_counter() - begun)
    medians = {name: median(values) for name, values in times.items()}
    python, transformers = medians["python -c pass"], medians["transformers --help"]
    print("| command | seconds | to `python -c pass` | to `transformers --help` |")
    print("|---|---|---|---|")
    for name, seconds in medians.items():
        print(
            f"| `{name}` | {seconds:.3f} | {seconds / python:.1f} | {seconds / transformers:.3f} |"
        )


if __name__ == "__main__":
    main()
