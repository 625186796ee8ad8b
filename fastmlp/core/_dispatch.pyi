"""Stub of _dispatch.pyx."""

from typing import Any, final

__all__ = [
    "ACTIVATIONS",
    "HYPERPARAMETERS",
    "LOSSES",
    "NORM_EPSILON",
    "OPTIMIZERS",
    "OUTPUTS",
    "Caller",
    "info",
    "max_threads",
    "peak_gflops",
    "usable_threads",
]

ACTIVATIONS: tuple[str, ...]
OUTPUTS: tuple[str, ...]
LOSSES: dict[str, str]
OPTIMIZERS: dict[str, int]
HYPERPARAMETERS: dict[str, float]
NORM_EPSILON: float

@final
class Caller: ...

def usable_threads(wanted: int) -> int: ...
def max_threads() -> int: ...
def info() -> dict[str, Any]: ...
def peak_gflops(seconds: float = 0.2, dtype: str = "float32", n_threads: int = 1) -> float: ...
