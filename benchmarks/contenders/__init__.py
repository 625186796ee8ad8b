"""The libraries that fastmlp is measured beside, one module each, written as its own experts would write it.

The work is the same for all: data in memory as NumPy arrays; each epoch a new order of the rows; each step gathers its
rows by index, goes forward and back, and updates with Adam. A module imports its library inside its functions only, so
that this list can be read anywhere; worker.py imports one of them per process.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, cast

import numpy as np

from benchmarks.workloads import Fit, Workload

Epochs = Callable[[], float]
Predict = Callable[[], np.ndarray]
# X (rows, features), y (rows,) -> a function from X to the model's outputs (rows, outputs): probabilities, logits or
# numbers.
Trained = Callable[[np.ndarray], np.ndarray]
Fitter = Callable[[np.ndarray, np.ndarray], Trained]


class Contender(Protocol):
    """What a module of this package offers.

    PACKAGES are the distributions it needs, whose versions are reported. EPOCHS is how many epochs one call of what
    `train` returns runs: more than one where a call has a price of its own that no user pays per epoch.
    """

    NAME: str
    PACKAGES: tuple[str, ...]
    EPOCHS: int

    def available(self) -> str | None:
        """None, or why it cannot run here."""

    def train(self, workload: Workload) -> Epochs | None:
        """A function that trains for EPOCHS epochs and returns the last loss it knows; None where there is no
        training."""

    def predict(self, workload: Workload, rows: int) -> Predict | None:
        """A function from nothing to the class probabilities (rows, classes) of the workload's first rows."""

    def fitter(self, fit: Fit) -> Fitter:
        """A function that trains a new model from start to end, as a user of the library writes it; only FITS have
        it."""


CONTENDERS = (
    "fastmlp_trainer",
    "fastmlp_estimator",
    "scikit_learn",
    "torch_eager",
    "torch_compile",
    "jax_scan",
    "keras_jit",
    "onnx_runtime",
)

# Those whose whole fits fits.py measures.
FITS = ("fastmlp_estimator", "scikit_learn", "torch_eager", "jax_scan", "keras_jit")


def load(name: str) -> Contender:
    """The contender of that name."""
    return cast(Contender, importlib.import_module(f"benchmarks.contenders.{name}"))


def missing(packages: tuple[str, ...]) -> str | None:
    """None if all distributions are installed, else a sentence that names the others."""
    absent = [name for name in packages if installed(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def installed(package: str) -> str | None:
    """Version of a distribution; None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def n_threads() -> int:
    """Threads that a contender may use: what worker.py has granted its process."""
    return int(os.environ["OMP_NUM_THREADS"])


def initial(workload: Workload) -> list[tuple[np.ndarray, np.ndarray]]:
    """(W, b) per layer, uniform(-r, r) with r = sqrt(6 / (I + O)), for libraries that bring no layers of their own."""
    draws = np.random.default_rng(0)
    layers = []
    for fan_in, fan_out in workload.layers:
        r = np.sqrt(6 / (fan_in + fan_out))
        W, b = draws.uniform(-r, r, (fan_in, fan_out)), draws.uniform(-r, r, fan_out)
        layers.append((W.astype(workload.dtype), b.astype(workload.dtype)))
    return layers
