"""Learning-rate range test: training with a rate that grows from step to step, to find a value for
``learning_rate_init``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from fastmlp.estimators.base import BaseMLP
from fastmlp.inspection.display import axes_or_new, line_style
from fastmlp.training.run import StochasticRun, non_finite_message
from fastmlp.training.schedules import _power
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

# How often the end of the test is checked for: up to 1 / 20 of the steps are made after it.
_N_CHECKS = 20
# The default window is a tenth of the steps.
_WINDOWS = 10
# The best rate is usually within a factor of two of the largest at which training converges (Bengio 2012); Smith takes
# a third or a fourth of that as the lower end of a range. A third of the rate of the least loss was within a factor of
# six of the best of 11 rates on five data sets, with one exception (14).
_SUGGESTED_SHARE = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class LearningRateRange:
    """Result of :func:`learning_rate_range`; ``plot`` draws it.

    Parameters
    ----------
    rates : ndarray of shape (n,)
        The rate of each step, rising from ``low``; n is less than ``n_steps`` if the test ended early.
    losses : ndarray of shape (n,)
        The loss of each step's rows before its update, without penalty. All are finite.
    smoothed_losses : ndarray of shape (n,)
        Means over ``window`` steps, the same number before and after each step; near the ends, over fewer.
    least_rate : float
        The rate at which the smoothed loss is least.
    steepest_rate : float or None
        The rate at which the loss falls fastest over the logarithm of the rate: where the straight line through the
        ``window`` losses around it falls most steeply (Savitzky and Golay 1964), up to ``least_rate``. None if no line
        falls. The losses of few or small batches may put it anywhere before the true descent.
    divergence_rate : float or None
        The last rate, if the test ended early; None if it went on to ``high``.

    Attributes
    ----------
    suggestion : float
        A third of ``least_rate``: a value for ``learning_rate_init``. With ``learning_rate='one_cycle'``, whose highest
        rate it is, ``least_rate`` itself may work.
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
        return self.least_rate / _SUGGESTED_SHARE

    def __repr__(self) -> str:
        names = ("suggestion", "least_rate", "steepest_rate", "divergence_rate")
        found = {name: getattr(self, name) for name in names}
        words = [f"{name}={'None' if rate is None else format(rate, '.3g')}" for name, rate in found.items()]
        return f"{type(self).__name__}({', '.join(words)}, {len(self.rates)} steps)"

    def plot(self, ax: Any = None, **kwargs: Any) -> Any:
        """Draw the smoothed losses over the rates, the losses as a fainter line, the suggestion as a vertical one.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes new ones. The limits of axes that hold another test only widen.
        **kwargs : dict
            For the line of the smoothed losses: ``label`` (which brings a legend), ``color``, ...

        Returns
        -------
        matplotlib Axes
            Its upper limit cuts off losses far above those of the beginning.

        Raises
        ------
        ImportError
            Without matplotlib, which is in fastmlp's extra ``plot``.
        """
        ax = axes_or_new(ax)
        kwargs = line_style(kwargs)
        (line,) = ax.plot(self.rates, self.smoothed_losses, **kwargs)
        colour = line.get_color()
        ax.plot(self.rates, self.losses, color=colour, alpha=0.3, linewidth=0.8, zorder=line.get_zorder() - 0.5)
        ax.axvline(self.suggestion, color=colour, linestyle=":", linewidth=1.0)
        ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss")
        self._set_limits(ax)
        if "label" in kwargs:
            ax.legend()
        return ax

    def _set_limits(self, ax: Any) -> None:
        """From the least smoothed loss to the highest one before it, with a margin."""
        bottom, top = self.smoothed_losses.min(), self.smoothed_losses[: self.smoothed_losses.argmin() + 1].max()
        if not top > bottom:  # the loss never fell
            return
        room = top - bottom
        limits = bottom - 0.1 * room, top + 0.5 * room
        if not ax.get_autoscaley_on():  # of another test on the same axes
            before = ax.get_ylim()
            limits = min(limits[0], before[0]), max(limits[1], before[1])
        ax.set_ylim(limits)


