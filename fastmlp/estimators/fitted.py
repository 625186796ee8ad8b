"""The attributes of a fitted estimator: their names, how a run sets them, and how a further run continues from them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from fastmlp.core.memory import aligned_copy
from fastmlp.network.network import Network
from fastmlp.training.run import Position, Record, Run, StochasticRun, copy_generator

# Learnt from X and y.
INPUT = ("n_features_in_", "feature_names_in_")
TARGET = ("classes_", "_target_type", "_sparse_target", "n_outputs_")
# The network, and attributes that follow from it.
NETWORK = ("network_", "n_layers_", "out_activation_", "layer_rates_")
# The record of any solver, and of the stochastic ones.
RECORD = ("loss_", "n_iter_", "t_", "history_")
STOCHASTIC_RECORD = (
    "loss_curve_",
    "best_loss_",
    "validation_scores_",
    "validation_loss_curve_",
    "best_validation_score_",
    "_no_improvement_count",
)
# What ``partial_fit``, and ``fit`` with ``warm_start`` or ``resume``, continue from.
CONTINUATION = ("_rng", "_by_partial_fit")
STOCHASTIC_CONTINUATION = ("_optimizer_state", "_learning_rate", "_run_terms", "_position")

#: Everything that a fit leaves on a classifier or regressor.
FITTED = (*INPUT, *TARGET, *NETWORK, *RECORD, *STOCHASTIC_RECORD, *CONTINUATION, *STOCHASTIC_CONTINUATION)
#: What an ensemble has.
ENSEMBLE = (*INPUT, *TARGET, "estimators_")


def clear_stochastic(estimator: Any) -> None:
    """Remove the attributes that L-BFGS does not set."""
    for name in (*STOCHASTIC_RECORD, *STOCHASTIC_CONTINUATION):
        vars(estimator).pop(name, None)


def forget_run(estimator: Any) -> None:
    """Delete the state of the last run, which belongs to other weights: further training begins with an empty one."""
    for name in ("_optimizer_state", "_position"):
        vars(estimator).pop(name, None)


def publish(estimator: Any, run: Run) -> None:
    """Set the fitted attributes that a run leaves. Lists, network and arrays are the run's own."""
    record = run.record
    estimator.network_ = run.network
    estimator.history_ = record.epochs
    estimator.n_iter_ = record.n_epochs
    estimator.t_ = record.samples_seen
    estimator._by_partial_fit = run.settings.single_epoch
    estimator._rng = (estimator.random_state, run.rng) if run.settings.owns_generator else None
    if not isinstance(run, StochasticRun):
        estimator.loss_ = record.best_loss
        return
    scored = run.validation is not None
    estimator.loss_ = record.loss_curve[-1] if record.loss_curve else np.nan  # interrupted in the first epoch
    estimator.loss_curve_ = record.loss_curve
    estimator.best_loss_ = None if estimator.early_stopping else record.best_loss
    estimator.validation_scores_ = record.validation_scores if scored else None
    estimator.validation_loss_curve_ = record.validation_loss_curve if scored else None
    estimator.best_validation_score_ = record.best_score if scored else None
    estimator._no_improvement_count = record.no_improvement
    estimator._optimizer_state = dict(vars(run.optimizer))
    estimator._learning_rate = run.schedule.rate
    estimator._run_terms = record.terms
    estimator._position = None if run.position is None else dict(vars(run.position))


def attributes_if_ended(estimator: Any, run: Run, parameters: np.ndarray, statistics: np.ndarray) -> dict[str, Any]:
    """The fitted attributes as if the run ended now, with these parameters."""
    fitted = copy.copy(estimator)
    publish(fitted, run.as_if_ended(parameters, statistics))
    return {name: vars(fitted)[name] for name in FITTED if name in vars(fitted)}


