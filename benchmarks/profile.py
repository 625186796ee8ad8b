"""`python -m benchmarks.profile seed,tab`: where the time of a training run goes, section by section and layer by
layer.

Needs a build with FASTMLP_PROFILE=1 (`make profile` makes one of its own). Times are means per step, of all threads
that worked; a share is one of the threads' time together. What the core did not measure, from the order's drawing to
Python, is the last line. GFLOP/s are per thread, and beside them their share of one thread's FMA peak.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from benchmarks.workloads import Workload, named
from fastmlp import Network, core
from fastmlp.core._shuffle import shuffle
from fastmlp.training.threads import choose_threads


def flops_of(section: str, layer: int, workload: Workload) -> int:
    """Floating-point operations of a section in one step: the products', nothing else counts."""
    fan_in, fan_out = workload.layers[layer]
    return 2 * workload.batch_size * fan_in * fan_out if section in ("forward", "backward", "update") else 0


def profile(workload: Workload, threads: int, seconds: float) -> None:
    """Train for about `seconds` and print the table."""
    X, y = workload.data()
    network = Network(workload.layer_sizes, workload.activation, dtype=workload.dtype, random_state=0)
    n_threads = min(threads, choose_threads(None, workload.step_flops))
    trainer = core.Trainer(network.plan, "log_loss", "adam", workload.batch_size, n_threads)
    trainer.load(network.parameters)
    rates, draws = np.full(workload.n_steps, workload.learning_rate), np.random.RandomState(0)
    order = np.arange(workload.n_rows)
    peak = core.peak_gflops(0.3, workload.dtype, n_threads) / n_threads

    def epochs(seconds: float) -> tuple[int, float]:
        """(epochs, seconds they took)"""
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds or done < 2:
            shuffle(order, draws, alone=True)
            trainer.epoch(X, y, None, order, rates, done * workload.n_steps)
            trainer.store(network.parameters)
            done += 1
        return done, time.perf_counter() - started

    epochs(seconds / 4)
    before = trainer.profile()
    done, wall = epochs(seconds)
    steps = done * workload.n_steps
    spent = {key: np.subtract(after, before[key]) / steps for key, after in trainer.profile().items()}
    total = wall / steps * n_threads
    print(f"\n{workload.name}: {workload.describe()}; at most {n_threads} threads")
    print(f"{wall / steps * 1e6:,.1f} us per step; FMA peak of a thread {peak:.0f} GFLOP/s\n")
    print("| section | layer | us | share | GFLOP/s | of peak |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for (section, layer), each in spent.items():
        if each.sum() > 0:
            flops = flops_of(section, layer, workload)
            rate = flops / each.sum() * 1e-9
            speed = f"{rate:.1f} | {rate / peak:.0%}" if flops else " | "
            print(
                f"| {section} | {layer + 1 if flops else ''} | {each.sum() * 1e6:.2f} | {each.sum() / total:.1%} | "
                f"{speed} |"
            )
    rest = total - sum(each.sum() for each in spent.values())
    print(f"| Python, and threads not used | | {rest * 1e6:.2f} | {rest / total:.1%} | | |")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.profile", description=__doc__.split("\n")[0])
    parser.add_argument("workloads", nargs="?", default="main", help="comma-separated names, or main, other, all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="at most (default: all CPUs)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of training that is measured (default: 2)")
    options = parser.parse_args()
    for workload in named(options.workloads):
        profile(workload, options.threads, options.seconds)


if __name__ == "__main__":
    main()
