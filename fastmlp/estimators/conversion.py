"""Conversion from and to scikit-learn's MLPs: parameters, network, record, optimizer state."""

from __future__ import annotations

import copy
import inspect
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import is_classifier
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

import fastmlp.core as core
from fastmlp.core.memory import all_finite
from fastmlp.estimators._sklearn import warn
from fastmlp.estimators.fitted import INPUT, RECORD, STOCHASTIC_RECORD
from fastmlp.estimators.persistence import MODELS
from fastmlp.estimators.transfer import take_network
from fastmlp.network.network import Network
from fastmlp.training.solvers import update_rule

# Fitted attributes with the same name and meaning in both.
_SHARED = {*INPUT, "classes_", *RECORD, *STOCHASTIC_RECORD} - {"history_", "validation_loss_curve_"}
# Values that scikit-learn has, of parameters for which fastmlp has more.
_THEIR_ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
_THEIR_VALUES = {
    "solver": ("lbfgs", "sgd", "adam"), "learning_rate": ("constant", "invscaling", "adaptive"),
    "loss": ("log_loss", "squared_error", "poisson"),
}  # fmt: skip
# Parameters of fastmlp that affect neither predictions nor further training.
_NO_LOSS = {
    "dtype", "n_jobs", "weight_init", "bias_init", "pretrained", "pretrained_rate", "residual", "validation_metric",
}  # fmt: skip
_STATE_ARRAYS = {"adam": ("ms", "vs"), "sgd_momentum": ("velocities",), "sgd_nesterov": ("velocities",), "sgd": ()}


def _activation(network: Network, asked: Any) -> str:
    """The name of the activation that all hidden layers share, which scikit-learn must have."""
    names = set(network.activations) or ({asked} if isinstance(asked, str) else {"identity"})
    if len(names) > 1:
        raise ValueError(
            f"activation: scikit-learn has one for all hidden layers, this network has {network.activations}."
        )
    (name,) = names
    if name not in _THEIR_ACTIVATIONS:
        raise ValueError(f"activation={name!r}: scikit-learn has only {_THEIR_ACTIVATIONS}.")
    return name


def has_residual_layers(network: Network) -> bool:
    """Whether a hidden layer adds its input to its output."""
    return network.residual and any(a == b for a, b in pairwise(network.layer_sizes[:-1]))


def to_sklearn(estimator: Any) -> Any:
    """The method ``to_sklearn`` of an estimator."""
    check_is_fitted(estimator)
    estimator.network_.check_dense()
    estimator.network_.adopt()
    network = estimator.network_.folded() if estimator.network_.batch_norm else estimator.network_.copy()
    if has_residual_layers(network):
        raise ValueError(
            "residual=True: scikit-learn has no residual connections, which this network with layers "
            f"{network.layer_sizes[:-1]} has."
        )
    cls = neural_network.MLPClassifier if is_classifier(estimator) else neural_network.MLPRegressor
    theirs, lost = _their_parameters(cls, estimator)
    if network.out_activation == "exp" and theirs.get("loss") != "poisson":
        raise ValueError(
            f"loss={estimator.loss!r}: the network was trained with loss='poisson', whose output is an exponential."
        )
    theirs["activation"] = _activation(network, estimator.activation)
    other = cls(**theirs)
    if any(rate != 1 for rate in estimator.layer_rates_):
        lost.append(f"layer_rates_={estimator.layer_rates_}")
    if lost:
        warn(f"scikit-learn lacks {', '.join(lost)}; it takes its defaults instead. They affect further training only.")
    _copy_shared(estimator, other)
    other.coefs_, other.intercepts_ = _split(network.parameters, network)
    other._best_coefs, other._best_intercepts = _split(network.parameters, network)
    other.n_layers_, other.n_outputs_ = len(network.layer_sizes), network.layer_sizes[-1]
    other.out_activation_ = network.out_activation
    if is_classifier(estimator):
        other._label_binarizer = _binarizer(estimator)
    state = getattr(estimator, "_optimizer_state", None)
    if state is not None and not estimator.network_.batch_norm and state["rule"] == _rule(other):
        other._optimizer = _their_optimizer(other, state, float(estimator._learning_rate), network)
    return other


def _their_parameters(cls: type, estimator: Any) -> tuple[dict[str, Any], list[str]]:
    """scikit-learn's parameters, and those of fastmlp that it lacks, as name=value."""
    ours = estimator.get_params(deep=False)
    defaults = {name: p.default for name, p in inspect.signature(type(estimator)).parameters.items()}
    names = set(inspect.signature(cls).parameters)
    values = {name: copy.deepcopy(value) for name, value in ours.items() if name in names}
    lost = []
    for name, value in ours.items():
        missing = name not in names and name not in _NO_LOSS and not _same(value, defaults[name])
        foreign = (
            name in _THEIR_VALUES and name in names and not (isinstance(value, str) and value in _THEIR_VALUES[name])
        )
        if missing or foreign:
            values.pop(name, None)
            lost.append(f"{name}={value!r}")
    return values, lost


def _same(value: Any, default: Any) -> bool:
    """Whether a value is the default. An array never is."""
    return type(value) is type(default) and bool(value == default)


def _rule(theirs: Any) -> str:
    return "" if theirs.solver == "lbfgs" else update_rule(theirs.solver, theirs.momentum, theirs.nesterovs_momentum)


