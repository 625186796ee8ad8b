"""fastmlp in other programs: single rows in a service, models as C.

Names are imported when they are first asked for: each conversion brings in what it needs, and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmlp.interop.c_code import to_c
    from fastmlp.interop.errors import ConversionError

__all__ = ["ConversionError", "to_c"]

_HOMES = {
    "ConversionError": "fastmlp.interop.errors",
    "to_c": "fastmlp.interop.c_code",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastmlp.interop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
