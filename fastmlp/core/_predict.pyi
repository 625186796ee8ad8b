"""Stub of _predict.pyx."""

from collections.abc import Sequence
from typing import Any, Self, final

import numpy as np

from fastmlp.core._arrays import CodeLayout, Codes
from fastmlp.core._plan import Plan

__all__ = ["CodedRowForward", "RowForward", "apply_output", "bin_sums", "forward", "row_losses"]

@final
class CodedRowForward:
    networks: tuple[tuple[Plan, np.ndarray, np.ndarray], ...]
    def __new__(cls, layout: CodeLayout, networks: Sequence[tuple[Plan, np.ndarray, np.ndarray]]) -> Self: ...
    def __call__(self, row: Codes, out: np.ndarray) -> np.ndarray: ...

@final
class RowForward:
    networks: tuple[tuple[np.ndarray, np.ndarray], ...]
    def __new__(cls, plan: Plan, networks: Sequence[tuple[np.ndarray, np.ndarray]]) -> Self: ...
    def __call__(self, row: Any, out: np.ndarray | None = None) -> np.ndarray: ...
    def values(self, row: Any) -> list[float] | None: ...

def bin_sums(plan: Plan, parameters: np.ndarray, layout: CodeLayout) -> np.ndarray: ...
def forward(
    plan: Plan,
    parameters: np.ndarray,
    X: Any,
    out: np.ndarray | None = None,
    n_threads: int = 1,
    statistics: np.ndarray | None = None,
    sums: np.ndarray | None = None,
) -> np.ndarray: ...
def apply_output(plan: Plan, values: np.ndarray) -> np.ndarray: ...
def row_losses(
    plan: Plan,
    loss: str,
    output: np.ndarray,
    y: np.ndarray,
    parameter: float = 1.0,
    output_weight: np.ndarray | None = None,
) -> np.ndarray: ...
