"""Stub of _core.pyx: one training run, and _plan's names."""

from typing import Any

import numpy as np

from fastmlp._plan import ACTIVATIONS as ACTIVATIONS
from fastmlp._plan import LOSSES as LOSSES
from fastmlp._plan import OPTIMIZERS as OPTIMIZERS
from fastmlp._plan import OUTPUTS as OUTPUTS
from fastmlp._plan import Plan as Plan
from fastmlp._plan import info as info
from fastmlp._plan import max_threads as max_threads
from fastmlp._plan import peak_gflops as peak_gflops

class Trainer:
    loss: str
    optimizer: str
    batch_size: int
    n_threads: int
    def __init__(self, plan: Plan, loss: str, optimizer: str, batch_size: int, n_threads: int = 1) -> None: ...
    def load(self, parameters: np.ndarray, state: np.ndarray | None = None) -> None: ...
    def profile(self) -> dict[tuple[str, int], list[float]]: ...
    def store(self, parameters: np.ndarray, state: np.ndarray | None = None) -> None: ...
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
        momentum: float = 0.9,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        rho: float = 0.9,
        weight_decay: float = 0.0,
    ) -> float: ...
    def loss_gradient(
        self,
        parameters: np.ndarray,
        X: Any,
        y: np.ndarray,
        sample_weight: np.ndarray | None,
        out: np.ndarray,
        *,
        alpha: float = 0.0,
        l1_ratio: float = 0.0,
    ) -> float: ...
