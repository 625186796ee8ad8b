"""Stub of _plan.pyx: architectures that predict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

class Plan:
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    output: str
    dtype: str
    batch_norm: bool
    residual: bool
    n_parameters: int
    n_statistics: int
    def __init__(
        self,
        layer_sizes: Sequence[int],
        activations: Sequence[str],
        output: str,
        dtype: str,
        batch_norm: bool = False,
        residual: bool = False,
    ) -> None: ...
    def forward(
        self,
        parameters: np.ndarray,
        X: Any,
        out: np.ndarray | None = None,
        n_threads: int = 1,
        statistics: np.ndarray | None = None,
    ) -> np.ndarray: ...
    def row_losses(self, loss: str, output: np.ndarray, y: np.ndarray, parameter: float = 1.0) -> np.ndarray: ...
