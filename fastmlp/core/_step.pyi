"""Stub of _step.pyx, whose class is seen by Cython only."""

__all__: list[str]

class Steps: ...
