"""The learning-rate range test: training with a rate that grows from step to step, and what the losses say about it.

It refuses to change the estimator that it is handed, to plot, and to decide: it suggests. The training is the estimator's
own, to the order of the rows. Imported by ``display`` and ``tuning``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from fastmlp.core._shuffle import shuffle
from fastmlp.estimators.base import BaseMLP, Run
from fastmlp.training.loop import OptimizerState, non_finite_message
from fastmlp.training.schedules import STOCHASTIC_SOLVERS, _power, update_rule
from fastmlp.training.threads import choose_threads, step_flops

# Defaults of the test.
LOW, HIGH, N_STEPS, FACTOR = 1e-6, 10.0, 200, 4.0
# The losses are looked at so often: that share of the steps may be made after the one that ends the test.
_LOOKS = 20
# The window, if none is asked for, is this share of the steps.
_WINDOWS = 10
# The best rate is usually within a factor of two of the largest at which training converges (Bengio 2012); Smith takes a third
# or a fourth of that as the lower end of a range. On digits, breast cancer, diabetes and two made-up sets a third of the rate of
# the least loss was within a factor of six of the best of 11 rates for 15 epochs of adam, sgd and momentum, but once (14).
_DISTANCE = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class RangeTest:
    """What a learning-rate range test found.

    Attributes
    ----------
    rates : ndarray of shape (n,)
        The rate of each step, rising from ``low``; n is less than ``n_steps`` if the test ended early.
    losses : ndarray of shape (n,)
        The loss of each step's rows before its update, without penalty. All are finite.
    smoothed_losses : ndarray of shape (n,)
        Means over ``window`` steps around each; near the ends over as many on either side as there are on the shorter one.
    least_rate : float
        The rate at which the smoothed loss is least.
    steepest_rate : float or None
        The rate at which the loss falls fastest over the logarithm of the rate: where the straight line through the
        ``window`` losses around it falls most steeply (Savitzky and Golay 1964), up to ``least_rate``. None if no line
        falls. The losses of few or small batches may put it anywhere before the true descent.
    divergence_rate : float or None
        The last rate, if the test ended early; None if it went on to ``high``.
    suggestion : float
        A third of ``least_rate``: a value for ``learning_rate_init``. With ``learning_rate='one_cycle'``, which needs the
        highest rate, ``least_rate`` itself may do.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed_losses: np.ndarray
    least_rate: float
    steepest_rate: float | None
    divergence_rate: float | None

    @property
    def suggestion(self) -> float:
        """A third of ``least_rate``."""
        return self.least_rate / _DISTANCE

    def __repr__(self) -> str:
        names = ("suggestion", "least_rate", "steepest_rate", "divergence_rate")
        found = {name: getattr(self, name) for name in names}
        words = [f"{name}={'None' if rate is None else format(rate, '.3g')}" for name, rate in found.items()]
        return f"{type(self).__name__}({', '.join(words)}, {len(self.rates)} steps)"


