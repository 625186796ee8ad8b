"""Stub of _plan.pyx."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from typing_extensions import disjoint_base

__all__ = ["ParameterLayout", "Plan", "parameter_layout"]

class ParameterLayout(NamedTuple):
    coefs: list[slice]
    intercepts: list[slice]
    scales: list[slice]
    scalings: list[slice]
    means: list[slice]
    variances: list[slice]
    n_parameters: int
    n_statistics: int

def parameter_layout(
    layer_sizes: Sequence[int], batch_norm: bool = False, embedding: int = 0, n_members: int = 1
) -> ParameterLayout: ...

@disjoint_base
class Plan:
    @property
    def layer_sizes(self) -> tuple[int, ...]: ...
    @property
    def activations(self) -> tuple[str, ...]: ...
    @property
    def output(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def batch_norm(self) -> bool: ...
    @property
    def residual(self) -> bool: ...
    @property
    def embedding(self) -> int: ...
    @property
    def n_members(self) -> int: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def n_statistics(self) -> int: ...
    def __new__(
        cls,
        layer_sizes: Sequence[int],
        activations: Sequence[str],
        output: str,
        dtype: str,
        batch_norm: bool = False,
        residual: bool = False,
        embedding: int = 0,
        n_members: int = 1,
    ) -> Self: ...
