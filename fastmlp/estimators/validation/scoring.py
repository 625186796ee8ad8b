"""Scores by scikit-learn's scorers and metrics, with weights of rows or of outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_array

from fastmlp.estimators._sklearn import BaseEstimator, ClassifierMixin, RegressorMixin
from fastmlp.estimators.validation.held_out import ValidationData
from fastmlp.estimators.validation.rows import check_target, refuse_beside_blocks
from fastmlp.estimators.validation.weights import check_weight, leave_out, weight_of_rows, weight_shape
from fastmlp.training.rows import RowSource

# Usual metrics of regressors, for a message.
_REGRESSION_METRICS = ("r2", "neg_mean_squared_error", "neg_mean_absolute_error")


def tell_labels(metric: Any, classes: np.ndarray) -> Any:
    """The scorer, told what it cannot infer: the classes that its rows lack, and which class is the positive one.

    A metric of probabilities is told the classes if it takes labels. A metric of two classes takes 1 to be the positive
    one; where there is no class 1, it is the second, as for ``decision_function`` in scikit-learn.
    """
    function = getattr(metric, "_score_func", None)
    if function is None:
        return metric
    parameters = inspect.signature(function).parameters
    arguments: dict[str, Any] = {}
    if "labels" in parameters and getattr(metric, "_response_method", "predict") != "predict":
        arguments["labels"] = classes
    takes_one = "pos_label" in parameters and parameters["pos_label"].default == 1
    if (
        takes_one
        and len(classes) == 2
        and 1 not in classes.tolist()
        and metric._kwargs.get("average", "binary") == "binary"
    ):
        arguments["pos_label"] = classes[1]
    told = copy.copy(metric)
    told._kwargs = {**arguments, **metric._kwargs}
    return told


def score_by(metric: Any, estimator: Any, rows: ValidationData) -> float:
    """The score by the estimator's ``validation_metric``.

    metric: its scorer, which gets the weights if it takes them. A ValueError names the metric, and one that suits the
    target instead.
    """
    given = estimator.validation_metric
    try:
        value = score_weighted(metric, estimator, rows.X, rows.y, rows.sample_weight)
    except (ValueError, TypeError, AttributeError) as error:
        if not isinstance(given, str):  # the user's own
            raise
        raise ValueError(
            f"validation_metric={given!r} cannot score this target: {error}{_other_metric(estimator)}"
        ) from error
    try:
        return float(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"validation_metric must return a number, got {value!r}.") from error


def _other_metric(estimator: Any) -> str:
    """A sentence with a metric of the same kind for the estimator's target; '' if there is none."""
    given, names = estimator.validation_metric, get_scorer_names()
    if not is_classifier(estimator):
        return (
            ""
            if given in _REGRESSION_METRICS
            else f" Metrics of a regressor are {', '.join(map(repr, _REGRESSION_METRICS))}, among others."
        )
    if given in _REGRESSION_METRICS:
        return " Metrics of a classifier are 'accuracy', 'neg_log_loss', 'roc_auc', among others."
    several = len(estimator.classes_) > 2 or estimator.n_outputs_ > 1
    other = next((name for name in (f"{given}_ovr", f"{given}_macro") if name in names), "")
    return f" For more than two classes, take {other!r}." if several and other else ""


def score_weighted(metric: Any, estimator: Any, X: Any, y: Any, weight: np.ndarray | None) -> Any:
    """The score by a scorer or a function (estimator, X, y), which gets the weights if it takes ``sample_weight``.

    Weights of outputs that are equal in each row are those of the rows, if the scorer takes several outputs. Otherwise
    it judges each output by itself, on the rows where its weight is not 0, and the score is the mean over outputs: of a
    classifier's, with ``average='macro'``, the mean over labels of ``average='binary'``; with 'weighted', each counts
    by the weight of its rows that have the label; with 'micro', all labels are those of one output. 'samples' is an
    error. A function gets weights of outputs as they are.
    """
    takes_weights = weight is not None and accepts_weights(metric)
    if weight is None or weight.ndim == 1 or not hasattr(metric, "_score_func"):
        return metric(estimator, X, y, **({"sample_weight": weight} if takes_weights else {}))
    if (of_rows := weight_of_rows(weight)) is not None:
        rows = slice(None) if of_rows.all() else np.flatnonzero(of_rows)
        some_X = X if isinstance(rows, slice) else X[rows]
        with suppress(ValueError):  # the metric is one of a single output
            return metric(estimator, some_X, y[rows], **({"sample_weight": of_rows[rows]} if takes_weights else {}))
    kind, predict = (_Yes, estimator.predict_proba) if is_classifier(estimator) else (_Number, estimator.predict)
    output = predict(X)
    y = y.toarray() if issparse(y) else np.asarray(y)
    average = None
    if is_classifier(estimator):
        metric, average, labels = _of_one_label(metric)
        if labels is not None:
            output, y, weight = output[:, labels], y[:, labels], weight[:, labels]
    if average == "micro":
        output, y, weight = (values.reshape(-1, 1) for values in (output, y, weight))
    counted = weight if takes_weights else (weight != 0).astype(np.float64)

    def score(o: int, known: np.ndarray) -> float:
        arguments = {"sample_weight": weight[known, o]} if takes_weights else {}
        return float(metric(kind(output[known, o]), None, y[known, o], **arguments))

    return mean_over_outputs(score, weight, (counted * y).sum(axis=0) if average == "weighted" else None)


