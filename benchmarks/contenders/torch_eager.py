"""PyTorch, eager, with the fused Adam."""

from __future__ import annotations

import numpy as np

from benchmarks.contenders import Epochs, Fitter, Predict, Trained, missing
from benchmarks.workloads import Fit, Workload

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


def fitter(fit: Fit) -> Fitter:
    """The usual loop, with torch.optim.Adam as it comes. Batches are taken by index, which is faster than a
    DataLoader."""
    import torch
    from torch.nn.functional import cross_entropy, mse_loss

    from benchmarks.contenders import _torch

    loss_of = cross_entropy if fit.is_classifier else mse_loss

    def train(X: np.ndarray, y: np.ndarray) -> Trained:
        model = _torch.network(fit)
        optimizer = torch.optim.Adam(model.parameters(), fit.learning_rate)
        rows_X, rows_y = torch.from_numpy(X), torch.from_numpy(y if fit.is_classifier else y[:, np.newaxis])
        for _ in range(fit.epochs):
            for rows in torch.randperm(len(X)).split(fit.batch_size):
                optimizer.zero_grad()
                loss_of(model(rows_X[rows]), rows_y[rows]).backward()
                optimizer.step()
        return lambda X: np.asarray(model(torch.from_numpy(X)).detach())

    return train
