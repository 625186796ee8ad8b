"""Models in service: scalers of a pipeline folded into the first layer, and predictions of single rows in a few
microseconds."""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Mapping, Sequence
from numbers import Number
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import CodedRowForward, Codes, RowForward, apply_output, bin_sums, forward
from fastmlp.core.memory import ALIGNMENT, aligned_empty, all_finite
from fastmlp.estimators._sklearn import warn
from fastmlp.estimators.base import BaseMLP, BaseModel, mean_output
from fastmlp.estimators.ensemble import BaseMLPEnsemble
from fastmlp.estimators.fitted import CONTINUATION, RECORD, STOCHASTIC_CONTINUATION, STOCHASTIC_RECORD, forget_run
from fastmlp.network.network import Network
from fastmlp.tabular.base import BaseTabular
from fastmlp.tabular.coding import Inputs, RowCoder, RowScaler
from fastmlp.tabular.columns import Columns
from fastmlp.tabular.frames import Table
from fastmlp.tabular.regressor import TabularRegressor

_SCALERS = (StandardScaler, MinMaxScaler, RobustScaler, MaxAbsScaler)
# A folded first layer adds numbers that are larger than their sum. Beyond this loss of accuracy, in units of the scaled
# column, there is a warning.
_MOST_LOSS = 1e-3


# --- folding -------------------------------------------------------------------------------------------------------


def fold_scaler(model: Any) -> Any:
    """The same model with its scalers folded into the layers.

    It takes the columns, and predicts the target, on their own scales.

    Parameters
    ----------
    model : Pipeline or TransformedTargetRegressor
        Fitted. A pipeline ends with an estimator or ensemble of fastmlp, or with a TransformedTargetRegressor around
        one; before it stand any of StandardScaler, MinMaxScaler, RobustScaler and MaxAbsScaler, with any parameters but
        ``clip=True``. They become part of the first layer. Such a transformer of a TransformedTargetRegressor becomes
        part of the output layer.

    Returns
    -------
    MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor, Pipeline or TransformedTargetRegressor
        A copy of the last step, which shares nothing with ``model``. Its predictions agree to rounding, and its feature
        names are those of the first scaler that was folded. Other steps before the scalers (an imputer, say) stay, in a
        Pipeline. So does a TransformedTargetRegressor whose transformer is not one of these scalers, whose y had shape
        (n, 1), or whose network's output is not linear (``loss='poisson'``). Further training works on unscaled
        columns, with an empty optimizer state.

    Raises
    ------
    NotFittedError
    TypeError
        For a model of another kind.
    ValueError
        If there is nothing to fold: no scaler stands directly before the last step, and none transforms the target; if
        the fold could not be exact: for ``clip=True``, and for a first layer that adds its input (``residual=True``);
        and if new weights are not finite in the network's element type.

    Warns
    -----
    UserWarning
        If the offsets of columns or of the target are so much larger than their scales that the network's element type
        loses digits of them.

    Examples
    --------
    >>> from fastmlp import MLPClassifier, fold_scaler
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X, y = load_iris(return_X_y=True)
    >>> pipeline = make_pipeline(StandardScaler(), MLPClassifier(solver="lbfgs", random_state=0)).fit(X, y)
    >>> bool((fold_scaler(pipeline).predict(X) == pipeline.predict(X)).all())
    True
    """
    if not isinstance(model, (Pipeline, TransformedTargetRegressor)):
        raise TypeError(f"fold_scaler takes a fitted Pipeline or TransformedTargetRegressor, got {_described(model)}.")
    check_is_fitted(model)
    _check_last(model)
    is_wrapped = isinstance(model, TransformedTargetRegressor)
    pipeline = model.regressor_ if is_wrapped else model
    if isinstance(pipeline, Pipeline):
        kept, scalers = _split(pipeline)
        if not scalers and not _folds_target(model if is_wrapped else pipeline[-1]):
            before = f"a {type(kept[-1][1]).__name__}" if kept else "nothing"
            raise ValueError(
                f"Only {', '.join(scaler.__name__ for scaler in _SCALERS)} can be folded; before the last step stands "
                f"{before}."
            )
    if not is_wrapped:
        return _without_scalers(model)
    folded = copy.copy(model)
    folded.regressor_ = _without_scalers(pipeline) if isinstance(pipeline, Pipeline) else copy.deepcopy(pipeline)
    names = getattr(folded.regressor_, "feature_names_in_", None)
    vars(folded).pop("feature_names_in_", None)
    if names is not None:
        folded.feature_names_in_ = names
    return _without_target_scaler(folded)


