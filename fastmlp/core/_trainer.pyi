"""Stub of _trainer.pyx."""

import threading
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from typing_extensions import disjoint_base

from fastmlp.core._arrays import Reserve
from fastmlp.core._plan import Plan
from fastmlp.core._workspace import OptimizerPanels

__all__ = ["Cancelled", "Trainer"]

_Factors = tuple[float, float, float]

class Cancelled(Exception): ...

@disjoint_base
class Trainer:
    cancel: threading.Event | None
    @property
    def loss(self) -> str: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def paced(self) -> bool: ...
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
        factors: Sequence[tuple[_Factors, _Factors]] | None = None,
        input_scaling: _Factors | None = None,
        max_grad_norm: float = 0.0,
        reserve: Reserve | None = None,
    ) -> Self: ...
    def epoch(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        order: np.ndarray | None,
        learning_rates: np.ndarray,
        t: int,
        *,
        alpha: float = 0.0,
        l1_ratio: float = 0.0,
        loss_parameter: float = 1.0,
        label_smoothing: float = 0.0,
        input_noise: float = 0.0,
        input_mask: float = 0.0,
        mix: np.ndarray | None = None,
        dropout_factors: np.ndarray | None = None,
        decay_factors: np.ndarray | None = None,
        seed: int = 0,
        loss_reduction: str = "weighted_mean",
        step_losses: np.ndarray | None = None,
        before: int = 0,
        **hyperparameters: float,
    ) -> float: ...
    def position(self) -> tuple[int, float, np.ndarray]: ...
    def resume(self, t: int, steps: int, loss: float, penalties: np.ndarray) -> None: ...
    def load(
        self,
        parameters: np.ndarray,
        state: OptimizerPanels | np.ndarray | None = None,
        statistics: np.ndarray | None = None,
    ) -> None: ...
    def store(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> bool: ...
    def optimizer_state(self) -> OptimizerPanels: ...
    def finish(self) -> OptimizerPanels: ...
    def loss_gradient(
        self,
        parameters: np.ndarray,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        out: np.ndarray,
        *,
        statistics: np.ndarray | None = None,
        **constants: Any,
    ) -> float: ...
    def sums(
        self,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        order: np.ndarray | None,
        out: np.ndarray,
        t: int,
        *,
        first_row: int = 0,
        **constants: Any,
    ) -> tuple[float, float]: ...
    def update(
        self,
        sums: np.ndarray,
        weight: float,
        rows: int,
        learning_rate: float,
        t: int,
        *,
        alpha: float = 0.0,
        l1_ratio: float = 0.0,
        **hyperparameters: float,
    ) -> float: ...
    def profile(self) -> dict[tuple[str, int], list[float]]: ...
