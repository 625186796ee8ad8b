"""PyTorch, eager, with the fused Adam."""

from __future__ import annotations

from benchmarks.contenders import Epochs, Predict, missing
from benchmarks.workloads import Workload

NAME = "PyTorch eager"
PACKAGES = ("torch",)
EPOCHS = 1


def available() -> str | None:
    return missing(PACKAGES)


def train(workload: Workload) -> Epochs:
    from benchmarks.contenders import _torch

    return _torch.train(workload, lambda function: function)


def predict(workload: Workload, rows: int) -> Predict:
    from benchmarks.contenders import _torch

    return _torch.predict(workload, rows, lambda function: function)
