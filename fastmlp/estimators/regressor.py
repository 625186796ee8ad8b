"""MLPRegressor: losses, targets, scores and predictions of a regressor."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.metrics import r2_score

import fastmlp.core as core
from fastmlp.core.memory import all_finite
from fastmlp.estimators._sklearn import (
    Dtype,
    Initial,
    Interval,
    LayerSizes,
    LearningRate,
    Metric,
    Names,
    RandomState,
    Rates,
    RegressorMixin,
    _fit_context,
    available_if,
)
from fastmlp.estimators.base import BaseMLP, has_partial_fit
from fastmlp.estimators.parameters import one_of
from fastmlp.estimators.transfer import atomic, regressor_of
from fastmlp.estimators.validation.scoring import leave_out_of_score, mean_metric
from fastmlp.network.network import Network

# Losses whose outputs are not probabilities.
_REGRESSION_LOSSES = [name for name, output in core.LOSSES.items() if output not in ("softmax", "logistic")]
# scikit-learn's losses, for which early stopping uses R^2.
_SKLEARN_LOSSES = {"squared_error", "poisson"}
# Losses with a parameter.
_LOSS_PARAMETERS = {"huber": "huber_delta", "quantile": "quantile"}
# Losses that are defined for targets >= 0 only.
_NON_NEGATIVE_LOSSES = {"poisson"}


class RegressorScore(RegressorMixin):
    """The score of a regressor."""

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """R^2, the coefficient of determination, of ``predict(X)``; of several outputs, their mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As in ``predict``.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True values.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Weights of the rows, or of the targets, each output's R^2 then being that with its weights; None: all the
            same.

        Returns
        -------
        float
        """
        y, weight = leave_out_of_score(self, X, y, sample_weight)
        if np.ndim(weight) == 2:
            return mean_metric(r2_score, y, self.predict(X), weight)
        return float(super().score(X, y, weight))


class MLPRegressor(RegressorScore, BaseMLP):
    """Multilayer perceptron that minimises the squared error, or another loss for numbers.

    A drop-in replacement of :class:`sklearn.neural_network.MLPRegressor`: same parameters, numbers and warnings,
    in a fraction of the time.

    Parameters
    ----------
    loss : {'squared_error', 'absolute_error', 'huber', 'quantile', 'poisson'}, default='squared_error'
        Half the mean squared error; the mean absolute error; Huber's, which is squared up to ``huber_delta`` and
        absolute beyond; the pinball loss of ``quantile``; half the Poisson deviance of exp(output), for y >= 0.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, \
beta_1, beta_2, epsilon, n_iter_no_change, max_fun, dtype, n_jobs, l1_ratio, dropout, batch_norm, residual, \
weight_init, \
bias_init, rho, weight_decay, max_grad_norm, validation_metric
        As in :class:`MLPClassifier`, with the same defaults. The validation split of early stopping is not stratified.
    quantile : float, default=0.5
        Of loss='quantile', in (0, 1).
    huber_delta : float, default=1.0
        Of loss='huber': where the squared error ends.
    input_noise, input_mask, mixup, pretrained, pretrained_rate, loss_reduction
        As in :class:`MLPClassifier`, with the same defaults.

    Attributes
    ----------
    coefs_, intercepts_, network_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, \
