"""fastmlp below its estimators: Trainer for epochs, Network.forward for predictions."""

from __future__ import annotations

import importlib.util

import numpy as np

from benchmarks.contenders import Epochs, Predict, n_threads
from benchmarks.workloads import Workload

NAME = "fastmlp"
PACKAGES: tuple[str, ...] = ()
EPOCHS = 1


def available() -> str | None:
    return None if importlib.util.find_spec("fastmlp.core") else "not built: fastmlp.core"


def train(workload: Workload) -> Epochs:
    from fastmlp import Network, core
    from fastmlp.core._shuffle import shuffle
    from fastmlp.training.threads import choose_threads

    X, y = workload.data()
    network = Network(workload.layer_sizes, workload.activation, dtype=workload.dtype, random_state=0)
    threads = choose_threads(None, workload.step_flops)
    trainer = core.Trainer(network.plan, "log_loss", "adam", workload.batch_size, threads)
    trainer.load(network.parameters)
    draws, rates, updates = np.random.RandomState(0), np.full(workload.n_steps, workload.learning_rate), 0
    order = np.arange(workload.n_rows)

    def epoch() -> float:
        nonlocal updates
        shuffle(order, draws, alone=True)  # as fit does
        loss = trainer.epoch(X, y, None, order, rates, updates)
        updates += workload.n_steps
        return float(loss)

    return epoch


def predict(workload: Workload, rows: int) -> Predict:
    from fastmlp import Network
    from fastmlp.training.threads import choose_threads

    X = workload.data().X[:rows]
    network = Network(workload.layer_sizes, workload.activation, dtype=workload.dtype, random_state=0)
    threads = choose_threads(None, workload.forward_flops(rows))
    return lambda: network.forward(X, n_threads=threads)


def peak(dtype: str) -> float:
    """The FMA peak of the threads granted, GFLOP/s."""
    from fastmlp import core

    return float(core.peak_gflops(0.3, dtype, n_threads()))