def _described(model: Any) -> str:
    """What was given instead of a model."""
    return (
        f"the class {model.__name__}" if isinstance(model, type) else f"{type(model).__name__}: {reprlib.repr(model)}"
    )


def _check_last(model: Any) -> None:
    """Refuse a model around an estimator whose layers cannot take over a scaler's work."""
    kinds: list[type] = []
    while isinstance(model, (Pipeline, TransformedTargetRegressor)):
        if type(model) in kinds:
            raise TypeError(f"fold_scaler takes no {type(model).__name__} within another: put their steps into one.")
        kinds.append(type(model))
        model = model.regressor_ if isinstance(model, TransformedTargetRegressor) else model[-1]
    if isinstance(model, (BaseMLP, BaseMLPEnsemble)):
        return
    advice = ""
    if isinstance(model, BaseModel):
        advice = (
            " It needs no scaler: it learns bins of each column, and the target's scale. Fit it on the columns as they "
            "are."
        )
    raise TypeError(
        f"fold_scaler folds into an MLPClassifier, an MLPRegressor or an ensemble of them; the last step is a "
        f"{type(model).__name__}."
        f"{advice}"
    )


def _split(pipeline: Pipeline) -> tuple[list[tuple[str, Any]], list[Any]]:
    """The steps of a pipeline before the scalers, and the scalers directly before its last step."""
    steps = [(name, step) for name, step in pipeline.steps[:-1] if step is not None and step != "passthrough"]
    n_kept = len(steps)
    while n_kept and type(steps[n_kept - 1][1]) in _SCALERS:
        n_kept -= 1
    return steps[:n_kept], [step for _, step in steps[n_kept:]]


def _without_scalers(pipeline: Pipeline) -> Any:
    """A copy of the pipeline, or of its last step alone, which does the work of the scalers directly before it."""
    kept, scalers = _split(pipeline)
    name, last = pipeline.steps[-1]
    folded = _without_target_scaler(_folded(last, scalers) if scalers else copy.deepcopy(last))
    return Pipeline([*copy.deepcopy(kept), (name, folded)]) if kept else folded


def _folded(last: Any, scalers: list[Any]) -> Any:
    """A copy of a pipeline's last step that does the scalers' work."""
    factor, shift = np.ones(scalers[0].n_features_in_), np.zeros(scalers[0].n_features_in_)
    for scaler in scalers:
        own_factor, own_shift = _scaling(scaler)
        factor, shift = factor * own_factor, shift * own_factor + own_shift
    model = copy.deepcopy(last)
    inner = model.regressor_ if isinstance(model, TransformedTargetRegressor) else model
    members = inner.estimators_ if isinstance(inner, BaseMLPEnsemble) else []
    names = getattr(scalers[0], "feature_names_in_", None)
    for estimator in {id(each): each for each in (model, inner, *members)}.values():
        vars(estimator).pop("feature_names_in_", None)
        if names is not None:
            estimator.feature_names_in_ = names.copy()
    for estimator in members or [inner]:
        estimator.network_ = _fold_into(estimator.network_, factor, shift)
        forget_run(estimator)
    columns = range(len(shift)) if names is None else names
    _warn_of_loss(members[0] if members else inner, shift, "Column {}", columns)
    return model


def _network_estimator(regressor: Any) -> Any:
    """The estimator of a TransformedTargetRegressor's regressor, which may be a pipeline."""
    return regressor[-1] if isinstance(regressor, Pipeline) else regressor


def _folds_target(model: Any) -> bool:
    """Whether the model is a TransformedTargetRegressor whose transformer an output layer can take over."""
    if not isinstance(model, TransformedTargetRegressor) or type(model.transformer_) not in _SCALERS:
        return False
    inner = _network_estimator(model.regressor_)
    network = (inner.estimators_[0] if isinstance(inner, BaseMLPEnsemble) else inner).network_
    clips = getattr(model.transformer_, "clip", False)
    # y of shape (n, 1) is predicted in that shape, which a regressor alone does not
    is_column = model._training_dim == 2 and inner.n_outputs_ == 1
    return network.out_activation == "identity" and not clips and not is_column


