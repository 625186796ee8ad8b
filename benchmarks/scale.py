"""`python -m benchmarks.scale`: time per step and memory as one size grows, beside the law that each should follow.

Four axes: rows of a batch, width of two hidden layers, number of hidden layers, rows of a memory-mapped file that
MLPClassifier.fit is given. Each point is a process of its own. Time's law is the arithmetic at the FMA peak measured in
the same process; memory's law is stated in `Point.law_bytes`. Writes results/scale.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine

HERE = Path(__file__).parent
FLOAT = 4  # bytes: all is float32
MICRO_BATCH_ROWS = 512  # whose activations are kept at once: _trainer.pyx


@dataclass(frozen=True)
class Point:
    """One training run: a size on an axis, layers, batch and rows."""

    axis: str
    size: int
    layer_sizes: tuple[int, ...]
    batch_size: int
    n_rows: int

    @property
    def n_steps(self) -> int:
        return -(-self.n_rows // self.batch_size)

    @property
    def flops(self) -> float:
        """Of a step: 2 B (2 n0 n1 + 3 n1 n2 + ...)."""
        products = [i * o for i, o in pairwise(self.layer_sizes)]
        return 2.0 * min(self.batch_size, self.n_rows) * (3 * sum(products) - products[0])

    @property
    def law_bytes(self) -> float:
        """Parameters, two moments and the caller's copy; a micro-batch's activations and deltas; and for a fit, 8 bytes
        per row for the encoded y and 8 for the order."""
        products = [i * o for i, o in pairwise(self.layer_sizes)]
        units = self.layer_sizes[0] + 2 * sum(self.layer_sizes[1:-1]) + self.layer_sizes[-1]
        micro_batch = min(self.batch_size, self.n_rows, MICRO_BATCH_ROWS)
        rows = 16 * self.n_rows if self.axis == "rows" else 0
        return FLOAT * (4 * sum(products) + micro_batch * units) + rows


def points(quick: bool) -> list[Point]:
    """All axes; `quick` leaves out the sizes that take long."""
    every = [Point("batch", b, (784, 256, 128, 10), b, max(b, 8192)) for b in (1, 8, 64, 128, 512, 4096, 65536)]
    every += [Point("width", w, (64, w, w, 10), 128, 1280) for w in (8, 32, 128, 512, 1024, 2048, 4096, 8192)]
    every += [Point("depth", d, (64, *[128] * d, 10), 128, 12_800) for d in (1, 2, 4, 8, 16, 32)]
    every += [Point("rows", n, (32, 64, 32, 2), 200, n) for n in (10**3, 10**4, 10**5, 10**6, 10**7)]
    return [p for p in every if not quick or (p.flops < 1e10 and p.n_rows <= 10**5)]


def anonymous_bytes() -> int:
    """Memory of this process that is no file's: a memory map's pages are the file's."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