def learning_rate_range(
    estimator: BaseMLP,
    X: Any,
    y: Any,
    *,
    sample_weight: ArrayLike | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    n_steps: int = 200,
    window: int | None = None,
    factor: float = 4.0,
) -> LearningRateRange:
    """Learning-rate range test: train with a growing rate, to see where the loss falls and where it explodes.

    Step k = 0 .. n_steps - 1 takes the rate low (high / low)^(k / (n_steps - 1)). The test ends early when the mean of
    the last ``window`` losses is more than ``factor`` times the least such mean so far, or when a loss is not finite.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With any solver but 'lbfgs'. It is not changed: the test trains a clone, which starts where ``fit`` would: with
        new parameters, drawn by ``random_state``, or, if it is fitted and has ``warm_start=True``, with those of the
        fitted network, frozen layers included; the optimizer state is empty. The test replaces ``learning_rate``,
        ``learning_rate_init``, ``power_t`` and ``max_iter``. There are no validation rows, so ``early_stopping``,
        ``validation_metric``, ``tol`` and ``n_iter_no_change`` have no effect either. Everything else is as in ``fit``,
        including the order of the rows.
    X, y, sample_weight
        As for ``fit``. A step takes a batch of rows. The test may end within an epoch or take several, each in a new
        order.
    low, high : float, default=1e-6, 10.0
        The first and the last rate.
    n_steps : int, default=200
        At least 2.
    window : int, default=None
        Number of losses to average, odd; None: ``n_steps // 10``, plus 1 if that is even. Wide windows blur, narrow
        ones show the noise of the batches.
    factor : float, default=4.0
        More than 1.

    Returns
    -------
    LearningRateRange
        The same numbers for the same integer ``random_state``, on any number of threads.

    Raises
    ------
    TypeError
        For another estimator.
    ValueError
        For invalid arguments, solver='lbfgs', as ``fit``, and if the first loss is not finite.

    Notes
    -----
    The loss of a step is computed before its update, so it shows the effect of the rates up to the step before.

    References
    ----------
    Smith. Cyclical learning rates for training neural networks. WACV 2017. There, the rate grows by the same amount in
    each step and the accuracy is plotted; a constant ratio shows all magnitudes alike.

    Examples
    --------
    >>> from fastmlp import MLPClassifier, learning_rate_range
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=1000, random_state=1)
    >>> estimator = MLPClassifier(random_state=1)
    >>> found = learning_rate_range(estimator, X, y)
    >>> estimator = estimator.set_params(learning_rate_init=found.suggestion).fit(X, y)
    """
    probe = _probe(estimator)
    _check_numbers(low, high, n_steps, window, factor)
    window = int(n_steps // _WINDOWS | 1 if window is None else window)
    run = probe._prepare(X, y, sample_weight)
    assert isinstance(run, StochasticRun)
    rates, losses = rising_rates(low, high, n_steps), np.empty(n_steps)
    end = None
    for done in _train(run, rates, losses):
        end = end_of_test(losses[:done], window, factor)
        if end is not None:
            break
    if end == 0:
        raise ValueError(non_finite_message("before the first step of the range test"))
    rates, losses = rates[:end].copy(), losses[:end].copy()
    smoothed, slopes = smooth(losses, window)
    return LearningRateRange(
        rates,
        losses,
        smoothed,
        least_rate=float(rates[smoothed.argmin()]),
        steepest_rate=_steepest(rates, smoothed, slopes),
        divergence_rate=None if end is None else float(rates[-1]),
    )


# --- training ------------------------------------------------------------------------------------------------


def _probe(estimator: Any) -> BaseMLP:
    """The clone to train, which continues from the fitted network if ``fit`` would."""
    if not isinstance(estimator, BaseMLP):
        raise TypeError(
            f"estimator must be an MLPClassifier or an MLPRegressor, got {type(estimator).__name__}. Of a Pipeline, "
            "take the last step, and X as the other steps transform it."
        )
    if estimator.solver == "lbfgs":
        raise ValueError(f"solver='lbfgs' has no learning rate to test; {list(STOCHASTIC_SOLVERS)} have one.")
    probe: BaseMLP = clone(estimator)
    probe._validate_params()
    if estimator.warm_start:
        settings = estimator.get_params(deep=False)
        probe.__dict__.update({name: value for name, value in vars(estimator).items() if name not in settings})
    # All rows are trained on, and none are scored.
    probe.set_params(early_stopping=False, validation_metric=None, learning_rate="constant")
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


def _train(run: StochasticRun, rates: np.ndarray, losses: np.ndarray) -> Iterator[int]:
    """Train: step k takes rates[k] and writes its loss to losses[k]. Yields the number of steps made so far.

    Orders and draws are those of ``fit`` without early stopping.
    """
    data, size, method = run.data, run.settings.batch_size, run.method
    constants = {**run.hyperparameters, **method.constants()}
    trainer = method.trainer(run.network, run.loss, run.optimizer.rule, size, run.n_threads)
    trainer.load(run.network.parameters, run.optimizer.arrays, run.network.statistics)
    epochs = data.epochs(size, run.rng if run.settings.shuffle else None)
    per_epoch, n_steps = -(-data.n_rows // size), len(rates)
    stride = -(-n_steps // _N_CHECKS)
    for begin in range(0, n_steps, per_epoch):
        epochs.begin_epoch()
        mix, done = method.mix(begin, per_epoch), 0
        with closing(epochs.parts()) as parts:
            for part in parts:
                order = np.arange(part.n_rows, dtype=np.intp) if part.order is None else part.order
                last = min(done - (-part.n_rows // size), n_steps - begin)
                for first in range(done, last, stride):
                    end = min(first + stride, last)
                    trainer.epoch(
                        part.X,
                        part.y,
                        part.sample_weight,
                        order[(first - done) * size : (end - done) * size],
                        rates[begin + first : begin + end],
                        begin + first,
                        mix=None if mix is None else mix[first:end],
                        step_losses=losses[begin + first : begin + end],
                        **constants,
                    )
                    yield begin + end
                done = last
                if begin + done == n_steps:
                    break


# --- evaluation of the losses ----------------------------------------------------------------------------------


def end_of_test(losses: np.ndarray, window: int, factor: float) -> int | None:
    """The number of steps that count if the test is over, else None.

    It is over with the step, which counts, whose loss makes the mean of the last ``window`` losses more than ``factor``
    times the least such mean so far; or before the first step whose loss is not finite.
    """
    n = len(losses)
    finite = int(np.append(~np.isfinite(losses), True).argmax())
    if finite >= window:
        with np.errstate(over="ignore"):  # of finite numbers
            means = np.lib.stride_tricks.sliding_window_view(losses[:finite], window).mean(axis=1)
            over = means > factor * np.minimum.accumulate(means)
        if over.any():
            return int(over.argmax()) + window
    return finite if finite < n else None


def smooth(losses: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Value and slope at each step of the straight line fitted to the losses around it, two arrays (n,).

    With j = -h .. h around step k: mean_j loss[k+j]; sum_j j loss[k+j] / sum_j j^2. h is window // 2, or less near the
    ends, where the slope is NaN.
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
