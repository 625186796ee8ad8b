"""Diagnosis of a finished run: whether its network is worse than a constant prediction, and which columns may be the
cause."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse

from fastmlp.core import Codes
from fastmlp.training.run import Run, StochasticRun, masked, mean_loss

# Rows that are examined, and numbers in them: they are copied.
_MOST_ROWS, _LEAST_ROWS, _MOST_NUMBERS = 2000, 200, 2**16
# Rows of this many outputs say enough with a quarter of the rows; so do they where a prediction takes long.
_MANY_OUTPUTS, _MANY_PARAMETERS = 1000, 10**6
# A training loss below this share of a constant's needs no further look. The two are not of the same rows.
_SUSPECT = 0.95
# The loss grew if it ends above the first epoch's by this share of a constant's.
_GROWTH = 0.1
# A run that ended by max_iter is as slow as its columns let it be if it keeps this share of a constant's loss.
_SLOW = 0.5
# Far from unit scale: a root mean square above the first number, a mean above the second number of standard deviations,
# or no value above the third. A target's output bias starts near 0, and takes a step of about learning_rate_init at a
# time.
_FAR_X = (30.0, 10.0, 0.01)
_FAR_Y = (10.0, np.inf, 0.1)
# Outputs are the same for all rows if they differ by less than this share of the target's standard deviation.
_FLAT = 0.01
_OTHERWISE = "Try another learning_rate_init, or a smaller alpha."
# Columns that are named; the others are counted.
_NAMED = 3
# Endings that are the user's or have a warning of their own.
_NOT_JUDGED = ("single_epoch", "stopped", "interrupted", "diverged")


def diagnose(run: Run, names: Any = None) -> str:
    """Why the fit cannot have gone well, and the remedy; '' if it may have.

    The training loss is compared with that of the best constant prediction. Only if it is no better, or has grown since
    the first epoch, the network predicts a sample of the rows, and the columns of X and y are examined.

    Parameters
    ----------
    run : Run
        It has ended, and its network has the parameters that the fit returns.
    names : sequence of str, default=None
        Names of the columns of X; None for their indices.
    """
    record = run.record
    if record.ended in _NOT_JUDGED:
        return ""
    data = run.data.sample()
    if not data.n_rows:
        return ""
    losses = [entry["loss"] for entry in record.epochs[len(record.epochs) - record.n_epochs :]] or [record.best_loss]
    stops_early = isinstance(run, StochasticRun) and run.validation is not None and run.validation.controls_stopping
    first, last = losses[0], losses[max(record.best_epoch, 1) - 1 if stops_early else -1]
    rows = _sample(run, run.network.layer_sizes[-1])
    best = _best_constant(run, rows)
    constant = _loss_of_constant(run, best, rows)
    scale = 1.0 if _predicts_labels(run) else float(np.abs(data.y[rows]).max())
    if not constant > np.finfo(np.float32).eps * scale:  # y is constant
        return ""
    grew = first <= min(losses) and not last <= first + _GROWTH * constant
    if last <= (_SLOW if record.ended == "max_iter" else _SUSPECT) * constant and not grew:
        return ""
    rows = _sample(run, max(data.X.shape[1], run.network.layer_sizes[-1]))
    constant = _loss_of_constant(run, best, rows)
    output = run.network.forward(data.X[rows], n_threads=run.n_threads)
    reached = _mean_loss(run, output.copy(), rows)
    flat = False
    if reached > _SUSPECT * constant:
        target = masked(data.y[rows], _weight(run, rows))
        spread = target.std(axis=0, dtype=np.float64) if target.ndim == 2 else 0.5
        flat = bool((np.ptp(output, axis=0) <= np.ma.filled(_FLAT * spread, np.inf)).all())
    worse = flat or not reached < constant
    if not (worse or grew or (record.ended == "max_iter" and reached > _SLOW * constant)):
        return ""
    # A score that chooses the epoch need not choose the one with the least loss; L-BFGS ends where tol says.
    excused = (
        stops_early or not isinstance(run, StochasticRun) or (record.ended in ("max_iter", "planned") and last <= first)
    )
    causes = describe_scale(run, names)
    if not (worse or grew) or (excused and not causes and not flat):
        return causes
    finding = (
        f"The fit cannot have gone well: its training loss is {last:.3g}, that of a constant prediction {constant:.3g}."
    )
    if grew:
        finding += f" It was {first:.3g} in the first epoch."
    if flat:
        finding += " The network predicts the same for all rows."
    return f"{finding} {causes or 'Try a smaller learning_rate_init.' if grew else causes or _OTHERWISE}"


def _predicts_labels(run: Run) -> bool:
    """Whether the targets are classes or labels, rather than numbers on a scale."""
    return run.network.out_activation in ("softmax", "logistic")


def _sample(run: Run, width: int) -> np.ndarray:
    """Indices of some of the rows that were trained on, spread over all of them: fewer, if the rows to be copied are
    wide."""
    data = run.data.sample()
    n_rows, target = data.n_rows, data.y
    many = (target.ndim == 2 and target.shape[1] >= _MANY_OUTPUTS) or run.network.n_parameters >= _MANY_PARAMETERS
    least = _LEAST_ROWS // 4 if many else _LEAST_ROWS
    width = max(width, *run.network.layer_sizes) if many else width
    most = min(n_rows, _MOST_ROWS, max(least, _MOST_NUMBERS // width))
    chosen = np.linspace(0, n_rows - 1, most).astype(np.intp)
    return chosen if data.rows is None else data.rows[chosen]


def _weight(run: Run, rows: np.ndarray) -> np.ndarray | None:
    """The weights of these rows."""
    weight = run.data.sample().sample_weight
    return None if weight is None else weight[rows]


def _mean_loss(run: Run, output: np.ndarray, rows: np.ndarray) -> float:
    """Mean loss of the outputs for these rows; the outputs are overwritten."""
    with np.errstate(all="ignore"):
        return mean_loss(
            run.network,
            run.loss,
            output,
            run.data.sample().y[rows],
            _weight(run, rows),
            run.method.loss_parameter,
            run.method.loss_reduction,
        )


def _loss_of_constant(run: Run, constant: np.ndarray, rows: np.ndarray) -> float:
    """Mean loss of one output for all of these rows."""
    output = np.empty((len(rows), run.network.layer_sizes[-1]), dtype=run.network.dtype)
    output[...] = constant
    return _mean_loss(run, output, rows)


def _best_constant(run: Run, rows: np.ndarray) -> np.ndarray:
    """The output with the least mean loss that is the same for all rows; for Huber's loss, nearly so."""
    target, weight = run.data.sample().y[rows], _weight(run, rows)
    if target.ndim == 1:
        counts = np.bincount(target, weights=weight, minlength=run.network.layer_sizes[-1])
        return np.asarray(counts / counts.sum())
    if run.loss not in ("absolute_error", "huber", "quantile"):
        if weight is not None and weight.ndim == 2:
            total = weight.sum(axis=0)
            return np.asarray((weight * target).sum(axis=0) / np.where(total == 0, 1, total))
        return np.asarray(np.average(target.astype(np.float64), axis=0, weights=weight))
    share = run.method.loss_parameter if run.loss == "quantile" else 0.5
    order = np.argsort(target, axis=0)
    weights = np.ones(len(target)) if weight is None else weight
    weights = weights[order] if weights.ndim == 1 else np.take_along_axis(weights, order, axis=0)
    below = np.cumsum(weights, axis=0)
    places = (below < share * below[-1]).sum(axis=0)
    chosen = np.take_along_axis(order, places[None], axis=0)
    return np.asarray(np.take_along_axis(target, chosen, axis=0)[0])


