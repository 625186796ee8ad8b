"""`python -m benchmarks.peers`: fastmlp and the other libraries, in turn, in one run.

Each contender is a process (worker.py) that prepares and warms up, then is measured in turn with the others, A B C A B
C
..., with a pause between them, so that all see the same machine; the FMA peak is probed after every line-up. Prints the
tables and writes results/peers.md, peers.json and peers.png. Asserts nothing: whether targets are met is in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contenders import CONTENDERS
from benchmarks.machine import describe_machine
from benchmarks.report import FASTMLP, SINGLE, Results, draw_chart, render_markdown
from benchmarks.workloads import named

HERE = Path(__file__).parent
# Numbers of threads as the libraries read them.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
# What is predicted: workload, rows.
PREDICTIONS = (("seed", 10_000), ("seed", 1), ("tab", 1))
# Seconds before each measurement: idle threads of the one before may spin on. (Measured: without it, 10,000 rows of
# seed took fastmlp 30.6 ms right after ONNX Runtime, and 27.1 otherwise.)
PAUSE = 0.5


class Task(NamedTuple):
    """One line-up of all contenders."""

    task: str
    workload: str
    rows: int = 0

    def __str__(self) -> str:
        return f"{self.task} {self.workload}" + f", {self.rows:,} rows" * bool(self.rows)


class Process:
    """A worker process; `contender` may end in @n, for n threads instead of the run's."""

    def __init__(self, contender: str, threads: int, python: str) -> None:
        self.contender = contender
        self.log = Path(tempfile.gettempdir()) / f"fastmlp-peers-{contender}.log"
        name, _, own = contender.partition("@")
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, own or str(threads))}
        command, pipe = [python, "-m", "benchmarks.worker", name], subprocess.PIPE
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=log, env=environment, cwd=HERE.parent, text=True
            )

    def reply(self) -> dict[str, Any]:
        """The next line of the worker; {"skip": ...} if there will be none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"skip": f"its process ended; {self.log} may say why"}

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """What the worker's method `do` returns for these arguments."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: reply() says so
            print(json.dumps({"do": do, **arguments}), file=self.process.stdin, flush=True)
        return self.reply()

    def close(self) -> None:
        """End the worker."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start(contenders: list[str], threads: int, pythons: dict[str, str]) -> tuple[list[Process], dict[str, Any]]:
    """The processes that can be measured, and what is known of all of them; those that cannot are named with the
    reason."""
    processes, known = [], {}
    for contender in contenders:
        process = Process(contender, threads, pythons.get(contender.partition("@")[0], sys.executable))
        hello = process.reply()
        known[contender] = hello
        if "skip" in hello:
            print(f"skipped: {hello.get('name', contender)}: {hello['skip']}")
            process.close()
        else:
            processes.append(process)
    return processes, known


def measure(task: Task, processes: list[Process], turns: int, seconds: float) -> dict[str, Any]:
    """One task: all prepare, then take turns. {"contenders": {name: {"seconds": [...], ...}}, ...}."""
    entries: dict[str, dict[str, Any]] = {}
    for process in processes:
        prepared = process.ask("prepare", **task._asdict(), seconds=seconds)
        if "skip" in prepared:
            if not prepared["skip"].startswith("no "):
                print(f"{task}: skipped: {process.contender}: {prepared['skip']}")
        else:
            entries[process.contender] = {**prepared, "seconds": []}
    for turn in range(turns):
        for process in processes:
            if process.contender in entries:
                time.sleep(PAUSE)
                reply = process.ask("measure")
                if "skip" in reply:
                    print(f"{task}: skipped: {process.contender}: {reply['skip']}")
                    del entries[process.contender]
                else:
                    entries[process.contender]["seconds"].append(reply["seconds"])
        now = "  ".join(f"{name} {entry['seconds'][-1] * 1e6:.4g}" for name, entry in entries.items())
        print(f"{task}: turn {turn + 1}, microseconds: {now}", flush=True)
    return {**task._asdict(), "contenders": entries}


def run(options: argparse.Namespace) -> Results:
    """The whole run."""
    workloads = named(options.workloads)
    chosen = {workload.name for workload in workloads}
    tasks = [Task("train", workload.name) for workload in workloads]
    tasks += [Task("predict", name, rows) for name, rows in PREDICTIONS if name in chosen]
    contenders = list(dict.fromkeys([FASTMLP, *options.contenders.split(",")]))
    if options.threads > 1:
        contenders.insert(1, SINGLE)
    pythons = dict(pair.split("=", 1) for pair in options.python)
    machine = describe_machine() | {"threads": str(options.threads), "turns": str(options.turns)}
    processes, known = start(contenders, options.threads, pythons)
    if not processes or processes[0].contender != FASTMLP:
        raise SystemExit("benchmarks.peers: fastmlp itself cannot run; build it first")
    results: Results = {"machine": machine, "contenders": known, "peak_gflops": {}, "measurements": []}
    try:
        for task in tasks:
            results["measurements"].append(measure(task, processes, options.turns, options.seconds))
            for dtype in {workload.dtype for workload in workloads}:
                probes = [processes[0].ask("peak", dtype=dtype)["gflops"] for _ in range(options.turns)]
                results["peak_gflops"].setdefault(dtype, []).extend(probes)
    finally:
        for process in processes:
            process.close()
    return results


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--workloads", default="main", help="comma-separated names, or main, other, all (default: main)"
    )
    parser.add_argument(
        "--contenders", default=",".join(CONTENDERS), help="comma-separated (default: all); name@n: on n threads"
    )
    parser.add_argument("--turns", type=int, default=5, help="measurements of each, after a warm-up (default: 5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads for each (default: all CPUs)")
    parser.add_argument("--seconds", type=float, default=0.5, help="least length of a measurement (default: 0.5)")
    parser.add_argument(
        "--python", action="append", default=[], metavar="CONTENDER=PATH", help="run it by this interpreter"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder to write into")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    options.results.mkdir(parents=True, exist_ok=True)
    results = run(options)
    text = render_markdown(results)
    print(f"\n{text}")
    (options.results / "peers.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.results / "peers.md").write_text(text)
    written = ["peers.json", "peers.md"]
    if reason := draw_chart(results, options.results / "peers.png"):
        print(f"no chart: {reason}")
    else:
        written.append("peers.png")
    print("written: " + ", ".join(str(options.results / name) for name in written))


if __name__ == "__main__":
    main()
