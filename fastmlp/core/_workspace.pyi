"""Stub of _workspace.pyx: the memory of a training run."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from typing_extensions import disjoint_base

from fastmlp.core._plan import Plan

__all__ = ["Workspace"]

@disjoint_base
class Workspace:
    @property
    def loss(self) -> str: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def n_threads(self) -> int: ...
    def __new__(
        cls,
        plan: Plan,
        loss: str,
        optimizer: str,
        batch_size: int,
        n_threads: int = 1,
        *,
        dropout: Sequence[float] | None = None,
        layer_rates: Sequence[float] | None = None,
        max_grad_norm: float = 0.0,
    ) -> Self: ...
    def load(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> None: ...
    def store(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> None: ...
    def profile(self) -> dict[tuple[str, int], list[float]]: ...
