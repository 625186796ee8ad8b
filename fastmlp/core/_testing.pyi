"""Stub of _testing.pyx: single kernels for check, tests and benchmarks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from typing_extensions import disjoint_base

__all__ = ["BLOCK_ROWS", "MATH", "Kernels", "clock", "guarded"]

MATH: tuple[str, ...]
BLOCK_ROWS: int

def guarded(n: int, dtype: Any, offset: int = 0) -> tuple[np.ndarray, Callable[[str], None]]: ...
def clock() -> float: ...

@disjoint_base
class Kernels:
    @property
    def isa(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def vector(self) -> int: ...
    @property
    def panel(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def slack(self) -> int: ...
    def __init__(self, isa: str, dtype: str, *, offset: int = 1, first: int = 3, slack: int = 2) -> None: ...
    def math(self, name: str, x: np.ndarray, offset: int = 0) -> np.ndarray: ...
    def activation(self, name: str, x: np.ndarray, offset: int = 0) -> np.ndarray: ...
    def derivative(self, name: str, d: np.ndarray, x: np.ndarray, offset: int = 0) -> np.ndarray: ...
    def output(self, name: str, z: np.ndarray) -> np.ndarray: ...
    def loss(
        self,
        name: str,
        z: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None = None,
        order: np.ndarray | None = None,
        *,
        parameter: float = 1.0,
        smoothing: float = 0.0,
        partner: np.ndarray | None = None,
        mix: float = 1.0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...
    def gather(
        self, X: Any, order: np.ndarray | None = None, first: int = 0, rows: int | None = None
    ) -> np.ndarray: ...
    def forward(
        self, x: np.ndarray, W: np.ndarray, b: np.ndarray, activation: str = "identity", first: int = 0
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def forward_row(
        self, x: np.ndarray, W: np.ndarray, b: np.ndarray, activation: str = "identity", offset: int = 0
    ) -> np.ndarray: ...
    def forward_unpacked(
        self, x: np.ndarray, W: np.ndarray, b: np.ndarray, activation: str = "identity"
    ) -> np.ndarray: ...
    def forward_csr(
        self, X: Any, order: np.ndarray, W: np.ndarray, b: np.ndarray, activation: str = "identity", first: int = 0
    ) -> np.ndarray: ...
    def gradient_csr(self, X: Any, order: np.ndarray, dz: np.ndarray) -> np.ndarray: ...
    def backward(
        self, dz: np.ndarray, W: np.ndarray, x: np.ndarray, activation: str = "identity", first: int = 0
    ) -> np.ndarray: ...
    def update(
        self,
        optimizer: str,
        x: np.ndarray,
        dz: np.ndarray,
        W: np.ndarray,
        b: np.ndarray,
        state_W: Sequence[np.ndarray],
        state_b: Sequence[np.ndarray],
        *,
        t: int = 1,
        weight_sum: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        learning_rate: float = 0.1,
        micro_batches: int = 1,
        **hyperparameters: float,
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[np.ndarray], np.ndarray]: ...
    def layer_output(
        self,
        x: np.ndarray,
        W: np.ndarray,
        b: np.ndarray,
        activation: str = "identity",
        *,
        scale: np.ndarray | None = None,
        shift: np.ndarray | None = None,
        residual: bool = False,
        rate: float = 0.0,
        seed: int = 0,
        stream: int = 1,
        step: int = 1,
        row: int = 0,
        first: int = 0,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]: ...
    def batch_norm(
        self, z: np.ndarray, scale: np.ndarray, b: np.ndarray, dy: np.ndarray, activation: str = "identity"
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...
    def augment(
        self,
        x: np.ndarray,
        partner: np.ndarray | None = None,
        *,
        mix: float = 1.0,
        noise: float = 0.0,
        mask: float = 0.0,
        rate: float = 0.0,
        seed: int = 0,
        step: int = 1,
        row: int = 0,
    ) -> np.ndarray: ...
