"""fastmlp: multilayer perceptrons on CPUs, behind scikit-learn's interface.

Names are imported when they are first asked for (PEP 562), so that ``import fastmlp.network`` brings in neither
scikit-learn nor SciPy.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from fastmlp._version import __version__

if TYPE_CHECKING:
    from fastmlp.distributed.blocks import Blocks
    from fastmlp.estimators.callbacks import Checkpoint, CSVLogger, NotebookProgress, StopAtTarget, TimeLimit
    from fastmlp.estimators.classifier import MLPClassifier
    from fastmlp.estimators.conversion import from_sklearn
    from fastmlp.estimators.ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
    from fastmlp.estimators.persistence import InconsistentVersionWarning, load
    from fastmlp.estimators.regressor import MLPRegressor
    from fastmlp.inspection.display import LossCurveDisplay, WeightsDisplay
    from fastmlp.inspection.learning_rate_range import LearningRateRange, learning_rate_range
    from fastmlp.interop.serving import RowPredictor, fold_scaler
    from fastmlp.network.network import Network
    from fastmlp.network.persistence import FileFormatError
    from fastmlp.tabular.classifier import TabularClassifier
    from fastmlp.tabular.encoder import PiecewiseLinearEncoder
    from fastmlp.tabular.regressor import TabularRegressor
    from fastmlp.training.schedules import (
        CosineDecay,
        ExponentialDecay,
        FlatCosine,
        LogCosine,
        OneCycle,
        StepDecay,
        WarmupCosine,
    )

__all__ = [
    "Blocks",
    "CSVLogger",
    "Checkpoint",
    "CosineDecay",
    "ExponentialDecay",
    "FileFormatError",
    "FlatCosine",
    "InconsistentVersionWarning",
    "LearningRateRange",
    "LogCosine",
    "LossCurveDisplay",
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "Network",
    "NotebookProgress",
    "OneCycle",
    "PiecewiseLinearEncoder",
    "RowPredictor",
    "StepDecay",
    "StopAtTarget",
    "TabularClassifier",
    "TabularRegressor",
    "TimeLimit",
    "WarmupCosine",
    "WeightsDisplay",
    "__version__",
    "fold_scaler",
    "from_sklearn",
    "get_include",
    "get_library_dir",
    "learning_rate_range",
    "load",
    "show_config",
]

_HOMES = {
    "Blocks": "fastmlp.distributed.blocks",
    "TimeLimit": "fastmlp.estimators.callbacks",
    "StopAtTarget": "fastmlp.estimators.callbacks",
    "NotebookProgress": "fastmlp.estimators.callbacks",
    "CSVLogger": "fastmlp.estimators.callbacks",
    "Checkpoint": "fastmlp.estimators.callbacks",
    "MLPClassifier": "fastmlp.estimators.classifier",
    "MLPEnsembleClassifier": "fastmlp.estimators.ensemble",
    "MLPEnsembleRegressor": "fastmlp.estimators.ensemble",
    "MLPRegressor": "fastmlp.estimators.regressor",
    "Network": "fastmlp.network.network",
    "CosineDecay": "fastmlp.training.schedules",
    "ExponentialDecay": "fastmlp.training.schedules",
    "FlatCosine": "fastmlp.training.schedules",
    "LogCosine": "fastmlp.training.schedules",
    "OneCycle": "fastmlp.training.schedules",
    "StepDecay": "fastmlp.training.schedules",
    "WarmupCosine": "fastmlp.training.schedules",
    "RowPredictor": "fastmlp.interop.serving",
    "fold_scaler": "fastmlp.interop.serving",
    "FileFormatError": "fastmlp.network.persistence",
    "InconsistentVersionWarning": "fastmlp.estimators.persistence",
    "PiecewiseLinearEncoder": "fastmlp.tabular.encoder",
    "TabularClassifier": "fastmlp.tabular.classifier",
    "TabularRegressor": "fastmlp.tabular.regressor",
    "load": "fastmlp.tabular",  # where all models are known that a file may hold
    "from_sklearn": "fastmlp.estimators.conversion",
    "LearningRateRange": "fastmlp.inspection.learning_rate_range",
    "LossCurveDisplay": "fastmlp.inspection.display",
    "WeightsDisplay": "fastmlp.inspection.display",
    "learning_rate_range": "fastmlp.inspection.learning_rate_range",
}


def show_config() -> None:
    """Print version, compiler, instruction sets built and chosen, threads, element types."""
    import fastmlp.core as core

    lines = {"fastmlp": __version__, **core.info()}
    width = max(map(len, lines))
    for name, value in lines.items():
        text = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
        print(f"{name:<{width}}  {text}")


def get_include() -> str:
    """The folder of ``fastmlp_predict.h``, which C and C++ programs include to predict with saved networks.

    Returns
    -------
    str

    See Also
    --------
    get_library_dir : The static library, and the files of pkg-config and CMake.
    """
    return os.path.join(os.path.dirname(__file__), "interop", "c", "include")


def get_library_dir() -> str:
    """The folder of the static library ``fastmlp_predict``.

    Returns
    -------
    str
        In it are ``pkgconfig`` and ``cmake`` too: set ``PKG_CONFIG_PATH`` to the one, ``fastmlp_DIR`` to
        ``cmake/fastmlp``.

    See Also
    --------
    get_include : The header.
    """
    return os.path.join(os.path.dirname(__file__), "interop", "c", "lib")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
