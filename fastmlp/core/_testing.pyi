"""Stub of _testing.pyx: single kernels for check, tests and benchmarks."""

from typing import Any

__all__ = ["BLOCK_ROWS", "MATH", "Kernels", "clock"]

MATH: tuple[str, ...]
BLOCK_ROWS: int

def clock() -> float: ...

class Kernels:
    isa: str
    dtype: str
    vector: int
    panel: int
    offset: int
    first: int
    slack: int
    def __init__(self, isa: str, dtype: str, *, offset: int = 1, first: int = 3, slack: int = 2) -> None: ...
    def __getattr__(self, kernel: str) -> Any: ...  # one method per kernel