def _without_target_scaler(model: Any) -> Any:
    """The regressor within a TransformedTargetRegressor, its output layer on the target's own scale; where that is not
    linear, and of any other model, the model itself."""
    if not _folds_target(model):
        return model
    regressor = model.regressor_
    inner = _network_estimator(regressor)
    members = inner.estimators_ if isinstance(inner, BaseMLPEnsemble) else [inner]
    factor, shift = _scaling(model.transformer_)
    _warn_of_loss(members[0], shift, "The target" if np.size(shift) == 1 else "Column {} of the target")
    for member in members:
        network = member.network_ = member.network_.copy()
        with np.errstate(over="ignore"):
            network.coefs[-1][...] = network.coefs[-1] / factor
            network.intercepts[-1][...] = (network.intercepts[-1] - shift) / factor
        _check_finite(network)
        forget_run(member)
    return regressor


def _check_finite(network: Network) -> None:
    """ValueError if folded weights are not finite."""
    if not (all_finite(network.parameters) and all_finite(network.statistics)):
        raise ValueError(
            f"The folded weights are not finite in {network.dtype.name}: the scalers' numbers are too large."
        )


def _scaling(scaler: Any) -> tuple[Any, Any]:
    """Factor and shift, each for all columns or for each: a scaled column is factor x + shift."""
    if getattr(scaler, "clip", False):
        raise ValueError(f"{type(scaler).__name__}(clip=True) is not linear; it cannot be folded into a layer.")
    one, zero = np.float64(1.0), np.float64(0.0)
    if isinstance(scaler, MinMaxScaler):
        return np.asarray(scaler.scale_, np.float64), np.asarray(scaler.min_, np.float64)
    if isinstance(scaler, MaxAbsScaler):
        return 1 / np.asarray(scaler.scale_, np.float64), zero
    if isinstance(scaler, StandardScaler):
        scale = scaler.scale_ if scaler.with_std else None
        centre = scaler.mean_ if scaler.with_mean else None
    else:
        scale = scaler.scale_ if scaler.with_scaling else None
        centre = scaler.center_ if scaler.with_centering else None
    factor = one if scale is None else 1 / np.asarray(scale, np.float64)
    return factor, zero if centre is None else -np.asarray(centre, np.float64) * factor


def _fold_into(network: Network, factor: np.ndarray, shift: np.ndarray) -> Network:
    """A network whose output for columns x is that of ``network`` for factor x + shift."""
    network = network.copy()
    if network.residual and len(network.layer_sizes) > 2 and network.layer_sizes[0] == network.layer_sizes[1]:
        raise ValueError(
            "residual=True: the first layer adds its input, the scaled columns, to its output, so that the scaler "
            "cannot be folded into it."
        )
    weights = network.coefs[0].astype(np.float64)
    product = shift @ weights
    with np.errstate(over="ignore"):  # checked below
        network.coefs[0][...] = factor[:, np.newaxis] * weights
        if network.batch_norm and network.means:  # the mean of the product, which moves by as much
            network.means[0][...] = network.means[0] - product
        else:
            network.intercepts[0][...] = network.intercepts[0] + product
    _check_finite(network)
    return network


def _warn_of_loss(estimator: BaseMLP, shift: Any, described: str, names: Any = None) -> None:
    """Warn if a column lies so far from 0, on its own scale, that the network's element type loses digits of it.

    shift: of each column, or of all; described: with a place for the column's name or, without names, its number.
    """
    dtype, distance = estimator.network_.dtype, np.abs(np.atleast_1d(shift))
    column = int(distance.argmax())
    loss = float(distance[column] * np.finfo(dtype).eps)
    if loss > _MOST_LOSS:
        name = column if names is None else names[column]
        warn(
            f"{described.format(repr(name))} lies {distance[column]:.1e} times its scale from 0. In {dtype.name}, the "
            f"folded network loses up to {loss:.1e} of that scale. Train with dtype='float64', or keep the scaler."
        )


