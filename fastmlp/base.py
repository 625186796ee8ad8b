"""BaseMLP: what the classifier and the regressor share, between scikit-learn's rules and fastmlp's training.

scikit-learn is first seen here: parameters and input are checked by its rules, the data split, warnings given.
It refuses to compute (``training`` and ``network`` do) and to know labels and scores (``estimators`` does).
Fitted state is NumPy arrays and plain values. Imported by ``estimators`` only.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, _fit_context, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastmlp import _core
from fastmlp.network import Network
from fastmlp.optimizers import SCHEDULES, SOLVERS, Hyperparameters, make_schedule, update_rule
from fastmlp.training import (
    OptimizerState,
    Record,
    Settings,
    TrainingData,
    choose_threads,
    forward_flops,
    run_epochs,
    run_lbfgs,
    step_flops,
)

_FLOATS = (np.float64, np.float32)
# What a stochastic solver leaves behind and L-BFGS does not have.
_STOCHASTIC_STATE = (
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "best_validation_score_",
    "_no_improvement_count",
    "_optimizer_state",
    "_learning_rate",
)


@contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Give the estimator back its attributes if the block raises. Arrays must not be changed in place before."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _aligned(X: Any) -> Any:
    """X, or a copy if it is a view of packed records or bytes, whose numbers do not stand where the core may read them."""
    return np.require(X, requirements="A") if isinstance(X, np.ndarray) else X


def has_partial_fit(estimator: BaseMLP) -> bool:
    """For ``available_if``: only the stochastic solvers can go on with a batch."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class BaseMLP(BaseEstimator, ABC):
    """What the classifier and the regressor share."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(_core.ACTIVATIONS))],
        "solver": [StrOptions(set(SOLVERS))],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions({"auto", "float32", "float64"})],
        "n_jobs": [None, Options(Integral, {-1}), Interval(Integral, 1, None, closed="left")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "rho": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
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
        dtype: str = "auto",
        n_jobs: int | None = None,
        l1_ratio: float = 0.0,
        rho: float = 0.9,
    ) -> None:
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
        self.rho = rho

    # Fitted attributes that the next call of fit or partial_fit reads.
    network_: Network
    n_outputs_: int
    t_: int
    history_: list[dict[str, Any]]
    out_activation_: str
    _optimizer_state: dict[str, Any]
    _learning_rate: float

    # --- what differs between the two ------------------------------------------------------------------------

    @abstractmethod
    def _learn_target(self, y: Any, incremental: bool) -> None:
        """Learn from y what a prediction looks like (classes, number of outputs), or check y against it."""

    @abstractmethod
    def _encode(self, y: Any) -> np.ndarray:
        """y as numbers: class indices (n,), or targets (n, n_outputs)."""

    @abstractmethod
    def _output_and_loss(self) -> tuple[str, str]:
        """Output activation and loss, by the core's names."""

    @abstractmethod
    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        """Labels (n,) to stratify the validation split by; None if there are none."""

    @abstractmethod
    def _validation_score(self, output: np.ndarray, target: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Score of the network's output against the encoded target; NaN if it cannot be scored."""

    # --- fitted attributes that live in the network ------------------------------------------------------------

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights (fan_in, fan_out), one array per layer; writing into them, or replacing them, changes the model."""
        return self.network_.coefs

    @coefs_.setter
    def coefs_(self, arrays: list[Any]) -> None:
        self._replace("coefs", arrays)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases (fan_out,), one array per layer; as ``coefs_``."""
        return self.network_.intercepts

    @intercepts_.setter
    def intercepts_(self, arrays: list[Any]) -> None:
        self._replace("intercepts", arrays)

    def _replace(self, name: str, arrays: list[Any]) -> None:
        """Put arrays in place of the network's; if they do not fit, the model stays as it is."""
        network = self.network_.copy()
        getattr(network, name)[:] = arrays
        network.adopt()
        self.network_ = network

    # --- fit -------------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> BaseMLP:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            float32 and float64 arrays are read where they are, whatever their order.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or an indicator matrix for multi-label; real numbers in regression.
        sample_weight : array-like of shape (n_samples,), default=None
            Rows of weight 0 are left out.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For input or parameters that cannot be used, and if the weights do not stay finite. The estimator is
            then as it was before the call.
        """
        with unchanged_on_error(self):
            self._fit(X, y, sample_weight, incremental=False)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, incremental: bool) -> None:
        hidden = self._hidden_layer_sizes()
        first_pass = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            multi_output=True,
            y_numeric=not is_classifier(self),
            dtype=_FLOATS,
            reset=first_pass,
        )
        X = _aligned(X)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._learn_target(y, incremental)
        target = self._encode(y)
        weight = rows = None
        if sample_weight is not None:
            weight = np.ascontiguousarray(_check_sample_weight(sample_weight, X), dtype=np.float64)
            rows = _rows_that_count(weight)

        self.out_activation_, loss = self._output_and_loss()
        layer_sizes = (X.shape[1], *hidden, self.n_outputs_)
        self.n_layers_ = len(layer_sizes)
        rng = self._take_rng(incremental and not first_pass)
        network = self._start_network(layer_sizes, X.dtype, rng, first_pass)
        target = network.check_targets(target, loss, X.shape[0])
        data = TrainingData(X, target, weight, rows)
        if self.solver == "lbfgs":
            self._fit_lbfgs(network, loss, data)
        else:
            self._fit_stochastic(network, loss, data, rng, first_pass, incremental)
        self.network_ = network
        self._rng = (self.random_state, rng) if isinstance(self.random_state, Integral) else None

    def _hidden_layer_sizes(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if any(isinstance(size, bool) or not isinstance(size, Integral) for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.")
        if any(size <= 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return tuple(int(size) for size in sizes)

    def _take_rng(self, go_on: bool) -> np.random.RandomState:
        """``check_random_state``; a further partial_fit goes on drawing where the last call with this seed ended."""
        seed, rng = getattr(self, "_rng", None) or (None, None)
        if go_on and rng is not None and seed == self.random_state:
            copy = np.random.RandomState()
            copy.set_state(rng.get_state())
            return copy
        return check_random_state(self.random_state)

    def _start_network(
        self, layer_sizes: tuple[int, ...], data_type: np.dtype, rng: np.random.RandomState, first_pass: bool
    ) -> Network:
        """A new network, or a copy of the fitted one to go on from."""
        if first_pass:
            dtype = data_type if self.dtype == "auto" else self.dtype
            return Network(layer_sizes, self.activation, self.out_activation_, dtype, random_state=rng)
        fitted = self.network_
        if fitted.layer_sizes != layer_sizes:
            raise ValueError(
                f"The fitted network has layers {fitted.layer_sizes}; to go on from it, hidden_layer_sizes and y must "
                f"ask for the same, got {layer_sizes}."
            )
        fitted.adopt()
        dtype = fitted.dtype if self.dtype == "auto" else self.dtype
        return Network(layer_sizes, self.activation, self.out_activation_, dtype, parameters=fitted.parameters)

    def _hyperparameters(self) -> Hyperparameters:
        names = Hyperparameters.__dataclass_fields__
        return Hyperparameters(**{name: float(getattr(self, name)) for name in names})

    def _fit_lbfgs(self, network: Network, loss: str, data: TrainingData) -> None:
        # The one solver that has no use for a list of rows.
        if data.rows is not None and data.sample_weight is not None:
            data = TrainingData(data.X[data.rows], data.y[data.rows], data.sample_weight[data.rows])
        record = Record()
        result = run_lbfgs(
            network,
            loss,
            data,
            self._hyperparameters(),
            max_iter=self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            verbose=bool(self.verbose),
            record=record,
            n_threads=choose_threads(self.n_jobs, step_flops(network.layer_sizes, data.n_rows)),
        )
        for name in _STOCHASTIC_STATE:
            self.__dict__.pop(name, None)
        self.history_ = record.epochs
        self.loss_ = record.best_loss
        self.n_iter_ = record.n_epochs
        self.t_ = 0
        if result is None:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        else:
            self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)

    def _fit_stochastic(
        self,
        network: Network,
        loss: str,
        data: TrainingData,
        rng: np.random.RandomState,
        first_pass: bool,
        incremental: bool,
    ) -> None:
        score = None
        if self.early_stopping:
            data, held_out = self._split(data, rng)
            score = self._scorer(held_out)
        batch_size = self._batch_size(data.n_rows)
        rule = update_rule(self.solver, self.momentum, self.nesterovs_momentum)
        optimizer, rate = OptimizerState.new(rule, network), None
        if incremental and not first_pass and hasattr(self, "_optimizer_state"):
            kept = OptimizerState(**self._optimizer_state)
            if kept.fits(rule, network):
                optimizer = OptimizerState(kept.rule, kept.arrays.copy(), kept.n_updates)
                rate = float(self._learning_rate)
        schedule = make_schedule(self.learning_rate, self.solver, self.learning_rate_init, self.power_t, rate)
        record = Record() if first_pass else self._continued_record()
        run_epochs(
            network,
            loss,
            data,
            Settings(
                max_epochs=self.max_iter,
                batch_size=batch_size,
                shuffle=self.shuffle,
                tol=self.tol,
                patience=self.n_iter_no_change,
                verbose=bool(self.verbose),
                single_epoch=incremental,
            ),
            self._hyperparameters(),
            schedule,
            optimizer,
            rng,
            record,
            score,
            choose_threads(self.n_jobs, step_flops(network.layer_sizes, batch_size)),
        )
        self._optimizer_state = dict(vars(optimizer))
        self._learning_rate = schedule.rate
        self._publish(record)

    def _scorer(self, held_out: TrainingData) -> Callable[[Network], float]:
        """The score of a network on the rows held out."""

        def score(network: Network) -> float:
            n_threads = choose_threads(self.n_jobs, forward_flops(network.layer_sizes, held_out.n_rows))
            output = network.forward(held_out.X, n_threads=n_threads)
            return self._validation_score(output, held_out.y, held_out.sample_weight)

        return score

    def _batch_size(self, n_rows: int) -> int:
        if isinstance(self.batch_size, str):  # 'auto', the only word that validation lets pass
            return min(200, n_rows)
        if self.batch_size > n_rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        return int(min(self.batch_size, n_rows))

    def _split(self, data: TrainingData, rng: np.random.RandomState) -> tuple[TrainingData, TrainingData]:
        """Set rows aside for early stopping, stratified by class, with ``train_test_split``'s draws."""
        rows = np.arange(data.X.shape[0], dtype=np.intp) if data.rows is None else data.rows
        stratify = self._strata(data.y[rows])
        # Two classes that cannot be split are an error, as in scikit-learn; more are not, as it never tries.
        if stratify is not None and self.n_outputs_ > 1 and not _can_stratify(stratify, self.validation_fraction):
            warnings.warn(
                "Too few rows of some class to stratify the validation split of early_stopping; it is drawn "
                "without regard to classes.",
                stacklevel=6,
            )
            stratify = None
        train, test = train_test_split(rows, random_state=rng, test_size=self.validation_fraction, stratify=stratify)
        if len(test) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        weight = data.sample_weight
        held_out = TrainingData(data.X[test], data.y[test], None if weight is None else weight[test])
        return TrainingData(data.X, data.y, weight, np.ascontiguousarray(train, dtype=np.intp)), held_out

    def _continued_record(self) -> Record:
        """The record of the fitted model, to append to."""
        record = Record(
            epochs=list(self.history_),
            loss_curve=list(getattr(self, "loss_curve_", ())),
            no_improvement=getattr(self, "_no_improvement_count", 0),
            samples_seen=self.t_,
        )
        scores, best_loss = getattr(self, "validation_scores_", None), getattr(self, "best_loss_", None)
        if self.early_stopping and scores is not None:
            record.validation_scores = list(scores)
            record.best_score = getattr(self, "best_validation_score_", -np.inf)
        elif not self.early_stopping and best_loss is not None:
            record.best_loss = best_loss
        return record

    def _publish(self, record: Record) -> None:
        """Make a run's record the fitted attributes, and say how it ended if that is worth a warning."""
        self.history_ = record.epochs
        self.loss_curve_ = record.loss_curve
        self.n_iter_ = record.n_epochs
        self.t_ = record.samples_seen
        self._no_improvement_count = record.no_improvement
        if record.loss_curve:
            self.loss_ = record.loss_curve[-1]
        self.best_loss_ = None if self.early_stopping else record.best_loss
        self.validation_scores_ = record.validation_scores if self.early_stopping else None
        self.best_validation_score_ = record.best_score if self.early_stopping else None
        if record.ended == "max_iter":
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=6,
            )
        elif record.ended == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=6)
        elif record.ended == "diverged":
            warnings.warn(
                f"Parameters were no longer finite after epoch {record.n_epochs}; training ended with the parameters "
                "of the best validation score. Scale the input, or lower learning_rate_init.",
                ConvergenceWarning,
                stacklevel=6,
            )

    # --- predict -------------------------------------------------------------------------------------------------

    def _forward(self, X: Any) -> np.ndarray:
        """The network's output (n_samples, n_outputs) for checked input."""
        if not hasattr(self, "network_"):
            check_is_fitted(self)  # asked only to complain: it takes longer than a small network
        if not self._is_plainly_valid(X):
            X = _aligned(validate_data(self, X, accept_sparse="csr", dtype=_FLOATS, reset=False))
        network = self.network_
        network.adopt()
        n_threads = choose_threads(self.n_jobs, forward_flops(network.layer_sizes, X.shape[0]))
        return network.forward(X, n_threads=n_threads)

    def _is_plainly_valid(self, X: Any) -> bool:
        """Whether X is so plainly what ``validate_data`` would pass that there is no need to ask it."""
        return (
            type(X) is np.ndarray
            and X.dtype in _FLOATS
            and X.ndim == 2
            and X.flags.aligned
            and X.shape[0] > 0
            and X.shape[1] == self.n_features_in_
            and not hasattr(self, "feature_names_in_")
            and bool(np.isfinite(X).all())
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _rows_that_count(weight: np.ndarray) -> np.ndarray | None:
    """Indices of the rows with a weight other than 0; None if these are all rows."""
    return None if weight.all() else np.flatnonzero(weight).astype(np.intp)


def _can_stratify(labels: np.ndarray, test_fraction: float) -> bool:
    """Whether each class has a row for each side of a split."""
    counts = np.unique(labels, return_counts=True)[1]
    n_test = int(np.ceil(test_fraction * len(labels)))
    return counts.min() >= 2 and min(n_test, len(labels) - n_test) >= len(counts)
