"""What each activation, solver and training method adds to a step: each in turn with the plain step, which is relu and
adam.

`make bench-methods`. Cases come from the C tables and from METHODS; the first workload, on one thread and on as many as
pay. A turn runs each case once and the plain step before and after it, so that a slow moment of the machine meets both;
the figure is the median of the turns' ratios. Writes benchmarks/results/methods.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import describe_machine
from benchmarks.workloads import WORKLOADS, Workload
from fastmlp import Network, core
from fastmlp.core._shuffle import shuffle
from fastmlp.training.run import Method
from fastmlp.training.solvers import STOCHASTIC_SOLVERS
from fastmlp.training.threads import choose_threads

RESULTS = Path(__file__).parent / "results" / "methods.md"
# Seconds that a case runs in a turn.
SLICE = 0.15
# What a step may take at most, of the plain step's time; the others have no target.
LIMITS = {"dropout": 1.10, "batch_norm": 1.20, "activation": 1.15, "solver": 1.10}


class Case(NamedTuple):
    """A step that differs from the plain one in a single thing."""

    kind: str
    name: str
    activation: str = "relu"
    optimizer: str = "adam"
    network: dict[str, Any] = {}
    method: dict[str, Any] = {}


PLAIN = Case("plain", "relu, adam")


def cases(n_layers: int) -> list[Case]:
    """One per activation, solver and method."""
    half = (0.0,) + (0.5,) * (n_layers - 1)
    found = [Case("activation", name, activation=name) for name in core.ACTIVATIONS]
    found += [Case("solver", name, optimizer=name) for name in STOCHASTIC_SOLVERS]
    found += [
        Case("dropout", "0.5 of the hidden units", method={"dropout": half}),
        Case("dropout", "0.5, and 0.2 of the input", method={"dropout": (0.2, *half[1:])}),
        Case("batch_norm", "all hidden layers", network={"batch_norm": True}),
        Case("residual", "where widths agree", network={"residual": True}),
        Case("max_grad_norm", "1", method={"max_grad_norm": 1.0}),
        Case("label_smoothing", "0.1", method={"label_smoothing": 0.1}),
        Case("input_noise", "0.1", method={"input_noise": 0.1}),
        Case("input_mask", "0.1", method={"input_mask": 0.1}),
        Case("mixup", "0.2", method={"mixup": 0.2}),
        Case("layer_rates", "body frozen", method={"layer_rates": (0.0,) * (n_layers - 1) + (1.0,)}),
    ]
    return found


def stepper(case: Case, w: Workload, n_threads: int) -> Callable[[], float]:
    """A function that trains for about SLICE seconds and returns the seconds of a step."""
    network = Network(w.layer_sizes, case.activation, dtype=w.dtype, random_state=0, **case.network)
    method = Method(seed=1, **case.method)
    trainer = method.trainer(network, "log_loss", case.optimizer, w.batch_size, n_threads)
    trainer.load(network.parameters, None, network.statistics)
    data, draws, order = w.data(), np.random.RandomState(0), np.arange(w.n_rows)
    done = 0

    def run() -> float:
        nonlocal done
        began, start = time.perf_counter(), done
        while time.perf_counter() - began < SLICE:
            shuffle(order, draws, alone=True)
            rates = np.full(w.n_steps, w.learning_rate)
            trainer.epoch(
                data.X, data.y, None, order, rates, done, mix=method.mix(done, w.n_steps), **method.constants()
            )
            done += w.n_steps
        return (time.perf_counter() - began) / (done - start)

    run()
    return run


def measure(w: Workload, n_threads: int, turns: int) -> list[tuple[Case, float, float]]:
    """(case, microseconds of a step, ratio to the plain step in the same turns)."""
    plain = stepper(PLAIN, w, n_threads)
    found = []
    for case in cases(len(w.layers)):
        run = stepper(case, w, n_threads)
        times, ratios = [], []
        for _ in range(turns):
            before, own, after = plain(), run(), plain()
            times.append(own)
            ratios.append(own / ((before + after) / 2))
        found.append((case, 1e6 * statistics.median(times), statistics.median(ratios)))
    return found


def table(w: Workload, found: dict[int, list[tuple[Case, float, float]]]) -> str:
    """Markdown."""
    lines = [
        f"| {w.describe()} | " + " | ".join(f"{n} thread{'s' * (n > 1)}: us | of plain" for n in found) + " | limit |"
    ]
    lines.append("| --- |" + " ---: | ---: |" * len(found) + " ---: |")
    for rows in zip(*found.values(), strict=True):
        case = rows[0][0]
        cells = [f"{us:,.0f} | {ratio:.2f}" for _, us, ratio in rows]
        limit = f"{LIMITS[case.kind]:.2f}" if case.kind in LIMITS else ""
        lines.append(" | ".join([f"| {case.kind} {case.name}", *cells, limit]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    w = WORKLOADS[0]
    threads = sorted({1, choose_threads(None, w.step_flops)})
    text = table(w, {n: measure(w, n, arguments.turns) for n in threads})
    print(text)
    machine = "\n".join(f"- {name}: {value}" for name, value in describe_machine().items())
    arguments.results.write_text(
        "# What each method adds to a training step\n\nWritten by `make bench-methods`; the plain step is relu and "
        "adam, before and after "
        f"each case, {arguments.turns} turns.\n\n{machine}\n\n{text}"
    )


if __name__ == "__main__":
    main()
