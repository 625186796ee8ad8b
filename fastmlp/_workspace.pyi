"""Stub of _workspace.pyx: the memory of a training run."""

from collections.abc import Sequence

import numpy as np

from fastmlp._plan import Plan

class Workspace:
    loss: str
    optimizer: str
    batch_size: int
    n_threads: int
    def __init__(
        self,
        plan: Plan,
        loss: str,
        optimizer: str,
        batch_size: int,
        n_threads: int = 1,
        *,
        dropout: Sequence[float] | None = None,
        layer_rates: Sequence[float] | None = None,
        max_grad_norm: float = 0.0,
    ) -> None: ...
    def load(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> None: ...
    def store(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> None: ...
    def profile(self) -> dict[tuple[str, int], list[float]]: ...
