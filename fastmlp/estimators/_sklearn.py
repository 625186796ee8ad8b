"""scikit-learn's bases and decorators with types, and the types of parameters. scikit-learn itself has none: to a type checker
whatever it decorates is Any, and so is every method that comes from its classes.

When the program runs, these names are scikit-learn's own objects; this file adds nothing to them and refuses to hold code that
runs. A type checker sees subclasses that say what users get (and go on being scikit-learn's where it has stubs for it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import sklearn.base
import sklearn.utils.metaestimators
from numpy.typing import ArrayLike

__all__ = [
    "BaseEstimator", "ClassWeight", "ClassifierMixin", "Initial", "LayerSizes", "LearningRate", "MetaEstimatorMixin", "Metric", "Names",
    "RandomState", "Rates", "RegressorMixin", "TransformerMixin", "_fit_context", "available_if",
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
RandomState = int | np.random.RandomState | None
#: A rule's name, ('normal', std) and the like, or a function.
Initial = str | tuple[str, float] | Callable[..., Any]
ClassWeight = str | Mapping[Any, float] | Sequence[Mapping[Any, float]] | None