class Peak:
    """The most anonymous memory while the block runs, above what there was before, looked at every few milliseconds."""

    def __enter__(self) -> Peak:
        self.before = self.most = anonymous_bytes()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.ended.wait(0.005):
            self.most = max(self.most, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()
        self.most = max(self.most, anonymous_bytes())

    @property
    def bytes(self) -> int:
        return self.most - self.before


def run(point: Point) -> dict[str, Any]:
    """Seconds per step, peak memory, FMA peak of one point, in this process."""
    from fastmlp import Network, core
    from fastmlp.training.threads import choose_threads

    threads = choose_threads(None, int(point.flops))
    peak = core.peak_gflops(0.2, "float32", threads)
    if point.axis == "rows":
        return {**run_fit(point), "peak": peak, "threads": threads}
    draws = np.random.default_rng(0)
    X = draws.standard_normal((point.n_rows, point.layer_sizes[0]), dtype=np.float32)
    y = draws.integers(0, point.layer_sizes[-1], point.n_rows).astype(np.intp)
    with Peak() as memory:
        network = Network(point.layer_sizes, random_state=draws)
        trainer = core.Trainer(network.plan, "log_loss", "adam", point.batch_size, threads)
        trainer.load(network.parameters)
        rates, times = np.full(point.n_steps, 1e-3), []
        trainer.epoch(X, y, None, None, rates, 0)
        started = time.perf_counter()
        while len(times) < 2 or time.perf_counter() - started < 1:
            begun = time.perf_counter()
            trainer.epoch(X, y, None, None, rates, 0)
            times.append((time.perf_counter() - begun) / point.n_steps)
    return {"seconds": float(np.median(times)), "bytes": memory.bytes, "peak": peak, "threads": threads}


def run_fit(point: Point) -> dict[str, Any]:
    """MLPClassifier.fit of a memory map: seconds of an epoch's step, and of what one fit takes besides its epochs."""
    from fastmlp import MLPClassifier

    with tempfile.TemporaryDirectory() as folder:
        shape = (point.n_rows, point.layer_sizes[0])
        X = np.memmap(Path(folder) / "X", np.float32, "w+", shape=shape)
        draws = np.random.default_rng(0)
        for start in range(0, point.n_rows, 100_000):
            X[start : start + 100_000] = draws.standard_normal(X[start : start + 100_000].shape, dtype=np.float32)
        y = (X[:, 0] > 0).astype(np.int64)
        model = MLPClassifier(
            point.layer_sizes[1:-1], max_iter=3, tol=0, n_iter_no_change=10, batch_size=point.batch_size, random_state=0
        )
        with warnings.catch_warnings(), Peak() as memory:
            warnings.simplefilter("ignore")
            started = time.perf_counter()
            model.fit(X, y)
            wall = time.perf_counter() - started
        epochs = [entry["time"] for entry in model.history_]
        assert len(epochs) == 3
        return {
            "seconds": float(np.median(epochs)) / point.n_steps,
            "bytes": memory.bytes,
            "besides": wall - sum(epochs),
        }


def render(results: list[tuple[Point, dict[str, Any]]]) -> str:
    """Markdown: one table per axis."""
    lines = ["# Scale", ""]
    lines += [f"- {name}: {value}" for name, value in describe_machine().items()]
    for axis in dict.fromkeys(point.axis for point, _ in results):
        lines += ["", f"## {axis}", ""]
        lines.append(
            "| size | layers | batch | threads | us per step | arithmetic at the peak | ratio | MiB | law | ratio | "
            "besides epochs, ms |"
        )
        lines.append("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for point, found in results:
            if point.axis == axis:
                sizes = point.layer_sizes
                layers = (
                    "-".join(map(str, sizes))
                    if len(sizes) < 6
                    else f"{sizes[0]}-{len(sizes) - 2} x {sizes[1]}-{sizes[-1]}"
                )
                arithmetic = point.flops / found["peak"] * 1e-9
                besides = f"{found['besides'] * 1e3:,.1f}" if "besides" in found else ""
                lines.append(
                    f"| {point.size:,} | {layers} | {point.batch_size:,} | {found['threads']} | "
                    f"{found['seconds'] * 1e6:,.4g} | {arithmetic * 1e6:,.4g} | {found['seconds'] / arithmetic:.2f} | "
                    f"{found['bytes'] / 2**20:,.1f} | {point.law_bytes / 2**20:,.1f} | "
                    f"{found['bytes'] / point.law_bytes:.2f} | {besides} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="leave out the sizes that take long")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write into")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        given = json.loads(options.point)
        print(json.dumps(run(Point(**{**given, "layer_sizes": tuple(given["layer_sizes"])}))))
        return
    results = []
    for point in points(options.quick):
        command = [sys.executable, "-m", "benchmarks.scale", "--point", json.dumps(asdict(point))]
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, env=os.environ)
        if done.returncode:
            raise SystemExit(f"{point}: {done.stderr}")
        results.append((point, json.loads(done.stdout)))
        print(point.axis, point.size, results[-1][1], flush=True)
    text = render(results)
    print(f"\n{text}")
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "scale.md").write_text(text)


if __name__ == "__main__":
    main()
