"""Stub of _step.pyx, whose class is seen by Cython only."""

from typing_extensions import disjoint_base

__all__: list[str]

@disjoint_base
class Steps: ...
