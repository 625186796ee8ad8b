"""Tuning: what helps to choose parameters before a long training run.

It refuses to train and to draw: ``range_test`` and ``display`` do. Searches over parameters are scikit-learn's, which the
estimators fit into as they are. Imported by users only.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from fastmlp.estimators.base import BaseMLP
from fastmlp.inspection.display import LearningRateRangeDisplay
from fastmlp.inspection.range_test import FACTOR, HIGH, LOW, N_STEPS, RangeTest, run_range_test


class LearningRateRange(RangeTest):
    """What :func:`learning_rate_range` found, and its plot.

    Parameters
    ----------
    rates, losses, smoothed_losses : ndarray of shape (n,)
        The rate of each step; the loss of its rows before its update, without penalty; this loss averaged over a window.
    least_rate : float
        The rate at which the smoothed loss is least.
    steepest_rate : float or None
        The rate at which the loss falls fastest over the logarithm of the rate; None if it never falls.
    divergence_rate : float or None
        The last rate, if the test ended early; None if it went on to its end.

    Attributes
    ----------
    suggestion : float
        A third of ``least_rate``: a value for ``learning_rate_init``.
    """

    def plot(self, ax: Any = None, **kwargs: Any) -> LearningRateRangeDisplay:
        """Draw the losses over the rates.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            What to draw on; None: new ones.
        **kwargs : dict
            As for ``LearningRateRangeDisplay.plot``.

        Returns
        -------
        LearningRateRangeDisplay

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        display = LearningRateRangeDisplay(
            rates=self.rates, losses=self.losses, smoothed_losses=self.smoothed_losses, suggestion=self.suggestion
        )
        return display.plot(ax=ax, **kwargs)


def learning_rate_range(
    estimator: BaseMLP,
    X: Any,
    y: Any,
    *,
    sample_weight: ArrayLike | None = None,
    low: float = LOW,
    high: float = HIGH,
    n_steps: int = N_STEPS,
    window: int | None = None,
    factor: float = FACTOR,
) -> LearningRateRange:
    """Learning-rate range test: train with a rate that grows, and see where the loss falls and where it explodes.

    Step k = 0 .. n_steps - 1 takes the rate low (high / low)^(k / (n_steps - 1)). The test ends early when the mean of the
    last ``window`` losses is more than ``factor`` times the least such mean so far, or when a loss is not finite.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        With any solver but 'lbfgs'. A clone of it is trained; it stays as it is. The clone begins where ``fit`` would: with
        new parameters, drawn by ``random_state``, or, if it is fitted and has ``warm_start=True``, with those of the fitted
        network, layers frozen or not; the optimizer's memory begins anew. The test stands in for ``learning_rate``,
        ``learning_rate_init``, ``power_t`` and ``max_iter``. No rows are held out, and nothing is scored:
        ``early_stopping``, ``validation_metric``, ``tol`` and ``n_iter_no_change`` do not matter either. All else is as in
        ``fit``, to the order of the rows.
    X, y, sample_weight
        As for ``fit``. A step takes a batch of rows; there may be fewer or more of them than an epoch has, and a new epoch
        draws a new order.
    low, high : float, default=1e-6, 10.0
        The first and the last rate.
    n_steps : int, default=200
        At least 2.
    window : int, default=None
        Losses to average over, an odd number; None: ``n_steps // 10``, plus 1 if that is even. Wide windows blur, narrow ones
        show the noise of the batches.
    factor : float, default=4.0
        More than 1.

    Returns
    -------
    LearningRateRange
        With ``rates``, ``losses``, ``smoothed_losses``, ``suggestion`` and the rates it comes from, and ``plot``. The same
        numbers for the same integer ``random_state``, on any number of threads.

    Raises
    ------
    TypeError
        For another estimator.
    ValueError
        For arguments that cannot be used; for solver='lbfgs'; as ``fit``; and if the very first loss is not finite.

    Notes
    -----
    The loss of a step is that of its rows before its update, so it tells of the rates up to the step before.

    References
    ----------
    Smith. Cyclical learning rates for training neural networks. WACV 2017. There, the rate grows by the same amount in
    each step and the accuracy is looked at; a constant ratio shows all magnitudes alike.

    Examples
    --------
    >>> from fastmlp import MLPClassifier, learning_rate_range
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=1000, random_state=1)
    >>> estimator = MLPClassifier(random_state=1)
    >>> found = learning_rate_range(estimator, X, y)
    >>> estimator = estimator.set_params(learning_rate_init=found.suggestion).fit(X, y)
    """
    test = run_range_test(
        estimator, X, y, sample_weight=sample_weight, low=low, high=high, n_steps=n_steps, window=window, factor=factor
    )
    return LearningRateRange(**vars(test))