def _split(flat: np.ndarray, network: Network) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Copies of the weights and of the biases in an array in the order of ``Network.parameters``."""
    like = network.copy()
    like.parameters = flat
    return [W.copy() for W in like.coefs], [b.copy() for b in like.intercepts]


def _join(arrays: Any, dtype: np.dtype) -> np.ndarray:
    return np.concatenate([np.asarray(array, dtype=dtype).ravel() for array in arrays])


def _copy_shared(source: Any, target: Any) -> None:
    for name in _SHARED:
        if hasattr(source, name):
            setattr(target, name, copy.deepcopy(getattr(source, name)))


def _binarizer(estimator: Any) -> LabelBinarizer:
    """The LabelBinarizer that scikit-learn would have fitted."""
    binarizer = LabelBinarizer()
    binarizer.classes_ = estimator.classes_.copy()
    binarizer.y_type_, binarizer.sparse_input_ = estimator._target_type, estimator._sparse_target
    return binarizer


def _their_optimizer(theirs: Any, state: dict[str, Any], rate: float, network: Network) -> Any:
    parameters = theirs.coefs_ + theirs.intercepts_
    optimizer: Any
    if theirs.solver == "adam":
        optimizer = AdamOptimizer(parameters, theirs.learning_rate_init, theirs.beta_1, theirs.beta_2, theirs.epsilon)
        optimizer.t = state["n_updates"]
    else:
        rule = (theirs.learning_rate, theirs.momentum, theirs.nesterovs_momentum, theirs.power_t)
        optimizer = SGDOptimizer(parameters, theirs.learning_rate_init, *rule)
        optimizer.learning_rate = rate
    for name, flat in zip(_STATE_ARRAYS[state["rule"]], np.asarray(state["arrays"]), strict=True):
        weights, biases = _split(flat, network)
        setattr(optimizer, name, weights + biases)
    return optimizer


def from_sklearn(estimator: Any) -> Any:
    """The same model as an estimator of fastmlp.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or MLPRegressor
        Fitted. It is not changed, and shares nothing with the result.

    Returns
    -------
    MLPClassifier or MLPRegressor
        Fitted: predictions agree to rounding, and ``partial_fit`` and ``fit`` with ``warm_start`` continue from the
        same parameters, record and optimizer state. ``history_`` has epochs and losses; ``validation_loss_curve_`` is
        None.

    Raises
    ------
    TypeError
        For another estimator.
    NotFittedError
    ValueError
        For invalid parameters.

    Examples
    --------
    >>> import fastmlp
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.neural_network import MLPRegressor
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
    >>> fastmlp.from_sklearn(MLPRegressor(solver="lbfgs", random_state=1).fit(X, y)).predict(X[:2]).shape
    (2,)
    """
    for name in ("MLPClassifier", "MLPRegressor"):
        if isinstance(estimator, getattr(neural_network, name)):
            check_is_fitted(estimator)
            return _take_over(MODELS[name], estimator)
    raise TypeError(
        f"from_sklearn takes an MLPClassifier or MLPRegressor of scikit-learn, got {type(estimator).__qualname__}."
    )


def _take_over(cls: Any, theirs: Any) -> Any:
    """A fitted estimator of ours, of class ``cls``, from one of scikit-learn's."""
    names = inspect.signature(cls).parameters
    estimator = cls(
        **{name: copy.deepcopy(value) for name, value in theirs.get_params(deep=False).items() if name in names}
    )
    estimator._validate_params()
    sizes = [theirs.coefs_[0].shape[0], *(W.shape[1] for W in theirs.coefs_)]
    dtype = theirs.coefs_[0].dtype
    parameters = _join([*theirs.coefs_, *theirs.intercepts_], dtype)
    network = Network(sizes, theirs.activation, theirs.out_activation_, dtype, parameters)
    if not all_finite(network.parameters):
        raise ValueError("The network's weights must be finite.")
    _copy_shared(theirs, estimator)
    take_network(estimator, network)
    if is_classifier(theirs):
        estimator._target_type = theirs._label_binarizer.y_type_
        estimator._sparse_target = bool(theirs._label_binarizer.sparse_input_)
    estimator.history_ = [
        {"epoch": epoch, "loss": float(loss)} for epoch, loss in enumerate(getattr(theirs, "loss_curve_", ()), 1)
    ]
    if hasattr(theirs, "loss_curve_"):
        estimator.validation_loss_curve_ = None
        estimator._run_terms = estimator._terms()
    if hasattr(theirs, "_optimizer"):
        _take_optimizer(estimator, theirs._optimizer, network)
    return estimator


def _take_optimizer(estimator: Any, optimizer: Any, network: Network) -> None:
    """Copy the state of scikit-learn's optimizer. adam does not keep its rate: it starts with learning_rate_init."""
    if isinstance(optimizer, AdamOptimizer):
        rule, rate = "adam", float(estimator.learning_rate_init)
    else:
        rule, rate = update_rule("sgd", optimizer.momentum, optimizer.nesterov), float(optimizer.learning_rate)
    rows = [_join(getattr(optimizer, name), network.dtype) for name in _STATE_ARRAYS[rule]]
    arrays = np.array(rows, dtype=network.dtype).reshape(core.OPTIMIZERS[rule], network.n_parameters)
    estimator._optimizer_state = {"rule": rule, "arrays": arrays, "n_updates": int(getattr(optimizer, "t", 0))}
    estimator._learning_rate = rate
