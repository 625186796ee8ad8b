"""Stub of _plan.pyx: architectures that predict."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from typing_extensions import disjoint_base

__all__ = ["Plan"]

@disjoint_base
class Plan:
    @property
    def layer_sizes(self) -> tuple[int, ...]: ...
    @property
    def activations(self) -> tuple[str, ...]: ...
    @property
    def output(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def batch_norm(self) -> bool: ...
    @property
    def residual(self) -> bool: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def n_statistics(self) -> int: ...
    def __new__(
        cls,
        layer_sizes: Sequence[int],
        activations: Sequence[str],
        output: str,
        dtype: str,
        batch_norm: bool = False,
        residual: bool = False,
    ) -> Self: ...
    def forward(
        self,
        parameters: np.ndarray,
        X: Any,
        out: np.ndarray | None = None,
        n_threads: int = 1,
        statistics: np.ndarray | None = None,
    ) -> np.ndarray: ...
    def row_losses(self, loss: str, output: np.ndarray, y: np.ndarray, parameter: float = 1.0) -> np.ndarray: ...
