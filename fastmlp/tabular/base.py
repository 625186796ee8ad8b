"""BaseTabular: what TabularClassifier and TabularRegressor share. A fit reads the columns, deals the rows into folds,
and trains a network on each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse, vstack
from sklearn.inspection import permutation_importance
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names, check_is_fitted

from fastmlp.core import Codes, commit
from fastmlp.estimators._sklearn import Interval, LayerSizes, Metric, RandomState, Rates, _fit_context, warn
from fastmlp.estimators.base import BaseMLP, BaseModel
from fastmlp.estimators.callbacks import FitTasks, fit_tasks
from fastmlp.estimators.parameters import LOSS, one_of, validate
from fastmlp.estimators.persistence import _check_parameters
from fastmlp.estimators.transfer import atomic
from fastmlp.estimators.validation.held_out import RowSplit, ValidationData, explain_eval_set, one_validation_set
from fastmlp.estimators.validation.messages import explain_labels
from fastmlp.estimators.validation.rows import check_rows
from fastmlp.estimators.validation.scoring import score_by, tell_labels
from fastmlp.estimators.validation.weights import check_outputs_have_targets, check_weight, leave_out, rows_that_count
from fastmlp.network.network import Network, SelectedRows
from fastmlp.network.persistence import Fields, FileFormatError, Tensors
from fastmlp.tabular.bins import MOST_BINS
from fastmlp.tabular.coding import Coder, Inputs, Scaler
from fastmlp.tabular.columns import Columns, declared_categories, learn_columns
from fastmlp.tabular.frames import Table
from fastmlp.tabular.persistence import build_columns, build_search, describe_columns, describe_search
from fastmlp.tabular.recipes import AUTO, RECIPES, EmbeddingNetwork, RealMLPNetwork, Recipe
from fastmlp.tabular.search import SPACES, Clock, Configuration, Judge, Predicted, Search, select
from fastmlp.tabular.training import Training, deal, take_share
from fastmlp.training.threads import choose_threads, forward_flops

_LEAST_ROWS = 2
# Held-out rows among which values are permuted, at most.
_MOST_PERMUTED = 10_000
# Fitted arrays that not every model has.
_OPTIONAL = ("oof_prediction_", "feature_importances_", "feature_importances_std_")
_MLP = BaseMLP._parameter_constraints

# Rows per step of ``batch_size='auto'``: from the least to the most, and larger ones above so many rows.
_LEAST_BATCH, _MOST_BATCH = 16, 256
_LARGE = ((108_000, 1024), (32_000, 512))


def _batch_size(n_rows: int) -> int:
    """Rows per step: a power of two near a sixteenth of the rows, within limits."""
    for limit, batch_size in _LARGE:
        if n_rows > limit:
            return batch_size
    near = 2 ** round(np.log2(max(n_rows / 16, 1)))
    return int(min(max(near, _LEAST_BATCH), _MOST_BATCH, n_rows))


def mean_of(outputs: Sequence[np.ndarray], counts: Sequence[int] | None = None) -> np.ndarray:
    """Mean of the networks' outputs, float64, added in their order: the same bits for one row as for many.

    counts: how often each output counts; None: once.
    """
    if counts is not None:
        outputs = [output.astype(np.float64) * count for output, count in zip(outputs, counts, strict=True)]
    total = outputs[0].astype(np.float64)
    for output in outputs[1:]:
        total += output
    total /= len(outputs) if counts is None else sum(counts)
    return total


def _spread(predictions: Sequence[np.ndarray], counts: Sequence[int] | None) -> np.ndarray:
    """Standard deviation of predictions, each of which counts as often as ``counts`` says."""
    if counts is None:
        return np.asarray(np.std(predictions, axis=0))
    mean = np.average(predictions, axis=0, weights=counts)
    return np.asarray(np.sqrt(np.average((np.array(predictions) - mean) ** 2, axis=0, weights=counts)))


class BaseTabular(BaseModel, ABC):
    """The two estimators but for targets and predictions."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "method": [one_of(list(RECIPES))],
        "embedding": [one_of([AUTO]), Interval(Integral, 0, None, closed="left")],
        "n_members": [one_of([AUTO]), Interval(Integral, 1, 2**16, closed="both")],
        "categorical_features": [one_of(["from_dtype"]), "array-like"],
        "n_folds": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [Interval(Integral, 1, MOST_BINS, closed="both")],
        "max_categories": [Interval(Integral, 2, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_configurations": [one_of([AUTO]), Interval(Integral, 1, None, closed="left")],
        "n_permutations": [Interval(Integral, 0, None, closed="left")],
        "time_limit": [None, Interval(Real, 0, None, closed="neither")],
        **{
            name: _MLP[name]
            for name in (
                "batch_size", "early_stopping", "validation_metric", "dtype", "n_jobs", "random_state", "verbose",
            )
        },
        **{
            name: [one_of([AUTO]), *_MLP[name]]
            for name in (
                "hidden_layer_sizes", "activation", "dropout", "weight_decay", "max_grad_norm", "learning_rate",
                "learning_rate_init",
                "beta_2", "max_iter", "n_iter_no_change",
            )
        },
        "initial_values": [one_of([AUTO, "data"])],
        "scaling_rate": [one_of([AUTO]), Interval(Real, 0, None, closed="left")],
    }  # fmt: skip
    _member_class: ClassVar[type[BaseMLP]]
    _recipes: ClassVar[dict[str, Recipe]] = RECIPES

    def __init__(
        self,
        method: str = "tabm",
        *,
        categorical_features: Any = "from_dtype",
        n_folds: int = 5,
        n_configurations: int | str = AUTO,
        time_limit: float | None = None,
        n_bins: int = 48,
        max_categories: int = 256,
        embedding: int | str = AUTO,
        n_members: int | str = AUTO,
        hidden_layer_sizes: LayerSizes | str = AUTO,
        activation: Any = AUTO,
        dropout: Rates | str = AUTO,
        weight_decay: float | str = AUTO,
        max_grad_norm: float | str | None = AUTO,
        learning_rate: Any = AUTO,
        learning_rate_init: float | str = AUTO,
        beta_2: float | str = AUTO,
        scaling_rate: float | str = AUTO,
        initial_values: str = AUTO,
        batch_size: int | str = "auto",
        max_iter: int | str = AUTO,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: float | str = AUTO,
        validation_metric: Metric = None,
        n_permutations: int = 0,
        dtype: str = "float32",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        self.method = method
        self.categorical_features = categorical_features
        self.n_folds = n_folds
        self.n_configurations = n_configurations
        self.time_limit = time_limit
        self.n_bins = n_bins
        self.max_categories = max_categories
        self.embedding = embedding
        self.n_members = n_members
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.beta_2 = beta_2
        self.scaling_rate = scaling_rate
        self.initial_values = initial_values
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.validation_metric = validation_metric
        self.n_permutations = n_permutations
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    # Fitted attributes, for type checkers.
    estimators_: list[Any]
    columns_: Columns
    n_outputs_: int
    oof_prediction_: np.ndarray
    feature_importances_: np.ndarray
    feature_importances_std_: np.ndarray
    configurations_: list[dict[str, Any]]
    # How often the selection took each network; only after a search.
    _times_selected: list[int]

    def _validate_params(self) -> None:
        validate(type(self), self.get_params(deep=False))

    # --- classifier or regressor -------------------------------------------------------------------------------

    def _member(self) -> BaseMLP:
        """A network's estimator, with these parameters."""
        names = (
            "hidden_layer_sizes", "activation", "dropout", "weight_decay", "max_grad_norm", "learning_rate",
            "learning_rate_init",
            "beta_2", "batch_size", "max_iter", "early_stopping", "n_iter_no_change", "dtype", "verbose",
        )  # fmt: skip
        metric = self._metric()
        parameters = {name: self._own(name) for name in names}
        if not self.early_stopping:
            parameters["n_iter_no_change"] = np.inf
        if self._searches():
            parameters["verbose"] = max(int(self.verbose) - 1, 0)
        return self._member_class(solver="adamw", alpha=0.0, tol=0.0, validation_metric=metric, **parameters)

    def _searches(self) -> bool:
        """Whether configurations are drawn and selected from, or the default has a time limit."""
        n = self.n_configurations
        return self.time_limit is not None or not (isinstance(n, str) or n == 1)

    def _metric(self) -> Metric:
        """The score that chooses the epoch."""
        return LOSS if self.validation_metric is None else self.validation_metric

    def _own(self, name: str) -> Any:
        """The value of a parameter; of the method's recipe, where it is 'auto'."""
        value = getattr(self, name)
        is_auto = isinstance(value, str) and value == AUTO
        return getattr(self._recipes[self.method], name, value) if is_auto else value

    def _scaling_network(self, member: BaseMLP) -> RealMLPNetwork:
        """What makes the networks of 'realmlp'."""
        member._dropout_rates(len(member._hidden_layer_sizes()) + 1)  # raises for rates that cannot be
        for name, only in (("embedding", 0), ("n_members", 1)):
            if self._own(name) != only:
                raise ValueError(f"{name} must be {only} or 'auto' for method='realmlp', got {getattr(self, name)!r}.")
        return RealMLPNetwork(float(self._own("scaling_rate")), self.initial_values == "data")

    def _embed(self, member: BaseMLP, codes: Any) -> EmbeddingNetwork | RealMLPNetwork | None:
        """What makes the member's network, if it is not Network. With an embedding, the member gets a layer more,
        without activation or dropout."""
        if self.method == "realmlp":
            return self._scaling_network(member)
        if self.initial_values != AUTO:
            raise ValueError(f"initial_values must be 'auto' for method={self.method!r}, got {self.initial_values!r}.")
        if self._own("scaling_rate"):
            raise ValueError(f"scaling_rate must be 0 or 'auto' for method={self.method!r}, got {self.scaling_rate!r}.")
        layout, embedding, n_members = codes.layout, self._own("embedding"), self._own("n_members")
        hidden = member._hidden_layer_sizes()
        if not hidden and self.n_members == AUTO:
            n_members = 1  # without a layer to share, the mean of several is one additive model
        rates = member._dropout_rates(len(hidden) + 1)
        if rates[0]:
            raise ValueError(
                f"dropout of the input must be 0, since it is codes of columns, got {rates[0]} as the first of "
                f"{self.dropout!r}."
            )
        if not embedding:
            if n_members > 1:
                raise ValueError(
                    f"n_members={n_members} needs an embedding, got embedding=0: set n_members=1, or take "
                    f"method='plain'."
                )
            return None
        if n_members > 1 and not hidden:
            raise ValueError(
                f"n_members={n_members} needs a hidden layer that the members share, got "
                f"hidden_layer_sizes={self.hidden_layer_sizes!r}: "
                "set n_members=1 or 'auto'."
            )
        if embedding % 16:
            raise ValueError(f"embedding must be a multiple of 16, or 0, got {embedding}.")
        n_features = len(layout.bin_counts) + len(layout.category_counts)
        names = [member.activation] * len(hidden) if isinstance(member.activation, str) else list(member.activation)
        if len(names) != len(hidden):
            raise ValueError(
                f"activation must name one activation for each of {len(hidden)} hidden layers, got {tuple(names)}."
            )
        member.dropout = (0.0, *rates)
        member.hidden_layer_sizes, member.activation = (n_features * embedding, *hidden), ["identity", *names]
        return EmbeddingNetwork(layout, embedding, n_members)

    def _rows_per_step(self, n_train: int) -> int:
        """The size of a batch, for as many training rows."""
        if isinstance(self.batch_size, str):  # 'auto', the only string that is valid
            return _MOST_BATCH if self.method == "realmlp" else _batch_size(n_train)
        return self.batch_size

    @abstractmethod
    def _share_target(self, member: Any, source: Any) -> None:
        """Give a member, or the estimator itself, the target's attributes of ``source``."""

    @abstractmethod
    def _class_weighted(self, prototype: Any, y: Any, weight: np.ndarray | None) -> np.ndarray | None:
        """The training rows' weights, times those of their classes."""

    @abstractmethod
    def _strata(self, y: Any) -> np.ndarray | None:
        """Each row's class, to deal rows by; None for targets that are not classes."""

    @abstractmethod
    def _learn_scale(self, y: Any, rows: np.ndarray, weight: np.ndarray | None) -> None:
        """Learn the scale of the target from these rows."""

    @abstractmethod
    def _loss_part(self, outputs: np.ndarray, y: Any) -> np.ndarray:
        """As much of networks' outputs (n_rows, n_columns) as the loss of their mean needs."""

    @abstractmethod
    def _loss(self, part: np.ndarray, y: Any, weight: np.ndarray | None) -> float:
        """The loss of a mean of such parts."""

    _predicted_class: ClassVar[type[Predicted]]

    @abstractmethod
    def _network_target(self, y: Any) -> Any:
        """The target that the networks learn."""

    @abstractmethod
    def _own_scale(self, outputs: np.ndarray) -> np.ndarray:
        """Mean or single outputs of the networks (..., n_outputs), as predictions of the target on its scale."""

    @abstractmethod
    def _predicted(self, prediction: np.ndarray) -> np.ndarray:
        """What ``predict`` returns for probabilities or predictions (n_rows, n_columns)."""

    @abstractmethod
    def _shaped(self, prediction: np.ndarray) -> np.ndarray:
        """Predictions (n_rows, n_outputs) in the form of ``oof_prediction_``."""

    # --- fit -------------------------------------------------------------------------------------------------------

    @atomic
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        eval_set: tuple[Any, Any] | None = None,
        sample_weight_eval: ArrayLike | None = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Learn what to do to each column, and train the networks.

        Parameters
        ----------
        X : data frame, array-like or list of rows, of shape (n_samples, n_features)
            A DataFrame of pandas or polars, a pyarrow table, any frame that pyarrow can read, an array, or rows of
            values. Columns may hold numbers, text, categories, truth values, dates and durations, and may have gaps:
            None, NaN, NaT, NA.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or an indicator matrix for multi-label; real numbers in regression.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Rows, or targets, of weight 0 are left out: see :meth:`MLPRegressor.fit`. Bins and categories do not depend
            on weights.
        eval_set : tuple (X, y), default=None
            Rows that decide about the epoch, instead of those that each network does not train on.
        sample_weight_eval : array-like, default=None
            Their weights.
        X_val, y_val : array-like, default=None
            The same rows as ``eval_set``, under scikit-learn's names, for pipelines that transform them.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            For parameters or input that cannot be used. An error about a column names it and says what to do. The
            estimator is then as before the call.
        KeyboardInterrupt
            Ctrl-C, at once. The networks' training is lost. During a search, once the default configuration has been
            trained, Ctrl-C ends the search instead, and the model is that of the configurations that have been trained.
        """
        n_configurations = self._n_configurations()
        n_networks = None if n_configurations is None else n_configurations * self.n_folds
        with fit_tasks(self, X, y, sample_weight, n_networks, in_order=False) as tasks:
            rows = one_validation_set(eval_set, X_val, y_val)
            self._fit(X, y, sample_weight, rows, sample_weight_eval, tasks)
            commit(self)
        return self

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, eval_set: Any, sample_weight_eval: Any, tasks: FitTasks | None
    ) -> None:
        clock = Clock(self.time_limit)
        table, prototype = self._open(X, reset=True), self._member()
        n_rows = table.shape[0]
        y, weight = self._check_target(prototype, y, n_rows, sample_weight)
        check_outputs_have_targets(weight)
        with explain_labels(y, self):
            prototype._learn_target(y, incremental=False)
        self._share_target(self, prototype)
        weight = self._class_weighted(prototype, y, weight)
        rows = np.arange(n_rows) if weight is None else np.flatnonzero(rows_that_count(weight))
        if len(rows) < _LEAST_ROWS:
            raise ValueError(f"{type(self).__name__} needs at least {_LEAST_ROWS} rows, got n_samples={len(rows)}.")

        rng, known, scaled = check_random_state(self.random_state), rows, self.method == "realmlp"
        if eval_set is None:
            folds, n_networks, split = self._splits(rows, self._strata(y[rows]), None, rng)
            known = split(0).train if scaled and n_networks == 1 else rows  # as RealMLP's authors do
        declared = declared_categories(self.categorical_features, table.names)
        learn_from = None if len(known) == n_rows else known
        self.columns_ = learn_columns(table, declared, learn_from, self.n_bins, self.max_categories, scaled)
        self._learn_scale(y, known, weight)
        scored = None
        if eval_set is not None:
            codes, y, weight = self._with_eval_set(prototype, table, y, weight, eval_set, sample_weight_eval)
            scored = np.arange(n_rows, len(codes), dtype=np.intp)
            folds, n_networks, split = self._splits(rows, self._strata(y[rows]), scored, rng)
        elif sample_weight_eval is not None:
            raise ValueError("sample_weight_eval needs an eval_set.")
        else:
            codes = self._coder().codes(table)

        for name in (*_OPTIONAL, "configurations_", "_times_selected"):
            self.__dict__.pop(name, None)
        training = Training(self, codes, y, weight, n_networks, split, rng, tasks, clock)
        held_out: Any = folds if folds and scored is None else [split(0).score]
        self._check_search(has_held_out=held_out[0] is not None)
        first = training.default()
        self.estimators_ = first.members
        if self._searches():
            self._search(training, first, held_out)
        if self.n_permutations:
            self._permute(training, held_out)
        if len(folds) > 1:
            self.oof_prediction_ = self._shaped(self._own_scale(self._out_of_fold(codes, n_rows, folds)))

    def _open(self, X: Any, reset: bool) -> Table:
        """X as a table, its number and names of columns learnt or checked."""
        table = Table(X)
        _check_feature_names(self, X, reset=reset)
        if reset:
            self.n_features_in_ = table.shape[1]
        elif table.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {table.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                f"features as input."
            )
        return table

    def _check_target(
        self, prototype: BaseMLP, y: Any, n_rows: int, sample_weight: Any
    ) -> tuple[Any, np.ndarray | None]:
        """y and the weights by the MLPs' rules."""
        rows, y = check_rows(
            prototype, np.zeros((n_rows, 1), dtype=np.float32), leave_out(y, sample_weight), caller=self
        )
        weight = check_weight(sample_weight, rows)
        return y, None if weight is None else np.array(weight, dtype=np.float64)

    def _with_eval_set(
        self, prototype: BaseMLP, table: Table, y: Any, weight: np.ndarray | None, eval_set: Any, weight_eval: Any
    ) -> tuple[Inputs, Any, np.ndarray | None]:
        """The codes, targets and weights of the rows to train on, and below them of those of ``eval_set``."""
        with explain_eval_set(eval_set):
            below = self._open(eval_set[0], reset=False)
            y_eval, weight_eval = self._check_target(prototype, eval_set[1], below.shape[0], weight_eval)
            prototype._check_target(y_eval)
            codes = self._coder().codes(table, below)
        if weight is not None or weight_eval is not None:
            parts = [(weight, table.shape[0]), (weight_eval, below.shape[0])]
            parts = [(np.ones(n) if part is None else part, n) for part, n in parts]
            if any(part.ndim == 2 for part, _ in parts):  # of outputs, for all rows
                parts = [(np.broadcast_to(part.reshape(n, -1), (n, y.shape[1])), n) for part, n in parts]
            weight = np.concatenate([part for part, _ in parts])
        stacked = vstack([y, y_eval], format="csr") if issparse(y) else np.concatenate([y, y_eval])
        return codes, stacked, weight

    def _splits(
        self, rows: np.ndarray, strata: np.ndarray | None, scored: np.ndarray | None, rng: np.random.RandomState
    ) -> tuple[list[np.ndarray], int, Callable[[int], RowSplit]]:
        """The rows of each fold, none with a single network; the number of networks; and a function that finds a
        network's rows to train on and to score on. Each list of indices takes 8 bytes a row, so only those in use are
        held."""
        n_folds = min(self.n_folds, len(rows))
        if n_folds == 1:
            if scored is not None or not self.early_stopping:
                return [], 1, lambda number: RowSplit(rows, scored)
            taken = take_share(strata, len(rows), self.validation_fraction, rng)
            return [], 1, lambda number: RowSplit(rows[~taken], rows[taken])
        fold = deal(strata, len(rows), n_folds, rng)
        held_out = [rows[fold == number] for number in range(n_folds)]
        return (
            held_out,
            n_folds,
            lambda number: RowSplit(rows[fold != number], held_out[number] if scored is None else scored),
        )

    def _n_configurations(self) -> int | None:
        """Configurations to train; None: as many as there is time for."""
        if isinstance(self.n_configurations, str):
            return 1 if self.time_limit is None else None
        return int(self.n_configurations)

    def _check_search(self, has_held_out: bool) -> None:
        """Refuse a search, or permutations, that cannot be."""
        searches = self._n_configurations() != 1
        if searches and self.method not in SPACES:
            raise ValueError(
                f"There is no search for method={self.method!r}: take n_configurations=1, or {list(SPACES)}."
            )
        if (searches or self.n_permutations) and not has_held_out:
            raise ValueError(
                f"{'A search' if searches else 'n_permutations > 0'} needs rows that networks are not trained on: take "
                f"n_folds >= 2, early_stopping=True or an eval_set{', or n_configurations=1' if searches else ''}."
            )

    def _search(self, training: Training, first: Configuration, held_out: Any) -> None:
        """Train further configurations, and select the ensemble.

        held_out: the rows that each network of a configuration has not been trained on; with an ``eval_set``, its rows,
        for all of them.
        """
        n_configurations = self._n_configurations()
        judge = None if held_out[0] is None else self._judge(training.codes, training.y, training.weight, held_out)
        ended = [first]
        if judge is not None:
            n_workers = training.n_threads
            if n_configurations is not None:
                n_workers = max(min(n_workers, (n_configurations - 1) * len(first.members)), 1)
            search = Search(
                training.draw, training.fit, judge, training.clock, n_configurations, n_workers, self._report
            )
            search.take_first(first)
            if n_configurations != 1:
                ended = search.run()
            if search.interrupted:
                warn(
                    f"The search was interrupted by user: the model is selected from {len(ended)} configuration"
                    f"{'s' if len(ended) > 1 else ''}."
                )
            kept = [configuration for configuration in ended if configuration.part is not None]
            counts = select([c.part for c in kept if c.part is not None], judge.score)
            for configuration, count in zip(kept, counts.tolist(), strict=True):
                configuration.n_selected = count
        else:
            first.n_selected = 1
        chosen = [configuration for configuration in ended if configuration.n_selected]
        self.estimators_ = [member for configuration in chosen for member in configuration.members]
        self._times_selected = [c.n_selected for c in chosen for _ in c.members]
        total = sum(configuration.n_selected for configuration in chosen)
        self.configurations_ = [configuration.describe(total) for configuration in ended]

    def _report(self, configuration: Configuration) -> None:
        """Print a line about a configuration that has been trained."""
        if self.verbose:
            shown = ", ".join(f"{name}={value!r}" for name, value in configuration.parameters.items())
            print(
                f"Configuration {configuration.number}: score = {configuration.score:.6f}, "
                f"{configuration.seconds:.1f} s, {configuration.ended} ({shown})",
                flush=True,
            )

    def _judge(self, codes: Inputs, y: Any, weight: np.ndarray | None, held_out: list[np.ndarray]) -> Judge:
        """What scores a configuration: its networks' predictions for rows that they have not been trained on."""
        rows = np.concatenate(held_out)
        y, weight = y[rows], None if weight is None else weight[rows]

        def outputs(members: list[Any]) -> np.ndarray:
            if len(held_out) == len(members):
                parts = [
                    self._run(m.network_, SelectedRows(codes, own)) for m, own in zip(members, held_out, strict=True)
                ]
                return np.concatenate(parts).astype(np.float64)
            return mean_of([self._run(member.network_, SelectedRows(codes, rows)) for member in members])

        if self.validation_metric is None or self.validation_metric == LOSS:
            return Judge(
                lambda members: self._loss_part(outputs(members), y), lambda part: -self._loss(part, y, weight)
            )
        metric = check_scoring(self._predicted_class(self), scoring=self.validation_metric)
        classes = getattr(self, "classes_", None)
        if classes is not None and np.ndim(y) == 1:
            metric = tell_labels(metric, classes)
        data = ValidationData(np.arange(len(rows)).reshape(-1, 1), np.empty(0), y, weight)
        return Judge(outputs, lambda part: score_by(metric, self._predicted_class(self, self._own_scale(part)), data))

    def _permute(self, training: Training, held_out: list[np.ndarray]) -> None:
        """Set the columns' importances: the fall of the score on held-out rows where a column's values are permuted
        among them."""
        rows, fold = np.concatenate(held_out), np.repeat(np.arange(len(held_out)), [len(part) for part in held_out])
        if len(rows) > _MOST_PERMUTED:
            some = np.sort(training.rng.choice(len(rows), _MOST_PERMUTED, replace=False))
            rows, fold = rows[some], fold[some]
        own = [np.flatnonzero(fold == number) for number in range(len(held_out))]
        y, weight = training.y[rows], None if training.weight is None else training.weight[rows]
        n_networks = training.n_networks
        groups = [self.estimators_[first : first + n_networks] for first in range(0, len(self.estimators_), n_networks)]
        counts = None if self._counts is None else self._counts[::n_networks]

        def score(estimator: Any, places: np.ndarray, ignored: Any) -> float:
            judge = self._judge(_rows_by_column(training.codes, rows[places], coder), y, weight, own)
            return judge.score(mean_of([judge.part(group) for group in groups], counts))

        coder = self._coder()
        used = [i for i, _ in (*coder.numbers, *coder.categories)]
        self.feature_importances_, self.feature_importances_std_ = np.zeros((2, len(self.columns_)))
        if used:
            places = np.repeat(np.arange(len(rows))[:, np.newaxis], len(used), axis=1)
            found = permutation_importance(
                self,
                places,
                np.zeros(len(rows)),
                scoring=score,
                n_repeats=self.n_permutations,
                random_state=training.rng,
            )
            self.feature_importances_[used] = found.importances_mean
            self.feature_importances_std_[used] = found.importances_std

    def _out_of_fold(self, codes: Inputs, n_rows: int, folds: list[np.ndarray]) -> np.ndarray:
        """The outputs (n_rows, n_outputs) for each row of the networks that have not seen it; of all of them for rows
        of weight 0."""
        outputs = np.empty((n_rows, self._n_columns()))
        unseen = np.ones(n_rows, dtype=bool)
        for fold, rows in enumerate(folds):
            outputs[rows] = self._mean_of_networks(SelectedRows(codes, rows), slice(fold, None, len(folds)))
            unseen[rows] = False
        if unseen.any():
            outputs[unseen] = self._mean_of_networks(SelectedRows(codes, np.flatnonzero(unseen)))
        return outputs

    def _mean_of_networks(self, rows: Inputs | SelectedRows, some: slice = slice(None)) -> np.ndarray:
        """Mean of what the networks, or some of them, say of the rows (n_rows, n_columns), float64."""
        counts = None if self._counts is None else self._counts[some]
        return mean_of([self._run(network, rows) for network in self.networks_[some]], counts)

    @property
    def _counts(self) -> list[int] | None:
        """How often each network counts; None: once."""
        return getattr(self, "_times_selected", None)

    # --- fitted attributes that follow from others -----------------------------------------------------------------

    @property
    def networks_(self) -> list[Network]:
        """The networks, in the order of the folds; after a search, those of one configuration after the other."""
        check_is_fitted(self)
        return [member.network_ for member in self.estimators_]

    @property
    def estimator_weights_(self) -> np.ndarray:
        """Weight of each network in predictions. They add up to 1."""
        check_is_fitted(self)
        counts = np.array(self._counts or [1] * len(self.estimators_), dtype=np.float64)
        weights: np.ndarray = counts / counts.sum()
        return weights

    @property
    def n_iter_(self) -> np.ndarray:
        """Epochs that each network was trained for."""
        check_is_fitted(self)
        return np.array([member.n_iter_ for member in self.estimators_])

    @property
    def categories_(self) -> dict[Any, list[Any]]:
        """The categories of each column that has such, those that share an input included."""
        check_is_fitted(self)
        return {c.name: [*c.categories, *c.grouped] for c in self.columns_ if c.categories}

    # --- predict -------------------------------------------------------------------------------------------------

    def _n_columns(self) -> int:
        """Columns of what a network says of a row."""
        return self.n_outputs_

    def _coder(self) -> Coder | Scaler:
        """Makes the networks' input of tables."""
        if self.columns_.are_scaled:
            return Scaler(self.columns_, "float64" if self.dtype == "float64" else "float32")
        return Coder(self.columns_)

    def _run(self, network: Network, rows: Inputs | SelectedRows) -> np.ndarray:
        """What a network says of the rows, (n_rows, n_columns): its output, but for classes."""
        return network.forward(rows, n_threads=self._threads(network, rows))

    def _threads(self, network: Network, rows: Inputs | SelectedRows) -> int:
        """Threads that pay for the prediction of these rows. Of a number, the first layer multiplies two columns;
        members share the product of the next."""
        codes = rows.X if isinstance(rows, SelectedRows) else rows
        if not isinstance(codes, Codes):
            return choose_threads(self.n_jobs, forward_flops(network.layer_sizes, len(rows)))
        layout = codes.layout
        n_columns = 2 * len(layout.bin_counts) + len(layout.category_counts)
        first = (n_columns, network.embedding or network.layer_sizes[1])
        shared, own = network.layer_sizes[1:3], network.layer_sizes[2:]
        work = forward_flops(first, len(rows)) + forward_flops(shared, len(rows))
        work += network.n_members * forward_flops(own, len(rows))
        return choose_threads(self.n_jobs, work)

    def _pieces(self, X: Any) -> Iterator[Inputs]:
        """The codes of the rows of X, some rows at a time."""
        check_is_fitted(self)
        table = self._open(X, reset=False)
        for network in self.networks_:
            network.adopt()
        coder, n_rows = self._coder(), table.shape[0]
        for first in range(0, n_rows, coder.n_rows):
            yield coder.codes(table.rows(first, min(first + coder.n_rows, n_rows)))

    def _predict(self, X: Any, with_std: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Mean and, if asked for, standard deviation of the networks' predictions (n_rows, n_columns), float64."""
        if with_std and len(self.networks_) == 1:
            raise ValueError("return_std=True needs several networks: fit with n_folds >= 2.")
        means, spreads = [], []
        for codes in self._pieces(X):
            outputs = [self._run(network, codes).astype(np.float64) for network in self.networks_]
            means.append(mean_of(outputs, self._counts))
            if with_std:
                spreads.append(_spread([self._own_scale(output) for output in outputs], self._counts))
        return self._own_scale(np.concatenate(means)), np.concatenate(spreads) if with_std else None

    # --- files -----------------------------------------------------------------------------------------------------

    _own_attributes: ClassVar[tuple[str, ...]] = ("columns_", *_OPTIONAL, "configurations_", "_times_selected")

    def _describe_own(self, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
        described: dict[str, Any] = {"columns": describe_columns(self.columns_, arrays, prefix)}
        for name in _OPTIONAL:
            described[name.rstrip("_")] = hasattr(self, name)
            if hasattr(self, name):
                array = getattr(self, name)
                arrays[f"{prefix}{name.rstrip('_')}"] = array.reshape(len(array), -1)
        if hasattr(self, "configurations_"):
            described["search"] = describe_search(self.configurations_, self._times_selected)
        return described

    def _build_own(self, fields: Fields, tensors: Tensors, prefix: str) -> None:
        _check_parameters(self._member())
        self.columns_ = build_columns(fields.items("columns"), tensors, prefix)
        if len(self.columns_) != self.n_features_in_:
            raise FileFormatError(f"columns must be {self.n_features_in_} objects")
        for name in _OPTIONAL:
            field = name.rstrip("_")
            if field in fields and fields.flag(field):
                tensors.require(f"{prefix}{field}", ("float64",), (None, None))
                setattr(self, name, np.array(tensors.read(f"{prefix}{field}")))
        for name in _OPTIONAL[1:]:
            if hasattr(self, name):
                setattr(self, name, getattr(self, name)[:, 0])
                if len(getattr(self, name)) != self.n_features_in_:
                    raise FileFormatError(f"{name} must have a number for each of the features")
        if "search" in fields:
            self.configurations_, self._times_selected = build_search(fields.inner("search"))

    def _takes_member(self, member: Any) -> bool:
        coder, network = self._coder(), member.network_
        if isinstance(coder, Scaler):
            return network.layer_sizes[0] == coder.width and not network.embedding
        layout = coder.layout
        n_features = len(layout.bin_counts) + len(layout.category_counts)
        embeds: bool = network.layer_sizes[1] == n_features * network.embedding
        return network.layer_sizes[0] == layout.width and (embeds or not network.embedding)

    def _check_members(self) -> None:
        if self._counts is not None and len(self._counts) != len(self.estimators_):
            raise FileFormatError("search.times_selected must have a number for each of the members")

    # --- for scikit-learn ----------------------------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimators_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.target_tags.multi_output = True
        return tags


def _rows_by_column(codes: Any, rows: np.ndarray, coder: Coder | Scaler) -> Any:
    """Codes, or scaled numbers, whose columns come from rows of their own: ``rows`` (n_rows, n_columns), numbers before
    categories."""
    if isinstance(coder, Scaler):
        return np.take_along_axis(codes, rows[:, coder.owners], axis=0)
    n_numbers = 0 if codes.bins is None else codes.bins.shape[1]

    def taken(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
        return None if values is None else np.ascontiguousarray(np.take_along_axis(values, rows, axis=0))

    of_numbers, of_categories = rows[:, :n_numbers], rows[:, n_numbers:]
    return Codes(
        codes.layout,
        taken(codes.bins, of_numbers),
        taken(codes.fractions, of_numbers),
        taken(codes.categories, of_categories),
    )
