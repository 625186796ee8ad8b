"""What PyTorch's two contenders share: the model, the loop over batches, prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.contenders import Epochs, Predict, n_threads
from benchmarks.workloads import Workload

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid}
# What may be compiled: the identity for eager mode, torch.compile for the other.
Transform = Callable[[Any], Any]


def network(workload: Workload) -> nn.Sequential:
    """The workload's layers; its output are logits."""
    torch.set_num_threads(n_threads())
    torch.manual_seed(0)
    dtype = getattr(torch, workload.dtype)
    modules: list[nn.Module] = []
    for fan_in, fan_out in workload.layers:
        modules += [nn.Linear(fan_in, fan_out, dtype=dtype), ACTIVATIONS[workload.activation]()]
    return nn.Sequential(*modules[:-1])


def train(workload: Workload, transform: Transform) -> Epochs:
    model = network(workload)
    X, y = map(torch.from_numpy, workload.data())
    optimizer = torch.optim.Adam(model.parameters(), workload.learning_rate, fused=True)

    @transform
    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(X.index_select(0, rows)), y.index_select(0, rows))

    def epoch() -> float:
        for rows in torch.randperm(workload.n_rows).split(workload.batch_size):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(rows)
            loss.backward()
            optimizer.step()
        return float(loss)

    return epoch


def predict(workload: Workload, rows: int, transform: Transform) -> Predict:
    model, X = network(workload).eval(), workload.data().X[:rows]

    @transform
    def probabilities(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(model(x), dim=1)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(probabilities(torch.from_numpy(X)))

    return run
