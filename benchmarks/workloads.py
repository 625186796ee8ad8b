"""What is measured: architectures with their data, and how many floating-point operations a step of them takes.

The four of WORKLOADS have targets to reach; OTHER_SHAPES are there so that nothing is tuned to the four alone.
NumPy is the only import, since a contender's process need not have fastmlp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """X (rows, features) in the workload's type, y (rows,) class indices, intp."""

    X: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Workload:
    """A classifier to train with Adam: an architecture, a batch size, a number of rows.

    Parameters
    ----------
    name : str
    layer_sizes : tuple of int
        Units per layer, input and output included; the output is a softmax.
    batch_size, n_rows : int
        n_rows is a multiple of batch_size, so that all steps of an epoch do the same work.
    activation : str, default='relu'
        Of the hidden layers: 'relu', 'tanh' or 'logistic'.
    dtype : {'float32', 'float64'}, default='float32'
    """

    name: str
    layer_sizes: tuple[int, ...]
    batch_size: int
    n_rows: int
    activation: str = "relu"
    dtype: str = "float32"
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if self.n_rows % self.batch_size:
            raise ValueError(f"{self.name}: {self.n_rows} rows are no multiple of the batch of {self.batch_size}")

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return self.n_rows // self.batch_size

    @property
    def n_features(self) -> int:
        return self.layer_sizes[0]

    @property
    def n_classes(self) -> int:
        return self.layer_sizes[-1]

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(fan-in, fan-out) of each layer."""
        return list(zip(self.layer_sizes[:-1], self.layer_sizes[1:], strict=True))

    @property
    def step_flops(self) -> int:
        """2 B (2 n0 n1 + 3 n1 n2 + 3 n2 n3 ...): the first layer needs no input gradient."""
        products = [fan_in * fan_out for fan_in, fan_out in self.layers]
        return 2 * self.batch_size * (3 * sum(products) - products[0])

    def forward_flops(self, n_rows: int) -> int:
        """2 n (n0 n1 + n1 n2 + ...)."""
        return 2 * n_rows * sum(fan_in * fan_out for fan_in, fan_out in self.layers)

    def data(self) -> Data:
        """The workload's rows, the same in every process."""
        return draw(self.n_rows, self.n_features, self.n_classes, self.dtype)

    def describe(self) -> str:
        """One line: layers, batch, rows and what is unusual."""
        unusual = [self.activation] * (self.activation != "relu") + [self.dtype] * (self.dtype != "float32")
        return ", ".join(
            ["-".join(map(str, self.layer_sizes)), f"batch {self.batch_size}", f"{self.n_rows:,} rows", *unusual]
        )


@dataclass(frozen=True)
class Fit(Workload):
    """A model to train from start to end with Adam, as a user would.

    Parameters
    ----------
    epochs : int
        All of them are run.
    loss : {'log_loss', 'squared_error'}, default='log_loss'
        'squared_error' has one output without activation.
    """

    epochs: int = 1
    loss: str = "log_loss"

    def __post_init__(self) -> None:
        """Any number of rows: the last batch of an epoch may be a smaller one."""

    @property
    def is_classifier(self) -> bool:
        return self.loss == "log_loss"


@lru_cache(maxsize=1)
def draw(n_rows: int, n_features: int, n_classes: int, dtype: str) -> Data:
    """Normal numbers, and classes that a linear map of them decides but for some noise: something can be learned."""
    draws = np.random.default_rng(0)
    X = draws.standard_normal((n_rows, n_features)).astype(dtype)
    scores = X @ draws.standard_normal((n_features, n_classes))
    y = np.argmax(scores + draws.standard_normal(scores.shape), axis=1).astype(np.intp)
    assert np.ptp(X) > 0
    assert len(np.unique(y)) == n_classes
    return Data(X, y)


WORKLOADS = (
    Workload("seed", (784, 256, 128, 10), 128, 12_800),
    Workload("tab", (32, 64, 32, 2), 64, 12_800),
    Workload("sk", (50, 100, 3), 200, 20_000),
    Workload("wide", (512, 1024, 1024, 10), 256, 12_800),
)

# Batches of 1 to 5000, 1 to 9 layers, odd widths, other activations, float64.
OTHER_SHAPES = (
    Workload("batch1", (20, 32, 2), 1, 4_000),
    Workload("batch7", (33, 65, 17, 5), 7, 7_000),
    Workload("batch333", (100, 201, 99, 7), 333, 13_320, "tanh"),
    Workload("batch1000", (64, 300, 8), 1_000, 20_000, "logistic"),
    Workload("batch5000", (200, 500, 300, 5), 5_000, 20_000),
    Workload("linear", (300, 10), 128, 12_800),
    Workload("deep", (61, 127, 127, 127, 127, 127, 127, 127, 127, 11), 100, 10_000, "tanh"),
    Workload("seed64", (784, 256, 128, 10), 128, 12_800, dtype="float64"),
    Workload("tanh64", (77, 255, 129, 3), 200, 10_000, "tanh", "float64"),
)

BY_NAME = {workload.name: workload for workload in WORKLOADS + OTHER_SHAPES}


def named(names: str) -> list[Workload]:
    """The workloads of a comma-separated list; 'main' stands for the four, 'other' for the other shapes, 'all' for
    both."""
    groups = {"main": WORKLOADS, "other": OTHER_SHAPES, "all": WORKLOADS + OTHER_SHAPES}
    chosen: dict[str, Workload] = {}
    for name in names.split(","):
        if name not in groups and name not in BY_NAME:
            raise ValueError(f"workload must be one of {[*groups, *BY_NAME]}, got {name!r}")
        chosen.update({workload.name: workload for workload in groups.get(name) or (BY_NAME[name],)})
    return list(chosen.values())