def _of_one_label(metric: Any) -> tuple[Any, Any, Any]:
    """A scorer of several labels as one of a single label, how it averages over them, and which of them; None: all."""
    told, averages = (
        tell_labels(metric, np.array([0, 1])),
        inspect.signature(metric._score_func).parameters.get("average"),
    )
    if averages is None:
        return told, None, None
    average, labels = metric._kwargs.get("average", averages.default), None
    if average == "samples":
        raise ValueError(
            "average='samples', a mean over rows, cannot weigh the labels of a row differently: take average='macro' "
            "or 'micro', as 'f1_macro' does, for example."
        )
    if averages.default == "binary":
        told._kwargs["average"] = "binary"
        if told._kwargs.get("pos_label", 1) is None:  # as of 'f1_macro'
            del told._kwargs["pos_label"]
        labels = told._kwargs.pop("labels", None)
    return told, average, labels


def mean_over_outputs(
    score: Callable[[int, np.ndarray], float], weight: np.ndarray, shares: np.ndarray | None = None
) -> float:
    """Mean of ``score(output, rows)`` over the outputs for which it is a number; rows: those where the output has a
    weight.

    shares: what each output counts for; None, or 0 for all: all alike.
    """
    outputs = [o for o, column in enumerate(weight.T) if column.any()]
    scores = np.array([score(o, np.flatnonzero(weight[:, o])) for o in outputs])
    numbers = ~np.isnan(scores)
    if not numbers.any():
        return np.nan
    own = None if shares is None else shares[outputs][numbers]
    return float(np.average(scores[numbers], weights=own if own is not None and own.any() else None))


def leave_out_of_score(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """y, and the weights, for a score: those of rows (n,) if weights of outputs are equal in each row."""
    if isinstance(X, RowSource):
        refuse_beside_blocks(y, sample_weight)
        y, sample_weight = X._target_and_weight()
    y = leave_out(y, sample_weight)
    check_target(estimator, y)
    if sample_weight is None or len(weight_shape(sample_weight)) != 2:
        return y, sample_weight
    weight = check_weight(sample_weight, X)
    of_rows = None if weight is None else weight_of_rows(weight)
    return y, weight if of_rows is None else of_rows


def mean_metric(metric: Callable[..., float], y: Any, prediction: Any, weight: np.ndarray) -> float:
    """The mean over outputs of a metric (true, predicted, sample_weight), for weights of outputs."""
    true, predicted = (
        values.toarray() if issparse(values) else values
        for values in (check_array(y, accept_sparse="csr", dtype=None, input_name="y"), prediction)
    )
    if true.shape != predicted.shape:
        raise ValueError(f"y must have the shape of predict(X), {predicted.shape}, got {true.shape}.")
    return mean_over_outputs(
        lambda o, known: metric(true[known, o], predicted[known, o], sample_weight=weight[known, o]), weight
    )


class _Number(RegressorMixin, BaseEstimator):
    """A fitted regressor of one output, for scorers: it predicts what it is given."""

    def __init__(self, output: Any = None) -> None:
        self.output = output

    def fit(self, X: Any, y: Any) -> _Number:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> np.ndarray:
        """The output."""
        return np.asarray(self.output)


class _Yes(ClassifierMixin, BaseEstimator):
    """The same for a label of yes or no, whose probabilities it is given."""

    def __init__(self, output: Any = None) -> None:
        self.output = output
        self.classes_ = np.array([0, 1])

    def fit(self, X: Any, y: Any) -> _Yes:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> np.ndarray:
        """Whether yes is more probable than no."""
        return (np.asarray(self.output) > 0.5).astype(int)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of no and of yes."""
        return np.stack([1 - self.output, self.output], axis=1)


def accepts_weights(metric: Any) -> bool:
    """Whether a scorer, or the metric that it was made from, has a parameter ``sample_weight``."""
    function = getattr(metric, "_score_func", metric)
    parameters = inspect.signature(function).parameters
    return "sample_weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