def continued_record(fitted: Any, scored: bool, terms: dict[str, dict[str, Any]]) -> Record:
    """The record of a fitted estimator. A best value under other settings is no measure for this run.

    The run appends to the estimator's own lists: copies would make each call of ``partial_fit`` cost more than the
    last.
    """
    if not hasattr(fitted, "loss_curve_"):  # after L-BFGS
        return Record(terms=terms)
    same = {group: fitted._run_terms[group] == terms[group] for group in terms}
    record = Record(epochs=fitted.history_, loss_curve=fitted.loss_curve_, samples_seen=fitted.t_, terms=terms)
    if same["loss"] and same["score"]:
        record.no_improvement = fitted._no_improvement_count
    if scored and fitted.validation_scores_ is not None:
        record.validation_scores = fitted.validation_scores_
        record.validation_loss_curve = fitted.validation_loss_curve_ or []
        if same["score"] and fitted.best_validation_score_ is not None:
            record.best_score = fitted.best_validation_score_
    if not fitted.early_stopping and fitted.best_loss_ is not None and same["loss"]:
        record.best_loss = fitted.best_loss_
    return record


# --- resuming a fit -------------------------------------------------------------------------------------------------


def position_to_resume(estimator: Any) -> Position:
    """Where the last fit ended."""
    if estimator.solver == "lbfgs":
        raise ValueError(
            "solver='lbfgs' cannot resume a fit: SciPy keeps no state of it. fit() with warm_start=True begins with "
            "the fitted weights."
        )
    check_is_fitted(estimator)
    if getattr(estimator, "_position", None) is None:
        raise ValueError(
            "There is no fit to resume. resume=True goes on with a fit that was interrupted or stopped, in the same "
            "process or from a file of save(path, optimizer_state=True)."
        )
    return Position(**estimator._position)


def rewound(estimator: Any, generator: np.random.RandomState) -> np.random.RandomState:
    """The generator of the fit as it was at its beginning. NumPy's global one is left alone."""
    if not isinstance(estimator.random_state, np.random.RandomState):
        return copy_generator(generator)
    estimator.random_state.set_state(generator.get_state(legacy=False))
    shared: np.random.RandomState = estimator.random_state
    return shared


def take_position(estimator: Any, network: Network, position: Position) -> Position:
    """Give the network the last parameters of the fit to resume; returns the position with the best ones."""
    fitted = estimator.network_
    fitted.adopt()
    names = ("layer_sizes", "activations", "out_activation", "batch_norm", "residual", "dtype")
    changed = [name for name in names if getattr(fitted, name) != getattr(network, name)]
    if changed:
        raise ValueError(f"fit(resume=True) needs the network of the fit that it resumes; {changed} changed.")
    last, best = (fitted.parameters, fitted.statistics), None
    if position.parameters is not None and position.statistics is not None:
        kept = position.parameters, position.statistics
        last, best = (kept, last) if position.returns_best else (last, kept)
    network.parameters[:], network.statistics[:] = last
    return replace(
        position,
        parameters=None if best is None else aligned_copy(best[0]),
        statistics=None if best is None else best[1].copy(),
    )


def check_resumed(
    estimator: Any, position: Position, terms: dict[str, dict[str, Any]], n_rows: int, batch_size: int
) -> None:
    """Raise a ValueError if the data or the parameters are not those of the fit to resume."""
    if n_rows != position.n_rows:
        raise ValueError(
            f"fit(resume=True) needs the rows of the fit that it resumes: it trained on {position.n_rows} rows, these "
            f"give {n_rows}."
        )
    changed = [
        name
        for group, values in terms.items()
        for name, value in values.items()
        if estimator._run_terms[group].get(name) != value
    ]
    changed += ["batch_size"] if batch_size != position.batch_size else []
    changed += ["shuffle"] if estimator.shuffle != position.shuffle else []
    if changed:
        raise ValueError(
            f"fit(resume=True) needs the parameters of the fit that it resumes; {', '.join(changed)} changed. fit() "
            "with warm_start=True begins a new run with the fitted weights."
        )
