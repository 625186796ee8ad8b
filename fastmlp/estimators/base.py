"""BaseMLP: what the classifier and the regressor share, between scikit-learn's rules and fastmlp's training.

scikit-learn is first seen here: parameters and input are checked by its rules, the data split, warnings given.
It refuses to compute (``training`` and ``network`` do) and to know labels and scores (``estimators`` does).
Fitted state is NumPy arrays and plain values. Imported by ``estimators`` only.
"""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import AtomicUpdate, commit, row_losses
from fastmlp.core.memory import all_finite
from fastmlp.estimators import conversion
from fastmlp.estimators._sklearn import _fit_context
from fastmlp.estimators.callbacks import CallbackSupportMixin, FitTasks, fit_tasks, with_callbacks
from fastmlp.estimators.doclink import DocumentationLink
from fastmlp.estimators.fitted import continued, published, published_lbfgs
from fastmlp.estimators.held_out import HeldOut, one_pair, split_off, takes_weights
from fastmlp.estimators.persistence import Saved
from fastmlp.estimators.representation import Representation
from fastmlp.estimators.transfer import Adaptable, atomic, take_body
from fastmlp.estimators.validation import (
    check_input,
    check_range,
    check_rows,
    check_weight,
    check_weight_range,
    naming_labels,
    rows_that_count,
)
from fastmlp.network.network import Network
from fastmlp.training.lbfgs import run_lbfgs
from fastmlp.training.loop import (
    OptimizerState,
    Record,
    Settings,
    TrainingData,
    Watch,
    claim_training_memory,
    run_epochs,
)
from fastmlp.training.progress import Progress
from fastmlp.training.schedules import make_schedule, update_rule
from fastmlp.training.threads import choose_threads, forward_flops, step_flops

# What a stochastic solver leaves behind and L-BFGS does not have.
_STOCHASTIC_STATE = (
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "validation_loss_curve_",
    "best_validation_score_",
    "_no_improvement_count",
    "_optimizer_state",
    "_learning_rate",
    "_run_terms",
)


class Run(NamedTuple):
    """What a fit has settled before its first step."""

    network: Network
    loss: str
    data: TrainingData
    y: Any
    rng: np.random.RandomState
    first_pass: bool