# --- one row -------------------------------------------------------------------------------------------------------


class RowPredictor:
    """Predicts one row at a time from a fitted model, in a few microseconds: for a service.

    Parameters
    ----------
    model : MLPClassifier, MLPRegressor, MLPEnsembleClassifier, MLPEnsembleRegressor, TabularClassifier or \
TabularRegressor
        Fitted. The predictor keeps a copy of what it needs: training the model further does not change it. For a
        pipeline with scalers see :func:`fold_scaler`.

    Attributes
    ----------
    feature_names_in_ : list of str or None
        The model's feature names.
    classes_ : list
        Labels of a classifier, as Python's values; the columns of ``predict_proba``.

    Raises
    ------
    NotFittedError
    TypeError
        For a model of another kind.

    Notes
    -----
    A row is one of

    - a dict of numbers by feature name, in any order. Other keys are ignored;
    - a DataFrame of pandas or polars with one row, or a Series of pandas: also by name, like a dict;
    - a sequence or array of numbers in the order of the features, (n_features,) or (1, n_features).

    For a model without feature names, a dict is an error, and the columns of a DataFrame are taken in their order.
    Threads may share a predictor. It can be pickled.

    A TabularClassifier or TabularRegressor takes the values that its tables hold, and treats them as there: words,
    dates, None for a missing one. Plain values in a list or dict take microseconds; dates, and a row of a DataFrame,
    take longer.

    Examples
    --------
    >>> import pandas as pd
    >>> from fastmlp import MLPRegressor, RowPredictor
    >>> frame = pd.DataFrame({"width": [1.0, 2.0, 3.0], "height": [1.0, 3.0, 2.0]})
    >>> model = MLPRegressor(solver="lbfgs", random_state=0).fit(frame, [1.0, 6.0, 6.0])
    >>> row = {"height": 3.0, "width": 2.0}
    >>> bool(RowPredictor(model).predict(row) == model.predict(frame[1:2])[0])
    True
    """

    def __init__(self, model: Any) -> None:
        if not isinstance(model, (BaseMLP, BaseMLPEnsemble, BaseTabular)):
            is_wrapped = isinstance(model, (Pipeline, TransformedTargetRegressor))
            advice = f" fold_scaler returns the estimator within a {type(model).__name__}." if is_wrapped else ""
            raise TypeError(f"RowPredictor takes an estimator of fastmlp, got {_described(model)}.{advice}")
        check_is_fitted(model)
        members = [model] if isinstance(model, BaseMLP) else model.estimators_
        self._networks = [member.network_.copy() for member in members]
        self._model: Any = copy.copy(members[0])  # turns outputs into labels or values
        for name in (*RECORD, *STOCHASTIC_RECORD, *CONTINUATION, *STOCHASTIC_CONTINUATION):
            self._model.__dict__.pop(name, None)
        self._model.network_ = self._networks[0]
        self._table = _TableRows.of(model, self._model, self._networks) if isinstance(model, BaseTabular) else None
        first = self._networks[0]
        self._largest = float(np.finfo(first.dtype).max)
        self._n_features = int(model.n_features_in_)
        names = getattr(model, "feature_names_in_", None)
        self.feature_names_in_: list[str] | None = None if names is None else names.tolist()
        if is_classifier(model):
            self.classes_ = model.classes_.tolist()
        self._is_multilabel = is_classifier(model) and self._model._target_type.startswith("multilabel")
        self._forward: RowForward | None = None
        self._logits: RowForward | None = None  # of one network for two classes, which share an output
        if self._table is None and not (is_classifier(model) and len(self.classes_) == 1):
            arrays = [(network.parameters, network.statistics) for network in self._networks]
            self._forward = RowForward(first.plan, arrays)
            if is_classifier(model) and model.n_outputs_ == 1 and len(arrays) == 1:
                self._logits = RowForward(first.plan_with("identity"), arrays)

    def predict(self, row: Any) -> Any:
        """The model's prediction of one row.

        Parameters
        ----------
        row : dict, DataFrame, Series or array-like of shape (n_features,)
            See the class.

        Returns
        -------
        str, int, float or ndarray of shape (n_outputs,)
            A classifier's label, or a regressor's value, as Python's; an array for several outputs. It equals the
            model's own ``predict``.

        Raises
        ------
        ValueError
            For another number of values, a name that is missing, and values that are not finite or that the network's
            element type cannot hold.
        TypeError
            For values that are not numbers.
        """
        if self._table is not None:
            return self._table.predict(self._codes(row))
        values = self._values(row)
        if isinstance(values, np.ma.MaskedArray):  # below whose mask are numbers
            values = self._checked(values)
        numbers = None if self._forward is None or self._is_multilabel else self._forward.values(values)
        if numbers is not None and not hasattr(self, "classes_"):
            return numbers[0] if len(numbers) == 1 else np.array(numbers, self._networks[0].dtype)
        if numbers is not None:
            return self.classes_[numbers[0] > 0.5 if len(numbers) == 1 else numbers.index(max(numbers))]
        output = mean_output(self._networks, self._checked(values))
        if hasattr(self, "classes_"):
            prediction = self._model._labels(output)
            prediction = prediction.toarray() if hasattr(prediction, "toarray") else prediction
        else:
            prediction = self._model._shaped(output)
        first = prediction[0]
        return first if prediction.ndim > 1 else prediction.item()

    def predict_proba(self, row: Any) -> np.ndarray:
        """A classifier's probabilities for one row.

        Parameters
        ----------
        row : dict, DataFrame, Series or array-like of shape (n_features,)
            See the class.

        Returns
        -------
        ndarray of shape (n_classes,)
            In the order of ``classes_``; two numbers for two classes. The bits of the model's own ``predict_proba``.

        Raises
        ------
        AttributeError
            For a regressor.
        ValueError, TypeError
            As ``predict``.
        """
        if not hasattr(self, "classes_"):
            raise AttributeError("A regressor has no predict_proba.")
        if self._table is not None:
            return np.array(self._table.mean(self._codes(row)))
        values = self._values(row)
        if isinstance(values, np.ma.MaskedArray):  # below whose mask are numbers
            values = self._checked(values)
        numbers = None if self._forward is None or self._model.n_outputs_ == 1 else self._forward.values(values)
        if numbers is not None:
            return np.array(numbers, self._networks[0].dtype)
        if self._logits is not None and (logit := self._logits.values(values)) is not None:
            first = self._networks[0]
            both: np.ndarray = apply_output(
                first.plan_with("logistic"), np.array([[-logit[0], logit[0]]], first.dtype)
            )[0]
            return both
        probabilities: np.ndarray = self._model._probabilities(self._networks, self._checked(values))[0]
        return probabilities

    def _codes(self, row: Any) -> Inputs:
        """The codes of a table's row."""
        assert self._table is not None
        names = self.feature_names_in_
        if hasattr(row, "columns") and hasattr(row, "shape") and hasattr(row, "to_numpy"):
            missing = [] if names is None else [name for name in names if name not in list(row.columns)]
            if missing:
                raise _lacking(missing)
            row = row if names is None else row[names]
            if row.shape != (1, self._n_features):
                raise self._other_shape(f"shape {row.shape}")
            return self._table.coder.codes(Table(row))
        values: Any = self._values(row)
        if isinstance(values, np.ndarray):
            values = values.astype(object).ravel().tolist() if values.dtype.kind in "mM" else values.ravel().tolist()
        elif isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise self._other_shape(f"{type(values).__name__}, {reprlib.repr(values)}")
        elif len(values) == 1 and isinstance(values[0], (list, tuple)):
            values = values[0]
        if len(values) != self._n_features:
            raise self._other_shape(f"{len(values)}")
        return self._table.coder.row(values)

    def _values(self, row: Any) -> ArrayLike:
        """The row's values in the order of the features."""
        names = self.feature_names_in_
        if isinstance(row, Mapping):
            if names is None:
                raise ValueError("The model has no feature names: pass the values in their order, not in a dict.")
            return _pick(row, names)
        if isinstance(row, np.ndarray) or not hasattr(row, "to_numpy"):
            as_it_is: ArrayLike = row
            return as_it_is
        labels = getattr(row, "columns", None)
        labels = getattr(row, "index", None) if labels is None else labels
        values = np.asarray(row.to_numpy())
        if names is None or labels is None:
            return values
        labels = list(labels) if isinstance(labels, list) else labels.tolist()
        if labels == names or (values.ndim > 1 and len(values) != 1):
            return values
        return _pick(dict(zip(labels, values.ravel().tolist(), strict=True)), names)

    def _name(self, number: int) -> str | int:
        """A feature's name, or its number where there are no names."""
        return number if self.feature_names_in_ is None else self.feature_names_in_[number]

    def _other_shape(self, got: str) -> ValueError:
        """The error for what is no row of as many values."""
        names = "" if self.feature_names_in_ is None else f", of {reprlib.repr(self.feature_names_in_)}"
        return ValueError(
            f"A row has {self._n_features} values{names}, got {got}. Pass {'a dict by name, ' if names else ''}a list "
            f"or an array."
        )

    def _checked(self, values: ArrayLike) -> np.ndarray:
        """The values as an array (1, n_features) that the network can read."""
        try:
            array = np.asarray(values)
        except ValueError:  # lists among numbers
            array = np.asarray(values, dtype=object)
        if array.shape != (self._n_features,) and array.shape != (1, self._n_features):
            raise self._other_shape(
                f"shape {array.shape}" if array.ndim else f"{type(values).__name__}, {reprlib.repr(array.item())}"
            )
        if isinstance(values, np.ma.MaskedArray) and (masked := np.flatnonzero(np.ma.getmaskarray(values))).size:
            raise ValueError(
                f"Input row has masked values, the first that of feature {self._name(int(masked[0]))!r}. Fill them "
                "first, with row.filled(0), for example."
            )
        kind = array.dtype.kind
        if kind == "O" and all(map(_is_real, array.ravel().tolist())):
            array = self._as_floats(array)
        elif kind not in "fiub":
            given = np.asarray(values, dtype=object).ravel().tolist()  # NumPy makes text of numbers beside text
            number, value = next(
                ((i, v) for i, v in enumerate(given) if not _is_real(v)), (0, array.ravel()[0])
            )  # times may look like integers
            raise TypeError(
                f"A row must hold numbers, got {reprlib.repr(value)} for feature {self._name(number)!r}: convert it "
                f"first."
            )
        if array.dtype != np.float64 and array.dtype != np.float32:
            array = array.astype(np.float64)
        narrow = self._networks[0].dtype == np.float32  # comparisons with NaN are false
        if not (-self._largest <= array.min() <= array.max() <= self._largest if narrow else all_finite(array)):
            number = int(np.flatnonzero(~(np.abs(array.ravel()) <= self._largest))[0])
            raise ValueError(
                f"Feature {self._name(number)!r} is {array.ravel()[number]}; values must be finite in "
                f"{self._networks[0].dtype.name}."
            )
        return array.reshape(1, -1)

    def _as_floats(self, array: np.ndarray) -> np.ndarray:
        """Objects, all of them numbers, as float64."""
        try:
            return array.astype(np.float64)
        except OverflowError:
            for number, value in enumerate(array.ravel().tolist()):
                try:
                    float(value if value is not None else np.nan)
                except OverflowError:
                    raise ValueError(
                        f"Feature {self._name(number)!r} is {reprlib.repr(value)}; values must be finite in float64."
                    ) from None
            raise