def describe_scale(run: Run, names: Any = None) -> str:
    """Sentences about the columns of X, and of a regressor's target, that are far from unit scale; '' without such."""
    data = run.data.sample()
    if not data.n_rows:
        return ""
    rows = _sample(run, max(data.X.shape[1], run.network.layer_sizes[-1]))
    X, target = data.X[rows], masked(data.y[rows], _weight(run, rows))
    causes = []
    if not isinstance(X, Codes) and (found := _far(X, *_FAR_X)):  # codes have unit scale
        columns = [(f"column {i if names is None else repr(str(names[i]))} of X", *rest) for i, *rest in found[:_NAMED]]
        scaler = "MaxAbsScaler" if issparse(X) else "StandardScaler"
        causes.append(f"{_sentence(columns, len(found))} Put a {scaler} before the network.")
    if not _predicts_labels(run) and (found := _far(target, *_FAR_Y)):
        target_names = [(_target_name(run, i), *rest) for i, *rest in found[:_NAMED]]
        remedy = (
            "Divide it by its mean." if run.loss == "poisson" else
            "Wrap the regressor: TransformedTargetRegressor(regressor, transformer=StandardScaler())."
        )  # fmt: skip
        causes.append(f"{_sentence(target_names, len(found))} {remedy}")
    return " ".join(causes)


def _target_name(run: Run, i: int) -> str:
    """What a message calls a column of y."""
    names = run.target_names
    if run.network.layer_sizes[-1] > 1:
        return f"column {i if names is None else repr(names[i])} of y"
    return "the target" if names is None else f"the target {names[i]!r}"


def _sentence(found: list[tuple[Any, ...]], n_found: int) -> str:
    """Names of columns with their mean and standard deviation."""
    listed = ", ".join(f"{name} (mean {mean:.3g}, standard deviation {spread:.3g})" for name, mean, spread in found)
    more = f", and {n_found - len(found)} more" if n_found > len(found) else ""
    return f"Far from unit scale: {listed}{more}."


def _far(values: Any, large: float, offset: float, small: float) -> list[tuple[int, float, float]]:
    """Columns far from unit scale, the farthest first: index, mean and standard deviation."""
    if issparse(values):
        stored = values.astype(np.float64)
        mean = np.asarray(stored.mean(axis=0)).ravel()
        square = np.asarray(stored.multiply(stored).mean(axis=0)).ravel()
        largest = abs(stored).max(axis=0).toarray().ravel()
        spread = np.sqrt(np.maximum(square - mean**2, 0))
    else:
        with np.errstate(all="ignore"):
            mean, spread = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
            mean, spread, largest = (np.ma.filled(found, 0) for found in (mean, spread, np.abs(values).max(axis=0)))
    scale = np.hypot(mean, spread)
    varies = spread > 1e-6 * np.abs(mean)  # below, it is the rounding of a constant
    far = (
        (scale > large)
        | (varies & (np.abs(mean) > np.maximum(1, offset * np.where(varies, spread, 1))))
        | ((largest > 0) & (largest < small))
    )
    order = np.argsort(-np.abs(np.log(np.maximum(scale, np.finfo(np.float64).tiny))), kind="stable")
    return [(int(i), float(mean[i]), float(spread[i])) for i in order if far[i]]