def has_partial_fit(estimator: BaseMLP) -> bool:
    """For ``available_if``: only the stochastic solvers can go on with a batch."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class BaseMLP(CallbackSupportMixin, DocumentationLink, Representation, Saved, Adaptable, ABC):
    """What the classifier and the regressor share: fit, and the way down to the network."""

    # Fitted attributes, for whoever checks types.
    loss_curve_: list[float]
    n_iter_: int
    # And those that the next call of fit or partial_fit reads.
    network_: Network
    n_outputs_: int
    t_: int
    history_: list[dict[str, Any]]
    out_activation_: str
    best_validation_score_: Any
    _no_improvement_count: int
    _optimizer_state: dict[str, Any]
    _learning_rate: float
    _run_terms: dict[str, dict[str, Any]]
    #: What the lines of ``verbose`` call this run, where several speak at once.
    _run_name: str = ""

    #: Losses that say better than the estimator's own score whether training helps.
    _losses_that_score: ClassVar[frozenset[str]] = frozenset()

    # --- what differs between the two ------------------------------------------------------------------------

    @abstractmethod
    def _learn_target(self, y: Any, incremental: bool) -> None:
        """Learn from y what a prediction looks like (classes, number of outputs), or check y against it."""

    @abstractmethod
    def _check_target(self, y: Any) -> None:
        """Whether y looks like what was learnt."""

    def _with_class_weights(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        """The rows' weights, with those of their classes where there are such."""
        return weight

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
        return self._of_network("coefs")

    @coefs_.setter
    def coefs_(self, arrays: list[Any]) -> None:
        self._replace("coefs", arrays)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases (fan_out,), one array per layer; as ``coefs_``."""
        return self._of_network("intercepts")

    @intercepts_.setter
    def intercepts_(self, arrays: list[Any]) -> None:
        self._replace("intercepts", arrays)

    def _of_network(self, name: str) -> list[np.ndarray]:
        if not hasattr(self, "network_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{name}_'")
        arrays: list[np.ndarray] = getattr(self.network_, name)
        return arrays

    def _replace(self, name: str, arrays: list[Any]) -> None:
        """Put arrays in place of the network's; if they do not fit, the model stays as it is."""
        with AtomicUpdate(self):
            network = self.network_.copy()
            getattr(network, name)[:] = arrays
            network.adopt()
            self.network_ = network

    # --- fit -------------------------------------------------------------------------------------------------------

    @atomic
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        eval_set: tuple[Any, Any] | None = None,
        sample_weight_eval: ArrayLike | None = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            float32 and float64 arrays are read where they are, whatever their order.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or an indicator matrix for multi-label; real numbers in regression.
        sample_weight : array-like of shape (n_samples,), default=None
            Rows of weight 0 are left out.
        eval_set : tuple (X, y), default=None
            Rows to score on after each epoch, in place of a split of X. Without ``early_stopping`` the scores are only
            recorded.
        sample_weight_eval : array-like, default=None
            Their weights.
        X_val, y_val : array-like, default=None
            The same rows as ``eval_set``, under scikit-learn's names: ``Pipeline(..., transform_input=["X_val"])`` can transform
            ``X_val`` as it does X, which it cannot with one half of a pair.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For input or parameters that cannot be used, and if the weights do not stay finite. The estimator is
            then as it was before the call, and so it is after an error of a callback during training.
        RuntimeError
            If another thread is fitting or changing this estimator.
        """
        with fit_tasks(self, X, y, sample_weight, self.max_iter) as tasks:
            held_out = one_pair(eval_set, X_val, y_val)
            self._fit(X, y, sample_weight, held_out, sample_weight_eval, incremental=False, tasks=tasks)
            commit(self)  # what callbacks do with the end of the fit does not undo it
        return self

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[Any, Any] | None = None,
        sample_weight_eval: ArrayLike | None = None,
        *,
        incremental: bool,
        tasks: FitTasks | None = None,
    ) -> None:
        self._check_combination(eval_set)
        if sample_weight_eval is not None and eval_set is None:
            raise ValueError("sample_weight_eval needs an eval_set.")
        run = self._prepare(X, y, sample_weight, incremental)
        held_out = None if eval_set is None else self._take_eval_set(run, eval_set, sample_weight_eval)
        self._train(run, held_out, incremental, tasks)

    @atomic
    @with_callbacks
    def _fit_checked(self, X: Any, y: Any, sample_weight: np.ndarray | None) -> None:
        """``fit`` on rows that were checked, with what y has taught another estimator already in place (``classes_`` ...)."""
        self._check_combination(None)
        first_pass = not hasattr(self, "network_") or not self.warm_start
        with fit_tasks(self, X, y, sample_weight, self.max_iter) as tasks:
            run = self._begin(X, y, sample_weight, first_pass, incremental=False)
            self._train(run, None, incremental=False, tasks=tasks)

    def _train(self, run: Run, held_out: HeldOut | None, incremental: bool, tasks: FitTasks | None) -> None:
        if self.solver == "lbfgs":
            self._fit_lbfgs(run, tasks)
        else:
            self._fit_stochastic(run, held_out, incremental, tasks)
        self.__dict__.update(self._settled(run.network, run.rng, incremental))

    def _settled(self, network: Network, rng: np.random.RandomState, incremental: bool) -> dict[str, Any]:
        """Fitted attributes of any solver."""
        return {
            "network_": network,
            "_by_partial_fit": incremental,
            "_rng": (self.random_state, rng) if isinstance(self.random_state, Integral) else None,
        }

    def _settled_at(self, run: Run, parameters: np.ndarray, statistics: np.ndarray) -> dict[str, Any]:
        """The same as if the run of ``fit`` ended here: copies of its own."""
        network = run.network.copy()
        network.parameters[:], network.statistics[:] = parameters, statistics
        return self._settled(network, copy.deepcopy(run.rng), incremental=False)

    def _prepare(self, X: Any, y: Any, sample_weight: ArrayLike | None, incremental: bool) -> Run:
        """Check the input, learn what y looks like, and begin."""
        self._hidden_layer_sizes()  # first, as in scikit-learn
        first_pass = not hasattr(self, "network_") or not (self.warm_start or incremental)
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        X, y = check_rows(self, X, y, reset=first_pass)
        with naming_labels(y):
            self._learn_target(y, incremental)
        return self._begin(X, y, check_weight(sample_weight, X), first_pass, incremental)

    def _begin(self, X: Any, y: Any, weight: np.ndarray | None, first_pass: bool, incremental: bool) -> Run:
        """Encode y, weigh the rows, make the network."""
        rows = None
        weight = self._with_class_weights(y, weight, incremental)
        if weight is not None:
            weight = np.ascontiguousarray(weight, dtype=np.float64)
            rows = rows_that_count(weight)

        self.out_activation_, loss = self._output_and_loss()
        layer_sizes = (X.shape[1], *self._hidden_layer_sizes(), self.n_outputs_)
        self.n_layers_ = len(layer_sizes)
        rng = self._take_rng(incremental and not first_pass)
        network = self._start_network(layer_sizes, X.dtype, rng, first_pass)
        if not any(self.layer_rates_):
            raise ValueError("All layers are frozen: there is nothing to train. unfreeze() some.")
        check_range("X", X, network.dtype)
        if weight is not None:
            check_weight_range(weight, network.dtype)
        return Run(network, loss, TrainingData(X, self._target(network, loss, y), weight, rows), y, rng, first_pass)

    def _target(self, network: Network, loss: str, y: Any) -> np.ndarray:
        """y as the core reads it."""
        encoded = self._encode(y)
        check_range("y", encoded, network.dtype)
        return network.check_targets(encoded, loss, y.shape[0])

    def _take_eval_set(self, run: Run, eval_set: Any, sample_weight: ArrayLike | None) -> HeldOut:
        """Rows to score on, as the user brings them."""
        if not isinstance(eval_set, (tuple, list)) or len(eval_set) != 2 or isinstance(eval_set[0], tuple):
            parts = f" of {len(eval_set)}" if hasattr(eval_set, "__len__") else ""
            raise ValueError(f"eval_set must be one pair (X, y), got {type(eval_set).__name__}{parts}.")
        try:
            X, y = check_rows(self, eval_set[0], eval_set[1], reset=False)
            self._check_target(y)
            target = self._target(run.network, run.loss, y)
            check_range("X", X, run.network.dtype)
            weight = check_weight(sample_weight, X)
        except (ValueError, TypeError) as error:
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"eval_set must be one pair (X, y) like those of fit: {error}") from error
        return HeldOut(X, target, y, weight)

    def _take_rng(self, go_on: bool) -> np.random.RandomState:
        """``check_random_state``; a further partial_fit goes on drawing where the last call with this seed ended."""
        seed, rng = getattr(self, "_rng", None) or (None, None)
        if go_on and rng is not None and seed == self.random_state:
            copy = np.random.RandomState()
            copy.set_state(rng.get_state())
            return copy
        fresh: np.random.RandomState = check_random_state(self.random_state)
        return fresh

    def _start_network(
        self, layer_sizes: tuple[int, ...], data_type: np.dtype, rng: np.random.RandomState, first_pass: bool
    ) -> Network:
        """A new network, or a copy of the fitted one to go on from."""
        activation = self.activation if isinstance(self.activation, str) else list(self.activation)
        common = {"batch_norm": self.batch_norm, "residual": self.residual}
        if first_pass:
            dtype = data_type if self.dtype == "auto" else self.dtype
            rule = None if self.solver == "lbfgs" else update_rule(self.solver, self.momentum, self.nesterovs_momentum)
            claim_training_memory(layer_sizes, np.dtype(dtype), rule)
            self.layer_rates_ = (1.0,) * (len(layer_sizes) - 1)
            network = Network(
                layer_sizes,
                activation,
                self.out_activation_,
                dtype,
                random_state=rng,
                weight_init=self.weight_init,
                bias_init=self.bias_init,
                **common,
            )
            if self.pretrained is not None:
                take_body(network, self.pretrained)
                self.layer_rates_ = (float(self.pretrained_rate),) * (len(layer_sizes) - 2) + (1.0,)
            return network
        fitted = self.network_
        if fitted.layer_sizes != layer_sizes or (fitted.batch_norm, fitted.residual) != tuple(common.values()):
            raise ValueError(
                f"The fitted network has layers {fitted.layer_sizes}, batch_norm={fitted.batch_norm}, "
                f"residual={fitted.residual}; to go on from it, hidden_layer_sizes and y must ask for the same, got "
                f"{layer_sizes}, batch_norm={self.batch_norm}, residual={self.residual}."
            )
        fitted.adopt()
        return Network(
            layer_sizes,
            activation,
            self.out_activation_,
            fitted.dtype if self.dtype == "auto" else self.dtype,
            fitted.parameters,
            statistics=fitted.statistics,
            **common,
        )

    def _fit_lbfgs(self, run: Run, tasks: FitTasks | None) -> None:
        network, data = run.network, run.data
        if any(rate != 1 for rate in self.layer_rates_):
            raise ValueError(
                f"solver='lbfgs' trains all layers alike, got layer_rates_={self.layer_rates_}; unfreeze() first."
            )
        # The one solver that has no use for a list of rows.
        if data.rows is not None and data.sample_weight is not None:
            data = TrainingData(data.X[data.rows], data.y[data.rows], data.sample_weight[data.rows])
        for name in _STOCHASTIC_STATE:
            self.__dict__.pop(name, None)
        record = Record()
        if tasks is not None:
            tasks.fitted = lambda *end: {**self._settled_at(run, *end), **published_lbfgs(record)}
        result = run_lbfgs(
            network,
            run.loss,
            data,
            self._hyperparameters(),
            max_iter=self.max_iter,
            max_fun=self.max_fun,
            tol=self.tol,
            record=record,
            n_threads=choose_threads(self.n_jobs, step_flops(network.layer_sizes, data.n_rows)),
            method=self._method(self.layer_rates_, run.rng),
            progress=Progress(int(self.verbose), self.max_iter, self._run_name) if self.verbose else None,
            observer=tasks,
        )
        self.__dict__.update(published_lbfgs(record))
        if result is None:
            warnings.warn("Training interrupted by user.", stacklevel=7)
        elif record.ended != "stopped":
            self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)

    def _fit_stochastic(self, run: Run, held_out: HeldOut | None, incremental: bool, tasks: FitTasks | None) -> None:
        network, data = run.network, run.data
        terms = self._terms(scored_apart=held_out is not None)
        if self.early_stopping and held_out is None:
            # Two classes that cannot be split are an error, as in scikit-learn; more are not, as it never tries.
            must_stratify = self.n_outputs_ == 1
            data, held_out = split_off(data, run.y, self.validation_fraction, self._strata, must_stratify, run.rng)
        watch = None if held_out is None else Watch(self._scorer(held_out, run.loss), steers=self.early_stopping)
        batch_size = self._batch_size(data.n_rows)
        if self.batch_norm and batch_size == 1 and any(self.layer_rates_[:-1]):
            raise ValueError(
                f"batch_norm needs batches of at least 2 rows: one row has no variance, and weights before it no gradient; got "
                f"batch_size={self.batch_size} for {data.n_rows} rows."
            )
        rule = update_rule(self.solver, self.momentum, self.nesterovs_momentum)
        optimizer, rate, goes_on = OptimizerState.new(rule, network), None, False
        if incremental and not run.first_pass and hasattr(self, "_optimizer_state"):
            kept = OptimizerState(**self._optimizer_state)
            goes_on = kept.fits(rule, network)
            if goes_on:
                optimizer = OptimizerState(kept.rule, kept.arrays.copy(), kept.n_updates)
                if self._run_terms["rate"] == terms["rate"]:
                    rate = float(self._learning_rate)
                if self._run_terms.get("draws") == terms["draws"]:
                    optimizer.seed = kept.seed
        schedule = make_schedule(
            self.learning_rate,
            self.solver,
            self.learning_rate_init,
            self.power_t,
            rate,
            total_steps=self.max_iter * -(-data.n_rows // batch_size),
            step=optimizer.n_updates,
        )
        if goes_on and rate is None:  # set_params: the rate is the one that the new values give for this time
            schedule.epoch_ends(self.t_)
        record = Record() if run.first_pass else continued(self, watch is not None, terms)
        method = self._method(self.layer_rates_, run.rng, optimizer.seed)
        optimizer.seed = method.seed or None

        def state() -> dict[str, Any]:
            """What the run leaves, besides the network."""
            return {
                **published(record, watch is not None, self.early_stopping),
                "_optimizer_state": dict(vars(optimizer)),
                "_learning_rate": schedule.rate,
                "_run_terms": terms,
            }

        if tasks is not None:
            tasks.fitted = lambda *end: {
                **state(), "_optimizer_state": copy.deepcopy(vars(optimizer)), **self._settled_at(run, *end),
            }  # fmt: skip
        run_epochs(
            network,
            run.loss,
            data,
            Settings(
                max_epochs=self.max_iter,
                batch_size=batch_size,
                shuffle=self.shuffle,
                tol=self.tol,
                patience=self.n_iter_no_change,
                verbose=int(self.verbose),
                single_epoch=incremental,
                name=self._run_name,
                draws_alone=isinstance(self.random_state, Integral),
            ),
            self._hyperparameters(),
            schedule,
            optimizer,
            run.rng,
            record,
            watch,
            choose_threads(self.n_jobs, step_flops(network.layer_sizes, batch_size)),
            method,
            tasks,
        )
        self.__dict__.update(state())
        self._warn_of_end(record)

    def _scorer(self, held_out: HeldOut, loss: str) -> Any:
        """(score, loss) of a network on rows that are held out; the loss is the plain one, without penalty or smoothing."""
        weight = held_out.sample_weight
        probe: BaseMLP | None = None
        if self.validation_metric is not None:
            probe = copy.copy(self)
            probe.__dict__.pop("feature_names_in_", None)  # the rows were checked, and have no names any more
            metric = check_scoring(probe, scoring=self.validation_metric)
            arguments = {"sample_weight": weight} if weight is not None and takes_weights(metric) else {}

        def score(network: Network) -> tuple[float, float]:
            n_threads = choose_threads(self.n_jobs, forward_flops(network.layer_sizes, len(held_out.target)))
            output = network.forward(held_out.X, n_threads=n_threads)
            losses = row_losses(network.plan, loss, output.copy(), held_out.target, self._loss_parameter())
            mean_loss = float(np.average(losses, weights=weight))
            if probe is not None and not all_finite(output):
                return np.nan, mean_loss  # metrics raise at such predictions, and the run would be lost for one epoch
            if probe is not None:
                probe.network_ = network
                return float(metric(probe, held_out.X, held_out.y, **arguments)), mean_loss
            if loss in self._losses_that_score:
                return -mean_loss, mean_loss
            return self._validation_score(output, held_out.target, weight), mean_loss

        return score

    def _batch_size(self, n_rows: int, stacklevel: int = 8) -> int:
        if isinstance(self.batch_size, str):  # 'auto', the only word that validation lets pass
            return min(200, n_rows)
        if self.batch_size > n_rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=stacklevel,
            )
        return int(min(self.batch_size, n_rows))

    def _warn_of_end(self, record: Record) -> None:
        """Say how the run ended if that is worth a warning."""
        if record.ended == "max_iter":
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=8,
            )
        elif record.ended == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=8)
        elif record.ended == "diverged":
            warnings.warn(
                f"Parameters were no longer finite after epoch {record.n_epochs} ({record.divergence}); training ended with "
                "the parameters of the best validation score. Scale the input, or lower learning_rate_init.",
                ConvergenceWarning,
                stacklevel=9,
            )
        if record.optimizer_overflowed:
            warnings.warn(
                f"Gradients overflowed in the averages of solver={self.solver!r}: some weights have stopped learning. Scale the "
                "input, or take dtype='float64'.",
                ConvergenceWarning,
                stacklevel=8,
            )

    def to_sklearn(self) -> Any:
        """The same model as an estimator of scikit-learn.

        Returns
        -------
        sklearn.neural_network.MLPClassifier or MLPRegressor
            Fitted: predictions agree to rounding. Batch normalisation is folded into the weights (``Network.folded``). It shares
            nothing with this one. ``partial_fit`` and ``fit`` with ``warm_start`` continue from the same parameters and record,
            and from the same optimizer state unless there is batch normalisation.

        Raises
        ------
        NotFittedError
        ValueError
            If scikit-learn cannot compute the network: for an activation that it lacks, different activations, and residual
            connections. The message names the parameter.

        Warns
        -----
        UserWarning
            Names parameters, or values of them, that scikit-learn lacks and that affect further training only. It takes its
            defaults instead.
        """
        return conversion.to_sklearn(self)

    # --- predict -------------------------------------------------------------------------------------------------

    def _forward(self, X: Any) -> np.ndarray:
        """The network's output (n_samples, n_outputs)."""
        if not hasattr(self, "network_"):
            check_is_fitted(self)  # asked only to complain: it takes longer than a small network
        self.network_.adopt()
        return self._run(self.network_, X)

    def _run(self, network: Network, X: Any) -> np.ndarray:
        X = check_input(self, X)
        if X.dtype != network.dtype:
            check_range("X", X, network.dtype)
        n_threads = choose_threads(self.n_jobs, forward_flops(network.layer_sizes, X.shape[0]))
        return network.forward(X, n_threads=n_threads)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