validation_loss_curve_, layer_rates_, history_, n_iter_, t_, n_layers_, n_outputs_, out_activation_, n_features_in_, \
feature_names_in_
        As in :class:`MLPClassifier`.

    Notes
    -----
    Where scikit-learn 1.9 is wrong, results differ: with several outputs the gradient of 'squared_error' is
    divided by their number, as the loss is (its issue #8349); with an integer seed each ``partial_fit`` draws a
    new order (#12505); rows of weight 0 change nothing.

    Examples
    --------
    >>> from fastmlp import MLPRegressor
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=1)
    >>> MLPRegressor(random_state=1, solver="lbfgs").fit(X, y).predict(X[:2]).shape
    (2,)
    """

    _parameter_constraints = {
        **BaseMLP._parameter_constraints,
        "loss": [one_of(_REGRESSION_LOSSES)],
        "quantile": [Interval(Real, 0, 1, closed="neither")],
        "huber_delta": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: LayerSizes = (100,),
        activation: Names = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: RandomState = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Dtype = "auto",
        n_jobs: int | None = None,
        l1_ratio: float = 0.0,
        dropout: Rates = 0.0,
        batch_norm: bool = False,
        residual: bool = False,
        weight_init: Initial = "auto",
        bias_init: Initial = "auto",
        rho: float = 0.9,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        validation_metric: Metric = None,
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        input_noise: float = 0.0,
        input_mask: float = 0.0,
        mixup: float = 0.0,
        pretrained: Network | None = None,
        pretrained_rate: float = 0.0,
        loss_reduction: str = "weighted_mean",
    ) -> None:
        self.loss = loss
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.l1_ratio = l1_ratio
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.residual = residual
        self.weight_init = weight_init
        self.bias_init = bias_init
        self.rho = rho
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.validation_metric = validation_metric
        self.quantile = quantile
        self.huber_delta = huber_delta
        self.input_noise = input_noise
        self.input_mask = input_mask
        self.mixup = mixup
        self.pretrained = pretrained
        self.pretrained_rate = pretrained_rate
        self.loss_reduction = loss_reduction

    @classmethod
    def from_network(cls, network: Network, *, feature_names: Sequence[str] | None = None, **parameters: Any) -> Self:
        """A fitted regressor with the layers and weights of a network.

        Parameters
        ----------
        network : Network
            It is copied. Its ``out_activation`` is 'identity' or, with ``loss='poisson'``, 'exp'.
        feature_names : sequence of str, default=None
            ``feature_names_in_``.
        **parameters
            Of the constructor, except those that describe the network. ``warm_start`` is True unless it is given: a
            further ``fit`` begins with the network's weights, like ``partial_fit``. ``loss`` is 'poisson' for 'exp'
            unless it is given.

        Returns
        -------
        MLPRegressor
            Its predictions are the network's output. ``loss_`` is NaN, ``n_iter_`` and ``t_`` are 0, ``history_`` is
            empty.

        Raises
        ------
        ValueError
            For another output activation, weights that are not finite, an embedding, invalid parameters.
        TypeError
            For another object than a Network.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import MLPRegressor, Network
        >>> regressor = MLPRegressor.from_network(Network((4, 8, 1), out_activation="identity", random_state=0))
        >>> regressor.predict(np.zeros((2, 4))).shape
        (2,)
        """
        estimator: Self = regressor_of(cls, network, feature_names, parameters)
        return estimator

    _losses_that_score = frozenset(_REGRESSION_LOSSES) - _SKLEARN_LOSSES

    def _loss_parameter(self) -> float:
        return float(getattr(self, _LOSS_PARAMETERS.get(self.loss, "quantile")))

    def _learn_target(self, y: Any, incremental: bool) -> None:
        self._check_target(y)
        self.n_outputs_ = 1 if y.ndim == 1 else y.shape[1]

    def _check_target(self, y: Any) -> None:
        if issparse(y):
            raise TypeError("y must be dense in regression, got a sparse matrix.")
        if self.loss in _NON_NEGATIVE_LOSSES and np.min(y) < 0:
            raise ValueError(f"y must be >= 0 for loss={self.loss!r}, got a least value of {np.min(y)}.")

    def _encode(self, y: np.ndarray) -> np.ndarray:
        return y

    def _output_and_loss(self) -> tuple[str, str]:
        return core.LOSSES[self.loss], str(self.loss)  # the core does not take NumPy's subclass of str

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        return None

    def _validation_score(self, output: np.ndarray, target: np.ndarray, sample_weight: np.ndarray | None) -> float:
        if not all_finite(output):
            return np.nan
        if sample_weight is not None and sample_weight.ndim == 2:
            return _mean_r2(output.astype(np.float64), target, sample_weight)
        return float(r2_score(target, output, sample_weight=sample_weight))

    @available_if(has_partial_fit)
    @atomic
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on these rows, from where the last call ended.

        Over chunks of whole batches, without ``shuffle``, it gives what one epoch of ``fit`` gives: ``docs/data.md``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            As in ``fit``, like ``sample_weight``.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            As in ``fit``; see ``loss_reduction`` for a single row.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As ``fit``.
        AttributeError
            If the solver is 'lbfgs'.
        """
        self._fit_one_epoch(X, y, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The network's output for each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or, with several outputs, (n_samples, n_outputs)
        """
        return self._shaped(self._run_network(self._networks()[0], X))

    def _shaped(self, output: np.ndarray) -> np.ndarray:
        """(n_samples,) instead of (n_samples, 1)."""
        return output[:, 0] if self.n_outputs_ == 1 else output


def _mean_r2(output: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    """Mean over the outputs of R^2 (``sklearn.metrics.r2_score``), each with its own weights; NaN if none has two
    targets."""
    counts = (weight != 0).sum(axis=0) > 1
    output, target, weight = output[:, counts], target[:, counts], weight[:, counts]
    if not counts.any():
        return np.nan
    mean = (weight * target).sum(axis=0) / weight.sum(axis=0)
    residual = (weight * (target - output) ** 2).sum(axis=0)
    total = (weight * (target - mean) ** 2).sum(axis=0)
    of_constant = np.where(residual == 0, 1.0, 0.0)
    return float(np.mean(np.where(total == 0, of_constant, 1 - residual / np.where(total == 0, 1, total))))
