"""Stub of _plan.pyx: names of the C tables, and architectures that predict."""

from collections.abc import Sequence
from typing import Any

import numpy as np

ACTIVATIONS: tuple[str, ...]
OUTPUTS: tuple[str, ...]
LOSSES: dict[str, str]
OPTIMIZERS: dict[str, int]

def max_threads() -> int: ...
def info() -> dict[str, Any]: ...
def peak_gflops(seconds: float = 0.2, dtype: str = "float32", n_threads: int = 1) -> float: ...

class Buffer:
    def __init__(self, n_bytes: int) -> None: ...

class Rows:
    def __init__(self, X: Any, columns: int) -> None: ...

class Plan:
    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    output: str
    dtype: str
    n_parameters: int
    def __init__(self, layer_sizes: Sequence[int], activations: Sequence[str], output: str, dtype: str) -> None: ...
    def forward(
        self, parameters: np.ndarray, X: Any, out: np.ndarray | None = None, n_threads: int = 1
    ) -> np.ndarray: ...
