"""fastmlp in other programs: networks from and to other frameworks, single rows in a service, models as C.

Names are imported when they are first asked for: each conversion brings in what it needs, and nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmlp.interop.c_code import to_c
    from fastmlp.interop.errors import ConversionError
    from fastmlp.interop.keras import from_keras, to_keras
    from fastmlp.interop.layers import Converted
    from fastmlp.interop.onnx import from_onnx, to_onnx
    from fastmlp.interop.state_dict import from_state_dict, to_state_dict
    from fastmlp.interop.torch import from_torch, to_torch

__all__ = [
    "ConversionError",
    "Converted",
    "from_keras",
    "from_onnx",
    "from_state_dict",
    "from_torch",
    "to_c",
    "to_keras",
    "to_onnx",
    "to_state_dict",
    "to_torch",
]

_HOMES = {
    "ConversionError": "fastmlp.interop.errors",
    "Converted": "fastmlp.interop.layers",
    "from_keras": "fastmlp.interop.keras",
    "from_onnx": "fastmlp.interop.onnx",
    "from_state_dict": "fastmlp.interop.state_dict",
    "from_torch": "fastmlp.interop.torch",
    "to_c": "fastmlp.interop.c_code",
    "to_keras": "fastmlp.interop.keras",
    "to_onnx": "fastmlp.interop.onnx",
    "to_state_dict": "fastmlp.interop.state_dict",
    "to_torch": "fastmlp.interop.torch",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastmlp.interop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
