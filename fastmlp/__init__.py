"""fastmlp: multilayer perceptrons on CPUs, behind scikit-learn's interface.

Names are imported when they are first asked for (PEP 562), so that ``import fastmlp.network`` brings in neither
scikit-learn nor SciPy. This file refuses to hold anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastmlp.container import FileFormatError
    from fastmlp.display import LearningRateRangeDisplay, LossCurveDisplay, WeightsDisplay
    from fastmlp.ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
    from fastmlp.estimators import MLPClassifier, MLPRegressor
    from fastmlp.loading import from_sklearn, load
    from fastmlp.network import Network
    from fastmlp.optimizers import CosineDecay, ExponentialDecay, OneCycle, StepDecay, WarmupCosine
    from fastmlp.saving import InconsistentVersionWarning
    from fastmlp.tuning import learning_rate_range

__version__ = "0.1.0"

__all__ = [
    "CosineDecay",
    "ExponentialDecay",
    "FileFormatError",
    "InconsistentVersionWarning",
    "LearningRateRangeDisplay",
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "Network",
    "OneCycle",
    "StepDecay",
    "WarmupCosine",
    "WeightsDisplay",
    "__version__",
    "from_sklearn",
    "learning_rate_range",
    "load",
    "show_config",
]

_HOMES = {
    "MLPClassifier": "fastmlp.estimators",
    "MLPEnsembleClassifier": "fastmlp.ensemble",
    "MLPEnsembleRegressor": "fastmlp.ensemble",
    "MLPRegressor": "fastmlp.estimators",
    "Network": "fastmlp.network",
    "CosineDecay": "fastmlp.optimizers",
    "ExponentialDecay": "fastmlp.optimizers",
    "OneCycle": "fastmlp.optimizers",
    "StepDecay": "fastmlp.optimizers",
    "WarmupCosine": "fastmlp.optimizers",
    "FileFormatError": "fastmlp.container",
    "InconsistentVersionWarning": "fastmlp.saving",
    "load": "fastmlp.loading",
    "from_sklearn": "fastmlp.loading",
    "LearningRateRangeDisplay": "fastmlp.display",
    "LossCurveDisplay": "fastmlp.display",
    "WeightsDisplay": "fastmlp.display",
    "learning_rate_range": "fastmlp.tuning",
}

_COMPILED = ("_core", "_workspace", "_plan", "_shuffle", "_machine", "_kernels", "_change")


def show_config() -> None:
    """Print version, compiler, instruction sets built and chosen, threads, element types."""
    from fastmlp import _core

    lines = {"fastmlp": __version__, **_core.info()}
    width = max(map(len, lines))
    for name, value in lines.items():
        text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
        print(f"{name:<{width}}  {text}")


def __getattr__(name: str) -> Any:
    if name in _COMPILED:
        try:
            return importlib.import_module(f"fastmlp.{name}")
        except ModuleNotFoundError as error:
            raise ImportError(
                f"fastmlp's compiled modules are not in {__path__[0]}. If that is a checkout, Python found it before the "
                "installed package: run from another folder or with python -P, or build in place with pip install --editable ."
            ) from error
    if name not in _HOMES:
        raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
