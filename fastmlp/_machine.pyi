"""Stub of _machine.pyx: names of the C tables, the machine, memory and arrays."""

from typing import Any

ACTIVATIONS: tuple[str, ...]
OUTPUTS: tuple[str, ...]
LOSSES: dict[str, str]
OPTIMIZERS: dict[str, int]
NORM_EPSILON: float

def max_threads() -> int: ...
def info() -> dict[str, Any]: ...
def peak_gflops(seconds: float = 0.2, dtype: str = "float32", n_threads: int = 1) -> float: ...

class Buffer:
    def __init__(self, n_bytes: int, zeroed: bool = True) -> None: ...

class Rows:
    def __init__(self, X: Any, columns: int) -> None: ...
