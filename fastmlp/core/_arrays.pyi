"""Stub of _arrays.pyx."""

from typing import final

__all__ = ["Reserve"]

@final
class Reserve: ...
