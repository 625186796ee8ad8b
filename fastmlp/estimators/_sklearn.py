"""scikit-learn as this package uses it: its base classes with types, everything private, and warnings that name the
user's line.

scikit-learn has no types: to a type checker whatever it decorates is Any, and so is every method of its classes. A type
checker sees the subclasses below, which say what users get; when the program runs, the names are scikit-learn's own
objects.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import sklearn.base
import sklearn.utils.metaestimators
from numpy.typing import ArrayLike
from sklearn.utils._param_validation import (
    Hidden,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config
from sklearn.utils.multiclass import _check_partial_fit_first_call
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_feature_names_in, _check_sample_weight

__all__ = [
    "ADAPTERS_MANAGER", "BaseEstimator", "ClassWeight", "ClassifierMixin", "Dtype", "Hidden", "Initial", "Interval",
    "InvalidParameterError",
    "LayerSizes", "LearningRate", "MetaEstimatorMixin", "Metric", "Names", "Options", "RandomState", "Rates",
    "RegressorMixin", "StrOptions",
    "TransformerMixin", "_check_feature_names_in", "_check_optimize_result", "_check_partial_fit_first_call",
    "_check_sample_weight",
    "_fit_context", "_get_output_config", "available_if", "validate_parameter_constraints", "warn", "warn_of_parameter",
]  # fmt: skip

if TYPE_CHECKING:
    Function = TypeVar("Function", bound=Callable[..., Any])

    class BaseEstimator(sklearn.base.BaseEstimator):
        n_features_in_: int
        feature_names_in_: np.ndarray

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...

    class ClassifierMixin(sklearn.base.ClassifierMixin):
        classes_: np.ndarray

        def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float: ...

    class RegressorMixin(sklearn.base.RegressorMixin):
        def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float: ...

    class MetaEstimatorMixin(sklearn.base.MetaEstimatorMixin): ...

    class TransformerMixin(sklearn.base.TransformerMixin): ...

    def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Function], Function]: ...
    def available_if(check: Callable[[Any], bool]) -> Callable[[Function], Function]: ...

else:
    BaseEstimator = sklearn.base.BaseEstimator
    ClassifierMixin = sklearn.base.ClassifierMixin
    RegressorMixin = sklearn.base.RegressorMixin
    MetaEstimatorMixin = sklearn.base.MetaEstimatorMixin
    TransformerMixin = sklearn.base.TransformerMixin
    _fit_context = sklearn.base._fit_context
    available_if = sklearn.utils.metaestimators.available_if

LayerSizes = int | Sequence[int] | np.ndarray
LearningRate = str | Callable[[int, int], float]
Metric = str | Callable[..., float] | None
Names = str | Sequence[str]
Rates = float | Sequence[float] | np.ndarray
Dtype = str | type | np.dtype
RandomState = int | np.random.RandomState | None
#: The name of a rule, a pair such as ('normal', std), or a function.
Initial = str | tuple[str, float] | Callable[..., Any]
ClassWeight = str | Mapping[Any, float] | Sequence[Mapping[Any, float]] | None

# Files whose frames lie between a user's call and a warning: this package, and scikit-learn's decorator of ``fit``.
_PACKAGE = str(Path(__file__).parents[1])
_DECORATORS = (sklearn.base.__file__, contextlib.__file__)
# Modules that call fits in a loop.
_LOOPS = ("sklearn.model_selection.", "sklearn.ensemble.", "sklearn.multi", "joblib.")
# Actions of filters that let no warning pass in silence, or each.
_NOT_ONCE = ("always", "all", "error", "ignore")


# Messages about parameters that fits called by scikit-learn have given in this process.
_told: set[str] = set()


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn, with the line from which the user called this package."""
    level, _ = _caller()
    warnings.warn(message, category, stacklevel=level)


def warn_of_parameter(message: str) -> None:
    """Warn of a parameter that has no effect; in fits that scikit-learn calls in a loop, once per process.

    A search or a cross-validation calls the same line of scikit-learn for each fit, and Python's default filter shows a
    line's warning once; but it forgets which when any filter changes, as in each of these fits. Filters that ask for
    all are heeded.
    """
    level, frame = _caller()
    module = frame.f_globals.get("__name__", "")
    if _in_loop(frame) and _action(message, module, frame.f_lineno) not in _NOT_ONCE:
        if message in _told:
            return
        _told.add(message)
    warnings.warn(message, UserWarning, stacklevel=level)


def _caller() -> tuple[int, FrameType]:
    """The frame from which this package was called, and the stacklevel that names it in a function that calls this
    one."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith((_PACKAGE, *_DECORATORS)):
        level, frame = level + 1, frame.f_back
    return level, frame


def _in_loop(frame: FrameType | None) -> bool:
    """Whether a module of ``_LOOPS`` is among the callers."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(_LOOPS):
            return True
        frame = frame.f_back
    return False


def _action(message: str, module: str, line: int) -> str:
    """What Python's filters say of a UserWarning."""
    for action, text, category, where, number in warnings.filters:
        if not issubclass(UserWarning, category) or number not in (0, line):
            continue
        if (text is None or re.match(text, message)) and (where is None or re.match(where, module)):
            return action
    return "default"
