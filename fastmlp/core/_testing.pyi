"""Stub of _testing.pyx: single kernels for check, tests and benchmarks."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from typing_extensions import disjoint_base

from fastmlp.core._arrays import CodeLayout, Codes

__all__ = ["BLOCK_ROWS", "MATH", "Kernels", "clock"]

_Array = np.ndarray[Any, Any]

MATH: tuple[str, ...]
BLOCK_ROWS: int

def clock() -> float: ...

@disjoint_base
class Kernels:
    isa: str
    dtype: str
    vector: int
    panel: int
    offset: int
    first: int
    slack: int
    def __init__(self, isa: str, dtype: str, *, offset: int = 1, first: int = 3, slack: int = 2) -> None: ...
    def math(self, name: str, x: ArrayLike, offset: int = 0) -> _Array: ...
    def activation(self, name: str, x: ArrayLike, offset: int = 0) -> _Array: ...
    def derivative(self, name: str, d: ArrayLike, x: ArrayLike, offset: int = 0) -> _Array: ...
    def output(self, name: str, z: _Array) -> _Array: ...
    def loss(
        self,
        name: str,
        z: _Array,
        y: ArrayLike,
        weights: ArrayLike | None = None,
        order: ArrayLike | None = None,
        *,
        parameter: float = 1.0,
        smoothing: float = 0.0,
        partner: ArrayLike | None = None,
        mix: float = 1.0,
    ) -> tuple[_Array, _Array, _Array]: ...
    def gather(self, X: Any, order: _Array) -> _Array: ...
    def forward(
        self, x: _Array, W: _Array, b: ArrayLike, activation: str = "identity", first: int = 0
    ) -> tuple[_Array, _Array]: ...
    def layer_output(
        self, x: _Array, W: _Array, b: ArrayLike, activation: str = "identity", first: int = 0, **options: Any
    ) -> tuple[_Array, _Array | None]: ...
    def forward_row(
        self, x: _Array, W: _Array, b: ArrayLike, activation: str = "identity", offset: int = 0, **options: Any
    ) -> _Array: ...
    def forward_unpacked(
        self, x: _Array, W: _Array, b: ArrayLike, activation: str = "identity", **options: Any
    ) -> _Array: ...
    def forward_csr(
        self, X: Any, order: _Array, W: _Array, b: ArrayLike, activation: str = "identity", first: int = 0
    ) -> _Array: ...
    def forward_csr_unpacked(
        self, X: Any, first: int, rows: int, W: _Array, b: ArrayLike, activation: str = "identity"
    ) -> _Array: ...
    def gradient_csr(self, X: Any, order: _Array, dz: _Array) -> _Array: ...
    def sum_bins(self, W: _Array, layout: CodeLayout) -> tuple[_Array, _Array]: ...
    def forward_codes(
        self, X: Codes, order: _Array, W: _Array, b: ArrayLike, activation: str = "identity", first: int = 0
    ) -> _Array: ...
    def forward_codes_unpacked(
        self,
        X: Codes,
        first: int,
        rows: int,
        W: _Array,
        b: ArrayLike,
        activation: str = "identity",
        sums: ArrayLike | None = None,
    ) -> _Array: ...
    def gradient_codes(self, X: Codes, order: _Array, dz: _Array, embedding: int = 0) -> _Array: ...
    def group_features(self, scalings: _Array) -> tuple[_Array, _Array]: ...
    def forward_members(
        self, x: _Array, W: _Array, b: ArrayLike, scalings: _Array, activation: str = "identity"
    ) -> _Array: ...
    def forward_row_members(
        self, x: _Array, W: _Array, b: ArrayLike, scalings: _Array, activation: str = "identity"
    ) -> _Array: ...
    def backward_members(
        self, dz: _Array, W: _Array, x: _Array, scalings: _Array, activation: str = "identity"
    ) -> tuple[_Array, _Array, _Array]: ...
    def backward(self, dz: _Array, W: _Array, x: _Array, activation: str = "identity", first: int = 0) -> _Array: ...
    def update(
        self,
        optimizer: str,
        x: _Array,
        dz: _Array,
        W: _Array,
        b: _Array,
        state_W: Any,
        state_b: Any,
        *,
        t: int = 1,
        weight_sum: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        learning_rate: float = 0.1,
        micro_batches: int = 1,
        **hyperparameters: float,
    ) -> tuple[_Array, _Array, list[_Array], list[_Array], _Array]: ...
    def scaling_gradient(self, G: _Array, W: _Array, s: _Array) -> tuple[_Array, _Array, _Array]: ...
    def batch_norm(
        self, z: _Array, scale: ArrayLike, b: ArrayLike, dy: _Array, activation: str = "identity"
    ) -> tuple[_Array, _Array, _Array, _Array, _Array, _Array]: ...
    def augment(
        self,
        x: _Array,
        partner: _Array,
        *,
        mix: float,
        noise: float,
        mask: float,
        rate: float,
        seed: int,
        step: int,
        row: int,
    ) -> _Array: ...
