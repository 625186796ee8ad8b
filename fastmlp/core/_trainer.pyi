"""Stub of _trainer.pyx: training runs, and the names of _machine and _plan."""

import threading
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

from fastmlp.core._dispatch import ACTIVATIONS as ACTIVATIONS
from fastmlp.core._dispatch import LOSSES as LOSSES
from fastmlp.core._dispatch import NORM_EPSILON as NORM_EPSILON
from fastmlp.core._dispatch import OPTIMIZERS as OPTIMIZERS
from fastmlp.core._dispatch import OUTPUTS as OUTPUTS
from fastmlp.core._dispatch import info as info
from fastmlp.core._dispatch import max_threads as max_threads
from fastmlp.core._dispatch import peak_gflops as peak_gflops
from fastmlp.core._plan import Plan as Plan
from fastmlp.core._workspace import Workspace

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "NORM_EPSILON",
    "OPTIMIZERS",
    "OUTPUTS",
    "Cancelled",
    "Plan",
    "Trainer",
    "info",
    "max_threads",
    "peak_gflops",
]

class Cancelled(Exception): ...

@disjoint_base
class Trainer(Workspace):
    cancel: threading.Event | None
    slab_seconds: float
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
        loss_parameter: float = 1.0,
        label_smoothing: float = 0.0,
        input_noise: float = 0.0,
        input_mask: float = 0.0,
        mix: np.ndarray | None = None,
        seed: int = 0,
        step_losses: np.ndarray | None = None,
    ) -> float: ...
    def finish(
        self, parameters: np.ndarray, state: np.ndarray | None = None, statistics: np.ndarray | None = None
    ) -> None: ...
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