def _is_real(value: Any) -> bool:
    return isinstance(value, (Number, np.bool_, NoneType)) and not isinstance(value, (complex, np.complexfloating))


class _TableRows:
    """A model of tables, prepared for one row at a time.

    The sums of weights before each bin are made once. The weights lie in one block, which the system holds in large
    pages: a row reads most of them. They push Python's and NumPy's own data out of the cache, so that the mean of a few
    numbers is computed in Python.
    """

    def __init__(
        self,
        columns: Columns,
        scales: list[tuple[float, ...]],
        member: Any,
        networks: list[Network],
        counts: list[int] | None,
    ) -> None:
        self._state = columns, scales, member, networks, counts
        first = networks[0]
        scaled = columns.are_scaled
        self.coder: RowCoder | RowScaler = RowScaler(columns, first.dtype.name) if scaled else RowCoder(columns)
        self._shape, self._dtype = (len(networks), first.layer_sizes[-1]), first.dtype
        self._counts = counts
        self._n_all = len(networks) if counts is None else sum(counts)
        self._scales = scales
        self._classes = member.classes_.tolist() if is_classifier(member) else None
        self._is_multilabel = is_classifier(member) and member._target_type.startswith("multilabel")
        self._is_binary = is_classifier(member) and member.n_outputs_ == 1
        self._plans = [network.plan_with("identity") if self._is_binary else network.plan for network in networks]
        self._logistic = first.plan_with("logistic")
        self._networks = networks
        self._forward = self._prepared()

    @classmethod
    def of(cls, model: BaseTabular, member: Any, networks: list[Network]) -> _TableRows:
        """Those of a fitted model; ``member`` turns outputs into labels."""
        scales: list[tuple[float, ...]] = []
        if isinstance(model, TabularRegressor):
            scales = np.array([model.target_scale_, model.target_mean_, *model.target_range_]).T.tolist()
        return cls(model.columns_, scales, member, networks, model._counts)

    def _prepared(self) -> CodedRowForward | None:
        """A function of a row's codes; None for scaled numbers. The parameters and sums of all networks lie in one
        block."""
        if isinstance(self.coder, RowScaler):
            return None
        layout, networks = self.coder.layout, self._networks
        sums = [bin_sums(network.plan, network.parameters, layout).ravel() for network in networks]
        sizes = [network.n_parameters + len(own) for network, own in zip(networks, sums, strict=True)]
        places = np.cumsum([0, *(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes)])
        block, packed = aligned_empty(int(places[-1]), self._dtype), []
        for plan, network, own, place, size in zip(self._plans, networks, sums, places.tolist(), sizes, strict=False):
            part, n_parameters = block[place : place + size], network.n_parameters
            part[:n_parameters], part[n_parameters:] = network.parameters, own
            packed.append((plan, part[:n_parameters], part[n_parameters:]))
        return CodedRowForward(layout, packed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _TableRows, self._state

    def mean(self, codes: Inputs) -> list[float]:
        """The model's prediction of a row: probabilities, or numbers on the target's scale. Sums are in the model's
        order."""
        if self._classes is not None and len(self._classes) == 1:
            return [1.0]
        outputs = np.empty(self._shape, dtype=self._dtype)
        if self._forward is not None and isinstance(codes, Codes):
            self._forward(codes, outputs)
        else:
            for i, (plan, network) in enumerate(zip(self._plans, self._networks, strict=True)):
                forward(plan, network.parameters, codes, outputs[i : i + 1], 1, network.statistics)
        if self._is_binary:
            both = np.array([(-a, a) for a in outputs.ravel().tolist()], self._dtype)
            outputs = apply_output(self._logistic, both)
        rows = outputs.tolist()
        if self._counts is not None:
            rows = [[a * count for a in row] for row, count in zip(rows, self._counts, strict=True)]
        total, *others = rows
        for other in others:
            total = [a + b for a, b in zip(total, other, strict=True)]
        mean = [a / self._n_all for a in total]
        if self._classes is None:
            own = zip(mean, self._scales, strict=True)
            return [min(max(a * scale + shift, low), high) for a, (scale, shift, low, high) in own]
        if self._is_multilabel:
            return mean
        whole = mean[0] + mean[1] if self._is_binary else float(np.add.reduce(mean))
        return [a / whole for a in mean]

    def predict(self, codes: Inputs) -> Any:
        """The model's prediction of a row: a label, a number, or an array of several."""
        mean = self.mean(codes)
        if self._classes is None:
            return mean[0] if len(mean) == 1 else np.array(mean)
        if self._is_multilabel:
            return (np.array(mean) > 0.5).astype(int)
        return self._classes[int(mean[1] > 0.5) if self._is_binary and len(mean) == 2 else mean.index(max(mean))]


def _pick(row: Mapping[str, Any], names: list[str]) -> ArrayLike:
    """The values of these names."""
    try:
        return itemgetter(*names)(row) if len(names) > 1 else [row[names[0]]]
    except KeyError:
        raise _lacking([name for name in names if name not in row]) from None


def _lacking(names: list[str]) -> ValueError:
    return ValueError(f"The row lacks features: {', '.join(map(repr, names[:5]))}.")