def run_range_test(
    estimator: BaseMLP,
    X: Any,
    y: Any,
    *,
    sample_weight: ArrayLike | None,
    low: float,
    high: float,
    n_steps: int,
    window: int | None,
    factor: float,
) -> RangeTest:
    """The test that ``tuning.learning_rate_range`` describes."""
    probe = _probe(estimator)
    _check_numbers(low, high, n_steps, window, factor)
    window = int(n_steps // _WINDOWS | 1 if window is None else window)
    run = probe._prepare(X, y, sample_weight, incremental=False)
    rates, losses = rising_rates(low, high, n_steps), np.empty(n_steps)
    end = None
    for done in _train(probe, run, rates, losses):
        end = end_of_test(losses[:done], window, factor)
        if end is not None:
            break
    if end == 0:
        raise ValueError(non_finite_message("before the first step of the range test"))
    rates, losses = rates[:end].copy(), losses[:end].copy()
    smoothed, slopes = smooth(losses, window)
    return RangeTest(
        rates,
        losses,
        smoothed,
        least_rate=float(rates[smoothed.argmin()]),
        steepest_rate=_steepest(rates, smoothed, slopes),
        divergence_rate=None if end is None else float(rates[-1]),
    )


# --- the run -------------------------------------------------------------------------------------------------


def _probe(estimator: Any) -> BaseMLP:
    """What is trained in place of the estimator: a clone, which goes on from the fitted network where ``fit`` would."""
    if not isinstance(estimator, BaseMLP):
        raise TypeError(
            f"estimator must be an MLPClassifier or an MLPRegressor, got {type(estimator).__name__}. Of a Pipeline, take the "
            "last step, and X as the other steps transform it."
        )
    if estimator.solver == "lbfgs":
        raise ValueError(f"solver='lbfgs' has no learning rate to test; {list(STOCHASTIC_SOLVERS)} have one.")
    probe: BaseMLP = clone(estimator)
    probe._validate_params()
    if estimator.warm_start:
        settings = estimator.get_params(deep=False)
        probe.__dict__.update({name: value for name, value in vars(estimator).items() if name not in settings})
    # All rows are trained on, and none is scored.
    probe.set_params(early_stopping=False, validation_metric=None)
    probe._check_combination(None)
    return probe


def _check_numbers(low: float, high: float, n_steps: int, window: int | None, factor: float) -> None:
    for name, value in {"low": low, "high": high, "factor": factor}.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
            raise ValueError(f"{name} must be a finite number, got {value!r}.")
    if not 0 < low < high:
        raise ValueError(f"low and high must be 0 < low < high, got low={low} and high={high}.")
    if factor <= 1:
        raise ValueError(f"factor must be > 1, got {factor}.")
    if isinstance(n_steps, bool) or not isinstance(n_steps, Integral) or n_steps < 2:
        raise ValueError(f"n_steps must be an integer >= 2, got {n_steps!r}.")
    if window is not None and (
        isinstance(window, bool) or not isinstance(window, Integral) or window < 1 or window % 2 == 0
    ):
        raise ValueError(f"window must be an odd integer >= 1, or None for a tenth of n_steps, got {window!r}.")


def rising_rates(low: float, high: float, n: int) -> np.ndarray:
    """high (low / high)^(1 - k / (n - 1)), k = 0 .. n - 1: from low to high, always by the same ratio."""
    rates = high * _power(low / high, np.arange(n - 1, -1, -1) / (n - 1))
    rates[0] = low
    return rates


def _train(probe: BaseMLP, run: Run, rates: np.ndarray, losses: np.ndarray) -> Iterator[int]:
    """Step k with rates[k], its loss into losses[k]; the number of steps made so far, again and again.

    Rows, orders and all that is drawn are those of ``training.run_epochs``, called by ``fit`` without early stopping.
    """
    data, rng = run.data, run.rng
    size = probe._batch_size(data.n_rows, stacklevel=5)
    rule = update_rule(probe.solver, probe.momentum, probe.nesterovs_momentum)
    n_threads = choose_threads(probe.n_jobs, step_flops(run.network.layer_sizes, size))
    method = probe._method(probe.layer_rates_, rng)
    constants = {**asdict(probe._hyperparameters()), **method.constants()}
    trainer = method.trainer(run.network, run.loss, rule, size, n_threads)
    trainer.load(run.network.parameters, OptimizerState.new(rule, run.network).arrays, run.network.statistics)
    order = np.arange(data.n_rows, dtype=np.intp) if data.rows is None else data.rows.copy()
    per_epoch, n_steps = -(-data.n_rows // size), len(rates)
    stride = -(-n_steps // _LOOKS)
    for begin in range(0, n_steps, per_epoch):
        if probe.shuffle:
            shuffle(order, rng)
        mix = method.mix(begin, per_epoch)
        for first in range(0, min(per_epoch, n_steps - begin), stride):
            last = min(first + stride, per_epoch, n_steps - begin)
            steps = slice(begin + first, begin + last)
            trainer.epoch(
                data.X,
                data.y,
                data.sample_weight,
                order[first * size : last * size],
                rates[steps],
                begin + first,
                mix=None if mix is None else mix[first:last],
                step_losses=losses[steps],
                **constants,
            )
            yield begin + last


# --- what the losses say -------------------------------------------------------------------------------------


def end_of_test(losses: np.ndarray, window: int, factor: float) -> int | None:
    """How many steps count if the test is over, else None.

    It is over with the step, which counts, whose loss makes the mean of the last ``window`` losses more than ``factor``
    times the least such mean so far; or before the first step whose loss is not finite.
    """
    n = len(losses)
    finite = int(np.append(~np.isfinite(losses), True).argmax())
    if finite >= window:
        with np.errstate(over="ignore"):  # sums and multiples of what is finite need not be
            means = np.lib.stride_tricks.sliding_window_view(losses[:finite], window).mean(axis=1)
            over = means > factor * np.minimum.accumulate(means)
        if over.any():
            return int(over.argmax()) + window
    return finite if finite < n else None


def smooth(losses: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope per step, in the middle, of the straight line through the losses around each (n,).

    With j = -h .. h around step k: mean_j loss[k+j]; sum_j j loss[k+j] / sum_j j^2. h is window // 2, or less where the next
    end is nearer; NaN as the slope where it is.
    """
    n, half = len(losses), window // 2
    values, slopes = np.empty(n), np.full(n, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(n):
            h = min(half, k, n - 1 - k)
            around, j = losses[k - h : k + h + 1], np.arange(-h, h + 1.0)
            values[k] = around.mean()
            if h == half > 0:
                slopes[k] = (j * around).sum() / (j * j).sum()
    return values, slopes


def _steepest(rates: np.ndarray, smoothed: np.ndarray, slopes: np.ndarray) -> float | None:
    """The rate with the lowest slope up to the least smoothed loss; None if none is below 0."""
    candidates = slopes[: int(smoothed.argmin()) + 1]
    falling = np.flatnonzero(candidates < 0)
    return float(rates[falling[candidates[falling].argmin()]]) if len(falling) else None
