"""PyTorch with gather, forward, loss and backward compiled, and the fused Adam."""

from __future__ import annotations

import shutil

from benchmarks.contenders import Epochs, Predict, missing
from benchmarks.workloads import Workload

NAME = "PyTorch compile"
PACKAGES = ("torch",)
EPOCHS = 1


def available() -> str | None:
    return missing(PACKAGES) or (
        None if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler to compile with"
    )


def train(workload: Workload) -> Epochs:
    import torch

    from benchmarks.contenders import _torch

    return _torch.train(workload, torch.compile)


def predict(workload: Workload, rows: int) -> Predict:
    import torch

    from benchmarks.contenders import _torch

    return _torch.predict(workload, rows, torch.compile)
