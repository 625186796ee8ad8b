"""BaseMLP: the parts that the classifier and the regressor share. A fit prepares a run, trains, and publishes the
result."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_is_fitted

from fastmlp.core import OPTIMIZERS, AtomicUpdate, Reserve, commit, parameter_layout
from fastmlp.core.memory import all_finite, check_memory
from fastmlp.estimators import conversion, transfer
from fastmlp.estimators._sklearn import (
    TransformerMixin,
    _check_feature_names_in,
    _check_optimize_result,
    _fit_context,
    warn,
    warn_of_parameter,
)
from fastmlp.estimators.callbacks import CallbackSupportMixin, FitTasks, fit_tasks, with_callbacks
from fastmlp.estimators.fitted import (
    attributes_if_ended,
    check_resumed,
    clear_stochastic,
    continued_record,
    position_to_resume,
    publish,
    rewound,
    take_position,
)
from fastmlp.estimators.parameters import LOSS, Parameters
from fastmlp.estimators.persistence import Saved
from fastmlp.estimators.transfer import HiddenRepresentation, atomic, hidden_layer
from fastmlp.estimators.validation.held_out import (
    RowSplit,
    ValidationData,
    column_names,
    explain_eval_set,
    one_validation_set,
    split_off,
    warn_if_target_unscaled,
    warn_if_unscaled,
)
from fastmlp.estimators.validation.messages import explain_labels
from fastmlp.estimators.validation.rows import (
    check_input,
    check_range,
    check_rows,
    refuse_beside_blocks,
    warn_if_too_large,
)
from fastmlp.estimators.validation.scoring import score_by, tell_labels
from fastmlp.estimators.validation.weights import (
    check_outputs_have_targets,
    check_weight,
    check_weight_range,
    leave_out,
    rows_that_count,
)
from fastmlp.network.callables import check_takes
from fastmlp.network.network import Network, SelectedRows
from fastmlp.training.diagnosis import describe_scale, diagnose
from fastmlp.training.lbfgs import train_lbfgs
from fastmlp.training.loop import train_epochs
from fastmlp.training.rows import RowSource, TrainingData
from fastmlp.training.run import (
    DivergenceError,
    OptimizerState,
    Position,
    Record,
    Run,
    Settings,
    StochasticRun,
    Validation,
    copy_generator,
    mean_loss,
)
from fastmlp.training.schedules import make_schedule
from fastmlp.training.solvers import update_rule
from fastmlp.training.threads import choose_threads, forward_flops, step_flops


def warn_if_not_residual(network: Network) -> None:
    """Warn if residual=True does nothing: no hidden layer is as wide as its input."""
    if network.residual and not conversion.has_residual_layers(network):
        warn_of_parameter(
            "residual=True has no effect: no hidden layer is as wide as its input, in a network of "
            f"{network.layer_sizes[:-1]}. Give equal widths, for example hidden_layer_sizes=(100, 100)."
        )


def has_partial_fit(estimator: BaseMLP) -> bool:
    """For ``available_if``: only the stochastic solvers can continue with a batch."""
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for stochastic optimizers. lbfgs is not stochastic.")
    return True


class BaseModel(CallbackSupportMixin, Saved):
    """The base of single estimators and ensembles: callbacks, files, pickles, and one change at a time."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters of the estimator, all of them or, on an error, none.

        Parameters
        ----------
        **params : dict
            By name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a name that is not a parameter's.
        RuntimeError
            During a fit.
        """
        with AtomicUpdate(self):
            super().set_params(**params)
        return self

    n_jobs: int | None

    @abstractmethod
    def _networks(self) -> list[Network]:
        """The fitted networks, with the arrays that a user has put in place of their own."""

    def _rows_and_threads(self, network: Network, X: Any) -> tuple[Any, int]:
        """X, checked, and the number of threads that pay for its prediction."""
        X = check_input(self, X)
        if X.dtype != network.dtype:
            check_range("X", X, network.dtype)
        return X, choose_threads(self.n_jobs, forward_flops(network.layer_sizes, X.shape[0]))


def mean_output(networks: Sequence[Network], X: Any, n_threads: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    """Mean of the networks' outputs (n_samples, n_outputs), summed in their order; ``out`` as in
    ``Network.forward``."""
    total = networks[0].forward(X, out, n_threads)
    for network in networks[1:]:
        total += network.forward(X, n_threads=n_threads)
    if len(networks) > 1:
        total /= len(networks)
    return total


class BaseMLP(HiddenRepresentation, TransformerMixin, Parameters, BaseModel, ABC):
    """The classifier and the regressor but for targets, scores and predictions."""

    # Fitted attributes, for type checkers; ``fitted`` lists all of them.
    network_: Network
    n_layers_: int
    n_outputs_: int
    out_activation_: str
    layer_rates_: tuple[float, ...]
    loss_: float
    loss_curve_: list[float]
    n_iter_: int
    t_: int
    history_: list[dict[str, Any]]
    _optimizer_state: dict[str, Any]
    _learning_rate: float
    _run_terms: dict[str, dict[str, Any]]

    #: Losses that judge training better than the estimator's own score does.
    _losses_that_score: ClassVar[frozenset[str]] = frozenset()
    # An argument of transform that is not data, and so not for scikit-learn to route.
    __metadata_request__transform = {"layer": UNUSED}

    # --- classifier or regressor -------------------------------------------------------------------------------

    @abstractmethod
    def _learn_target(self, y: Any, incremental: bool) -> None:
        """Learn the form of predictions from y (classes, number of outputs), or check y against it."""

    @abstractmethod
    def _check_target(self, y: Any) -> None:
        """Check y against the target that was learnt."""

    def _apply_class_weight(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        """The weights times those of the rows' classes."""
        return weight

    @abstractmethod
    def _encode(self, y: Any) -> np.ndarray:
        """y as numbers: class indices (n,), or targets (n, n_outputs)."""

    @abstractmethod
    def _output_and_loss(self) -> tuple[str, str]:
        """Output activation and loss, by their names in the core."""

    @abstractmethod
    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        """Labels (n,) to stratify the validation split by; None if there are none."""

    @abstractmethod
    def _validation_score(self, output: np.ndarray, target: np.ndarray, sample_weight: np.ndarray | None) -> float:
        """Score of the network's output against the encoded target; NaN if it cannot be scored."""

    # --- fitted attributes that are the network's -------------------------------------------------------------

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights (fan_in, fan_out), one array per layer; writing into them, or replacing them, changes the model.

        With batch normalisation, residual layers, an embedding, or activations that scikit-learn lacks, weights and
        biases alone are not the network. To export it, see ``docs/saving.md``.
        """
        return self._network_arrays("coefs")

    @coefs_.setter
    def coefs_(self, arrays: list[Any]) -> None:
        self._replace("coefs", arrays)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases (fan_out,), one array per layer; as ``coefs_``.

        Raises
        ------
        AttributeError
            With batch normalisation, residual layers or an embedding: other libraries' converters compute another
            network from weights and biases alone. ``network_.intercepts`` has the arrays.
        """
        self._check_plain()
        return self._network_arrays("intercepts")

    @intercepts_.setter
    def intercepts_(self, arrays: list[Any]) -> None:
        self._check_plain()
        self._replace("intercepts", arrays)

    def _check_plain(self) -> None:
        """Refuse biases to code that would take the network for one of weights and biases."""
        network: Network | None = getattr(self, "network_", None)
        if network is not None and (network.batch_norm or network.embedding or conversion.has_residual_layers(network)):
            way = "batch_norm=True: to_sklearn() and network_.folded() give a network without it"
            if network.embedding or conversion.has_residual_layers(network):
                way = f"{'an embedding' if network.embedding else 'residual=True'}: scikit-learn has no such network"
            raise AttributeError(
                f"intercepts_ is not available, since coefs_ and intercepts_ alone are not a network with {way}. "
                "network_.intercepts has the arrays."
            )

    def _network_arrays(self, name: str) -> list[np.ndarray]:
        if not hasattr(self, "network_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{name}_'")
        arrays: list[np.ndarray] = getattr(self.network_, name)
        return arrays

    def _replace(self, name: str, arrays: list[Any]) -> None:
        """Replace the network's arrays; if the new ones do not fit, the model does not change."""
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
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        *,
        eval_set: Any = None,
        sample_weight_eval: ArrayLike | None = None,
        X_val: Any = None,
        y_val: Any = None,
        resume: bool = False,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features), or Blocks
            float32 and float64 arrays are read where they are, whatever their order. :class:`Blocks` are rows that need
            not fit into memory; y and the weights are in them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Class labels, or an indicator matrix for multi-label; real numbers in regression.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Factor on each row's loss, finite and not negative. The sum of a batch's weights divides it (see
            ``loss_reduction``). Rows of weight 0 are left out. With several outputs, in regression and multi-label, a
            weight may be given for each target: one of weight 0 is left out, and may be NaN. The weight of a row is
            then the mean of its targets'.
        eval_set : tuple (X, y) or Blocks, default=None
            Rows to score on after each epoch, instead of a split of X. Without ``early_stopping`` the scores are only
            recorded.
        sample_weight_eval : array-like of shape (n_rows,) or (n_rows, n_outputs), default=None
            Their weights. With weights of targets, here or for rows that are split off, the score is the mean over the
            outputs of each one's score with its weights, as scikit-learn's ``multioutput="uniform_average"``: R^2, the
            accuracy of each label, or the scorer of ``validation_metric`` on each output by itself. Names that end in
            ``_macro`` mean the same, ``_weighted`` and ``_micro`` what they mean in scikit-learn; ``_samples`` is an
            error. Weights that are equal in each row are those of the rows, for the score too. A function gets all
            weights, if it takes any.
        X_val, y_val : array-like, default=None
            The same rows as ``eval_set``, under scikit-learn's names: ``Pipeline(..., transform_input=["X_val"])`` can
            transform ``X_val`` as it does X, but not one half of a pair.
        resume : bool, default=False
            Go on with a fit that was interrupted, stopped by a callback, or saved by :class:`Checkpoint`, to the same
            bits as if it had not been. X, y, weights and ``eval_set`` must be the same, and so must the parameters,
            except ``max_iter``, which counts the epochs of the whole run, ``tol``, ``n_iter_no_change``, ``n_jobs`` and
            ``verbose``. A fit that is complete stays as it is. Not for 'lbfgs'. See the page on resuming.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For input or parameters that cannot be used, if there is no fit to resume, and if the weights do not stay
            finite. The estimator is then
            as before the call; so it is after an error of a callback during training.
        RuntimeError
            If another thread is fitting or changing this estimator.
        """
        position = position_to_resume(self) if resume else None
        n_epochs = max(self.max_iter - self.n_iter_, 0) if resume else self.max_iter
        with fit_tasks(self, X, y, sample_weight, n_epochs) as tasks:
            eval_set = one_validation_set(eval_set, X_val, y_val)
            run = self._prepare(X, y, sample_weight, eval_set, sample_weight_eval, position=position)
            self._warn_of_unused(has_eval_set=eval_set is not None)
            warn_if_not_residual(run.network)
            self._train(run, tasks)
            publish(self, run)
            self._warn_of_end(run.record)
            commit(self)  # an error of a callback at the end of the fit does not undo it
        return self

    def _fit_one_epoch(self, X: Any, y: Any, sample_weight: ArrayLike | None) -> None:
        """``partial_fit``."""
        run = self._prepare(X, y, sample_weight, incremental=True)
        self._train(run)
        publish(self, run)
        self._warn_of_end(run.record)

    @atomic
    @with_callbacks
    def _fit_member(
        self,
        X: Any,
        y: Any,
        sample_weight: np.ndarray | None,
        name: str,
        split: RowSplit | None = None,
        target_names: list[Any] | None = None,
        make_network: Any = None,
    ) -> Record:
        """``fit`` of a member of an ensemble, which has checked the rows and set the target's attributes (``classes_``
        ...).

        name: of the member, in printed lines; split: its rows, None for all; target_names: of y's columns;
        make_network: called in Network's place, with the attributes ``embedding`` and ``n_members`` of its networks,
        and a method ``adapt`` that makes changes to the run. The record says how the run ended; there is no warning.
        """
        self._check_combination(None)
        with fit_tasks(self, X, y, sample_weight, self.max_iter) as tasks:
            run = self._prepare_checked(
                X, y, sample_weight, name=name, split=split, target_names=target_names, make_network=make_network
            )
            if make_network is not None:
                run = make_network.adapt(run)
            self._train(run, tasks)
            publish(self, run)
        return run.record

    # --- prepare ---------------------------------------------------------------------------------------------------

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        eval_set: Any = None,
        sample_weight_eval: ArrayLike | None = None,
        *,
        incremental: bool = False,
        position: Position | None = None,
    ) -> Run:
        """Check parameters and input, learn the target, and set up the run."""
        self._check_combination(eval_set)
        if sample_weight_eval is not None and eval_set is None:
            raise ValueError("sample_weight_eval needs an eval_set.")
        self._hidden_layer_sizes()  # first, as in scikit-learn
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        resumes = position is not None
        reset = not self._continues(incremental or resumes)
        if isinstance(X, RowSource):
            refuse_beside_blocks(y, sample_weight)
            X = X._learn(self, reset=reset, incremental=incremental or resumes)
            return self._prepare_checked(
                X, None, None, eval_set, sample_weight_eval, incremental=incremental, position=position
            )
        warn_if_too_large(X, self.shuffle and self.solver != "lbfgs")
        target_names = column_names(y)
        X, y = check_rows(self, X, leave_out(y, sample_weight), reset=reset)
        with explain_labels(y, self):
            self._learn_target(y, incremental or resumes)
        weight = check_weight(sample_weight, X)
        if not incremental:  # a later call may bring the targets
            check_outputs_have_targets(weight)
        options: dict[str, Any] = {"incremental": incremental, "position": position, "target_names": target_names}
        return self._prepare_checked(X, y, weight, eval_set, sample_weight_eval, **options)

    def _prepare_checked(
        self,
        X: Any,
        y: Any,
        weight: np.ndarray | None,
        eval_set: Any = None,
        sample_weight_eval: ArrayLike | None = None,
        *,
        incremental: bool = False,
        position: Position | None = None,
        name: str = "",
        split: RowSplit | None = None,
        target_names: list[Any] | None = None,
        make_network: Any = None,
    ) -> Run:
        """Encode y, weigh the rows, make the network, and choose the solver's run."""
        rows = None
        if not isinstance(X, RowSource):
            weight = self._apply_class_weight(y, weight, incremental)
        if weight is not None:
            weight = np.ascontiguousarray(weight, dtype=np.float64)
            counts = rows_that_count(weight)
            rows = None if counts.all() else np.flatnonzero(counts).astype(np.intp)
        if split is not None:
            rows = split.train

        self.out_activation_, loss = self._output_and_loss()
        layer_sizes = (X.shape[1], *self._hidden_layer_sizes(), self.n_outputs_)
        self.n_layers_ = len(layer_sizes)
        continues = self._continues(incremental)
        rng = self._generator(incremental and continues) if position is None else rewound(self, position.generator)
        first_draw = copy_generator(rng) if position is None and not incremental else None
        if continues if position is None else position.warm:
            network = self._continued_network(layer_sizes)
        else:
            dtype = X.dtype if self._dtype_name() == "auto" else self._dtype_name()
            network = self._new_network(layer_sizes, dtype, rng, make_network)
        if position is not None:
            position = take_position(self, network, position)
        if not any(self.layer_rates_):
            raise ValueError("All layers are frozen: there is nothing to train. unfreeze() some.")
        data: Any
        if isinstance(X, RowSource):
            data = X._training_data(self, network, loss)
        else:
            check_range("X", X, network.dtype)
            if weight is not None:
                check_weight_range(weight, network.dtype)
            data = TrainingData(X, self._network_target(network, loss, y), weight, rows)
        validation = None
        if split is not None and split.score is not None:
            scored = split.score
            validation = ValidationData(
                SelectedRows(X, scored), data.y[scored], y[scored], None if weight is None else weight[scored]
            )
        if eval_set is not None:
            validation = self._check_eval_set(network, loss, eval_set, sample_weight_eval)
            some = data.sample()
            warn_if_unscaled(some.X, some.rows, validation.X, getattr(self, "feature_names_in_", None))
            if not is_classifier(self):
                warn_if_target_unscaled(some, some.rows, validation, target_names)
        if self.solver == "lbfgs":
            run = self._prepare_lbfgs(network, loss, data, rng, name)
            run.target_names = target_names
            return run
        run = self._prepare_stochastic(network, loss, data, y, rng, validation, continues, incremental, position, name)
        run.target_names = target_names
        if first_draw is not None:
            settings = run.settings
            run.position = Position(first_draw, continues, run.data.n_rows, settings.batch_size, settings.shuffle)
        return run

    def _continues(self, incremental: bool) -> bool:
        """Whether a fit continues from the fitted network."""
        return hasattr(self, "network_") and (self.warm_start or incremental)

    def _generator(self, continues: bool) -> np.random.RandomState:
        """``check_random_state``; a further partial_fit continues the draws of the last call with this seed."""
        seed, rng = getattr(self, "_rng", None) or (None, None)
        if continues and rng is not None and seed == self.random_state:
            generator: np.random.RandomState = copy_generator(rng)
        else:
            generator = check_random_state(self.random_state)
        return generator

    def _new_network(
        self,
        layer_sizes: tuple[int, ...],
        dtype: Any,
        rng: np.random.RandomState,
        make_network: Any,
    ) -> Network:
        self.layer_rates_ = (1.0,) * (len(layer_sizes) - 1)
        embeds = () if make_network is None else (make_network.embedding, make_network.n_members)
        self._check_memory(layer_sizes, np.dtype(dtype).itemsize, *embeds)
        network: Network = (make_network or Network)(
            layer_sizes,
            self.activation if isinstance(self.activation, str) else list(self.activation),
            self.out_activation_,
            dtype,
            random_state=rng,
            weight_init=self.weight_init,
            bias_init=self.bias_init,
            batch_norm=self.batch_norm,
            residual=self.residual,
        )
        if self.pretrained is not None:
            transfer.copy_hidden_layers(network, self.pretrained)
            self.layer_rates_ = (float(self.pretrained_rate),) * (len(layer_sizes) - 2) + (1.0,)
        return network

    def _check_memory(
        self, layer_sizes: tuple[int, ...], itemsize: int, embedding: int = 0, n_members: int = 1
    ) -> None:
        """Raise a MemoryError if there is no room for the parameters, a training run's copy of them, and the solver's
        memory."""
        n_parameters = parameter_layout(layer_sizes, self.batch_norm, embedding, n_members).n_parameters
        copies = 2 + (0 if self.solver == "lbfgs" else OPTIMIZERS[self._rule()])
        check_memory(
            f"hidden_layer_sizes={self.hidden_layer_sizes!r}, with {layer_sizes[0]} features and {layer_sizes[-1]} "
            f"outputs, makes {n_parameters:,} parameters. Training them with solver={self.solver!r}",
            n_parameters * itemsize * copies,
        )

    def _continued_network(self, layer_sizes: tuple[int, ...]) -> Network:
        """A copy of the fitted network, with the present activation and dtype."""
        fitted = self.network_
        fitted.check_dense()
        if (fitted.layer_sizes, fitted.batch_norm, fitted.residual) != (layer_sizes, self.batch_norm, self.residual):
            raise ValueError(
                f"The fitted network has layers {fitted.layer_sizes}, batch_norm={fitted.batch_norm}, "
                f"residual={fitted.residual}; to go on from it, hidden_layer_sizes and y must ask for the same, got "
                f"{layer_sizes}, batch_norm={self.batch_norm}, residual={self.residual}."
            )
        fitted.adopt()
        return Network(
            layer_sizes,
            self.activation if isinstance(self.activation, str) else list(self.activation),
            self.out_activation_,
            fitted.dtype if self._dtype_name() == "auto" else self._dtype_name(),
            fitted.parameters,
            statistics=fitted.statistics,
            batch_norm=self.batch_norm,
            residual=self.residual,
        )

    def _network_target(self, network: Network, loss: str, y: Any) -> np.ndarray:
        """y as the core reads it."""
        if issparse(y):  # a byte for each label
            y = y.astype(network.dtype if (y.data != 1).any() else np.uint8)
        encoded = self._encode(y)
        check_range("y", encoded, network.dtype)
        return network.check_targets(encoded, loss, y.shape[0])

    def _check_eval_set(self, network: Network, loss: str, eval_set: Any, sample_weight: Any) -> ValidationData:
        """A user's rows to score on, checked."""
        if isinstance(eval_set, RowSource):
            if sample_weight is not None:
                raise ValueError(
                    "sample_weight_eval must be None with an eval_set of Blocks, which have their own weights."
                )
            return ValidationData(*eval_set._validation_data(self, network, loss))
        with explain_eval_set(eval_set):
            X, y = check_rows(self, eval_set[0], leave_out(eval_set[1], sample_weight), reset=False)
            self._check_target(y)
            target = self._network_target(network, loss, y)
            check_range("X", X, network.dtype)
            weight = check_weight(sample_weight, X)
            if weight is not None and weight.ndim == 2:
                weight = np.ascontiguousarray(weight, dtype=np.float64)
        return ValidationData(X, target, y, weight)

    def _prepare_lbfgs(self, network: Network, loss: str, data: Any, rng: np.random.RandomState, name: str) -> Run:
        if not isinstance(data, TrainingData):
            raise ValueError("solver='lbfgs' takes all rows at once, and Blocks are read in parts; use another solver.")
        if any(rate != 1 for rate in self.layer_rates_):
            raise ValueError(
                f"solver='lbfgs' trains all layers alike, got layer_rates_={self.layer_rates_}; unfreeze() first."
            )
        if data.rows is not None and data.sample_weight is not None:  # this solver takes no list of rows
            data = TrainingData(data.X[data.rows], data.y[data.rows], data.sample_weight[data.rows])
        clear_stochastic(self)
        return Run(
            network=network,
            loss=loss,
            data=data,
            settings=self._settings(data.n_rows, name=name),
            rng=rng,
            hyperparameters=self._hyperparameters(),
            method=self._method(self.layer_rates_, rng),
            n_threads=choose_threads(self.n_jobs, step_flops(network.layer_sizes, data.n_rows)),
        )

    def _prepare_stochastic(
        self,
        network: Network,
        loss: str,
        data: Any,
        y: Any,
        rng: np.random.RandomState,
        validation: ValidationData | None,
        continues: bool,
        incremental: bool,
        position: Position | None,
        name: str,
    ) -> StochasticRun:
        terms = self._terms(has_eval_set=validation is not None)
        if self.early_stopping and validation is None:
            # Two classes that cannot be split are an error, as in scikit-learn; more are not, as it never tries.
            must_stratify = self.n_outputs_ == 1
            if isinstance(data, TrainingData):
                data, validation = split_off(data, y, self.validation_fraction, self._strata, must_stratify, rng)
            else:
                data, rows = data.split_off(self.validation_fraction, rng)
                validation = ValidationData(*rows)
        batch_size = self._batch_size(data.n_rows)
        if self.batch_norm and batch_size == 1 and any(self.layer_rates_[:-1]):
            raise ValueError(
                "batch_norm needs batches of at least 2 rows: one row has no variance, and weights before it no "
                f"gradient; got batch_size={self.batch_size} for {data.n_rows} rows."
            )
        if position is not None:
            check_resumed(self, position, terms, data.n_rows, batch_size)
        resumes = position is not None
        last = self._last_optimizer(network, terms) if resumes or (continues and incremental) else None
        if resumes and last is None:
            raise ValueError("fit(resume=True) needs the solver of the fit that it resumes.")
        optimizer = last or OptimizerState.new(self._rule(), network, self._reserve())
        keeps_rate = last is not None and self._run_terms["rate"] == terms["rate"]
        schedule = make_schedule(
            self.learning_rate,
            self.solver,
            self.learning_rate_init,
            self.power_t,
            float(self._learning_rate) if keeps_rate else None,
            total_steps=self.max_iter * -(-data.n_rows // batch_size),
            step=optimizer.n_updates,
        )
        if last is not None and not keeps_rate:  # the rate of the new parameters after as many rows
            schedule.epoch_ends(self.t_)
        # A run that resumes another draws the same seed again, so that the generator advances.
        method = self._method(self.layer_rates_, rng, None if resumes else optimizer.seed)
        optimizer.seed = method.seed or None
        goes_on = continues or resumes
        record = continued_record(self, validation is not None, terms) if goes_on else Record(terms=terms)
        if position is not None:
            record.n_epochs, record.best_epoch = self.n_iter_, position.best_epoch
        return StochasticRun(
            network=network,
            loss=loss,
            data=data,
            settings=self._settings(batch_size, incremental, name),
            rng=rng,
            record=record,
            hyperparameters=self._hyperparameters(),
            method=method,
            n_threads=choose_threads(self.n_jobs, step_flops(network.layer_sizes, batch_size)),
            schedule=schedule,
            optimizer=optimizer,
            validation=None if validation is None else self._validation(validation, loss),
            position=position,
            resumes=resumes,
        )

    def _last_optimizer(self, network: Network, terms: dict[str, dict[str, Any]]) -> OptimizerState | None:
        """The optimizer's memory of the last call, if the present rule can continue from it. A run does not write to
        it."""
        if not hasattr(self, "_optimizer_state"):
            return None
        last = OptimizerState(**self._optimizer_state)
        if not last.fits(self._rule(), network):
            return None
        seed = last.seed if self._run_terms.get("draws") == terms["draws"] else None
        return OptimizerState(last.rule, last.arrays, last.n_updates, seed)

    def _reserve(self) -> Reserve | None:
        """Memory that the last call left to the next one."""
        state = getattr(self, "_optimizer_state", None)
        return None if state is None else OptimizerState(**state).reserve

    def _rule(self) -> str:
        return update_rule(self.solver, self.momentum, self.nesterovs_momentum)

    def _settings(self, batch_size: int, incremental: bool = False, name: str = "") -> Settings:
        return Settings(
            max_epochs=self.max_iter,
            batch_size=batch_size,
            shuffle=self.shuffle,
            tol=self.tol,
            patience=self.n_iter_no_change,
            max_fun=self.max_fun,
            verbose=int(self.verbose),
            single_epoch=incremental,
            name=name,
            owns_generator=isinstance(self.random_state, Integral),
            keeps_memory=incremental or self.warm_start,
        )

    def _batch_size(self, n_rows: int) -> int:
        if isinstance(self.batch_size, str):  # 'auto', the only string that is valid
            return min(200, n_rows)
        if self.batch_size > n_rows:
            warn("Got `batch_size` less than 1 or larger than sample size. It is going to be clipped")
        return int(min(self.batch_size, n_rows))

    def _validation(self, rows: ValidationData, loss: str) -> Validation:
        """Score and loss of a network on rows that are not trained on; the loss is without penalty and smoothing."""
        weight, how = rows.sample_weight, (self._loss_parameter(), self.loss_reduction)
        probe: BaseMLP | None = None
        by_loss = self.validation_metric == LOSS or (self.validation_metric is None and loss in self._losses_that_score)
        if self.validation_metric is not None and not by_loss and len(getattr(self, "classes_", "..")) > 1:
            probe = copy.copy(self)
            probe.__dict__.pop("feature_names_in_", None)  # the rows have been checked, and have no names any more
            if callable(self.validation_metric):
                names = ("estimator", "X", "y")
                check_takes("validation_metric", self.validation_metric, names, "score", ("sample_weight",))
            metric = check_scoring(probe, scoring=self.validation_metric)
            classes = getattr(self, "classes_", None)
            if classes is not None and np.ndim(rows.y) == 1:
                metric = tell_labels(metric, classes)
                if lacking := np.setdiff1d(classes, rows.y).tolist():
                    warn(f"The validation rows lack the classes {lacking}: validation_metric may be undefined there.")

        def score(network: Network) -> tuple[float, float]:
            n_threads = choose_threads(self.n_jobs, forward_flops(network.layer_sizes, len(rows.target)))
            output = network.forward(rows.X, n_threads=n_threads)
            value = mean_loss(network, loss, output.copy(), rows.target, weight, *how)
            if probe is not None and not all_finite(output):
                return np.nan, value  # metrics raise for such predictions, and one epoch would end the run
            if probe is not None:
                probe.network_ = network
                return score_by(metric, probe, rows), value
            if by_loss:
                return -value, value
            return self._validation_score(output, rows.target, weight), value

        return Validation(score, controls_stopping=self.early_stopping)

    # --- train -----------------------------------------------------------------------------------------------------

    def _train(self, run: Run, tasks: FitTasks | None = None) -> None:
        """Train the run's network, observed by callbacks."""
        if tasks is not None:
            run.observer = tasks
            tasks.entry = lambda: run.record.epochs[-1]
            tasks.fitted = lambda parameters, statistics: attributes_if_ended(self, run, parameters, statistics)
        names = getattr(self, "feature_names_in_", None)
        try:
            if isinstance(run, StochasticRun):
                train_epochs(run)
            else:
                result = train_lbfgs(run)
                if result is not None and run.record.ended != "stopped":
                    run.record.n_epochs = _check_optimize_result("lbfgs", result, self.max_iter)
        except DivergenceError as error:
            error.args = (f"{error} {describe_scale(run, names)}".rstrip(),)
            raise
        if isinstance(run, StochasticRun) and run.validation is not None and run.validation.controls_stopping:
            self._check_scores(run.record)
        run.record.diagnosis = diagnose(run, names)

    def _check_scores(self, record: Record) -> None:
        """Warn if early stopping had no score to go by."""
        scores = record.validation_scores[len(record.validation_scores) - record.n_epochs :]
        if scores and not np.isfinite(scores).any():
            metric = "R^2" if self.validation_metric is None else f"validation_metric={self.validation_metric!r}"
            lack = "lack a class, or be too few" if is_classifier(self) else "be too few"
            warn(
                f"{metric} gave no finite score in any epoch: early stopping did nothing, and the parameters are those "
                f"of the last epoch. The validation rows may {lack}."
            )

    def _warn_of_end(self, record: Record) -> None:
        """Warn if the run ended for a reason that the user should know."""
        if record.ended == "max_iter":
            warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                f"converged yet. {record.diagnosis}".rstrip(),
                ConvergenceWarning,
            )
        elif record.ended == "interrupted":
            kept = "as after its last whole step"
            if self.early_stopping:
                kept = "that of the best validation score"
            warn(
                f"Training interrupted by user after {record.n_epochs} of at most {self.max_iter} epochs. The network "
                f"is {kept}. fit(X, y, resume=True) with the same data goes on exactly from here, also after "
                "save(path, optimizer_state=True) or pickle."
                if self.solver != "lbfgs"
                else f"Training interrupted by user after {record.n_epochs} iterations. The network is the best one so "
                f"far; "
                "fit() with warm_start=True begins with it."
            )
        elif record.diagnosis:
            warn(record.diagnosis, ConvergenceWarning)
        elif record.ended == "diverged":
            warn(
                f"Parameters were no longer finite after epoch {record.n_epochs} ({record.divergence}); training "
                "ended with the parameters of the best validation score. Scale the input, or lower "
                "learning_rate_init.",
                ConvergenceWarning,
            )
        if record.optimizer_overflowed:
            warn(
                f"Gradients overflowed in the averages of solver={self.solver!r}: some weights have stopped learning. "
                "Scale the input, or take dtype='float64'.",
                ConvergenceWarning,
            )

    # --- predict -------------------------------------------------------------------------------------------------

    def _networks(self) -> list[Network]:
        if not hasattr(self, "network_"):
            check_is_fitted(self)  # called for its error only: it takes longer than a small network
        self.network_.adopt()
        return [self.network_]

    def _run_network(self, network: Network, X: Any) -> np.ndarray:
        """The output of ``network``, which has the inputs of the fitted one."""
        X, n_threads = self._rows_and_threads(network, X)
        return network.forward(X, n_threads=n_threads)

    def get_feature_names_out(self, input_features: ArrayLike | None = None, layer: int = -1) -> np.ndarray:
        """Names of the columns of ``transform``: the class's name in small letters and the unit's number.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Only checked against the names seen in ``fit``.
        layer : int, default=-1
            As in ``transform``.

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        width = self.network_.layer_sizes[hidden_layer(self.network_, layer) + 1]
        return np.asarray([f"{type(self).__name__.lower()}{unit}" for unit in range(width)], dtype=object)

    # --- change --------------------------------------------------------------------------------------------------

    def grow(self, hidden_layer_sizes: int | Sequence[int], random_state: Any = None) -> Self:
        """Widen or deepen the fitted network; its predictions stay the same, to rounding.

        Continue with ``partial_fit``, or ``fit`` with ``warm_start=True``. Optimizer state is reset.

        Parameters
        ----------
        hidden_layer_sizes : int or sequence of int
            All hidden layers of the new network. Layers keep their order, none becomes narrower, and new ones may be
            anywhere but before the first. ``hidden_layer_sizes``, and lists given for ``activation`` and ``dropout``,
            follow.
        random_state : None, int or RandomState, default=None
            Chooses the units that are doubled, and how their outgoing weights are shared.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the function could not be kept: ``fastmlp.network.growing`` says when it can.

        References
        ----------
        Chen, Goodfellow, Shlens. Net2Net: accelerating learning via knowledge transfer. ICLR 2016. Here a doubled
        unit's outgoing weight is split into unequal parts, so that the two learn different things without noise.
        """
        check_is_fitted(self)
        transfer.grow(self, hidden_layer_sizes, random_state)
        return self

    def freeze(self, layers: int | Sequence[int] | None = None) -> Self:
        """Keep layers unchanged, to the bit, in further training; they cost no update.

        Parameters
        ----------
        layers : int or sequence of int, default=None
            By index, the first hidden layer being 0; None: all but the output layer. ``layer_rates_`` shows the state,
            which a ``fit`` that begins anew resets.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        transfer.set_layer_rates(self, range(self.n_layers_ - 2) if layers is None else layers, 0.0)
        return self

    def unfreeze(self, layers: int | Sequence[int] | None = None) -> Self:
        """Let layers learn at the full rate.

        If any of them was frozen, optimizer state is reset: that layer's is empty, and adam, for one, would take it for
        an average over all updates so far, and make its steps several times too large.

        Parameters
        ----------
        layers : int or sequence of int, default=None
            By index, as in ``freeze``; None: all.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        transfer.set_layer_rates(self, range(self.n_layers_ - 1) if layers is None else layers, 1.0)
        return self

    # --- convert -------------------------------------------------------------------------------------------------

    def to_sklearn(self) -> Any:
        """The same model as an estimator of scikit-learn.

        Returns
        -------
        sklearn.neural_network.MLPClassifier or MLPRegressor
            Fitted: predictions agree to rounding. Batch normalisation is folded into the weights (``Network.folded``).
            It shares nothing with this one. ``partial_fit`` and ``fit`` with ``warm_start`` continue from the same
            parameters and record, and from the same optimizer state unless there is batch normalisation.

        Raises
        ------
        NotFittedError
        ValueError
            If scikit-learn cannot compute the network: for an activation that it lacks, different activations, and
            residual connections. The message names the parameter.

        Warns
        -----
        UserWarning
            Names parameters, or values of them, that scikit-learn lacks and that affect further training only. It takes
            its defaults instead.
        """
        return conversion.to_sklearn(self)

    # --- for scikit-learn ----------------------------------------------------------------------------------------

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        name = self._dtype_name()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if name == "auto" else [name]
        return tags
