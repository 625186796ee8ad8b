"""`python -m benchmarks.table`: run the suite and print one table. Options it does not know go to pytest (-k seed).

case, element type, shape, time, its ratio to NumPy's (below 1: faster than NumPy), GFLOP/s and their share of the FMA
peak that this machine reached in the same run, largest error in its unit and the bound it was held to.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

HERE = Path(__file__).parent
COLUMNS = ("case", "type", "shape", "threads", "time", "of NumPy's", "GFLOP/s", "of peak", "error", "bound", "unit")


def run_suite(options: list[str]) -> list[dict[str, Any]]:
    """The extra_info of every case, in the order they ran; ends the program if one failed."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.json"
        suite = [str(HERE / "bench_kernels.py"), str(HERE / "bench_training.py")]
        quiet = ["-q", "--benchmark-quiet", f"--benchmark-json={results}", "-p", "no:cacheprovider"]
        code = subprocess.run([sys.executable, "-m", "pytest", *suite, *quiet, *options], cwd=HERE.parent).returncode
        if code:
            raise SystemExit(code)
        return [entry["extra_info"] for entry in json.loads(results.read_text())["benchmarks"]]


def in_units(seconds: float) -> str:
    """12.3 us, 4.56 ms."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def cells(info: dict[str, Any]) -> list[str]:
    """A case's line of the table."""
    fast = [f"{info['gflops']:.1f}", f"{info['peak_share']:.0%}"] if "gflops" in info else ["", ""]
    times = [in_units(info["seconds"]), f"{info['ratio']:.3f}"]
    agreement = [f"{info['error']:.2g}", f"{info['bound']:.3g}", info["unit"]]
    return [info["case"], info["dtype"], info["shape"], str(info["threads"]), *times, *fast, *agreement]


def render(rows: list[list[str]]) -> str:
    """Columns of equal width; words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = {COLUMNS.index(name) for name in ("case", "type", "shape", "unit")}
    lines = []
    for row in rows:
        aligned = (
            cell.ljust(w) if i in words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(aligned).rstrip())
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def main(options: list[str]) -> None:
    machine = describe_machine()
    results = run_suite(options)
    print("", *(f"{name}: {value}" for name, value in machine.items()), sep="\n")
    print(f"\n{render([list(COLUMNS), *map(cells, results)])}")


if __name__ == "__main__":
    main(sys.argv[1:])
