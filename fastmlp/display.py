"""Displays: results as plots, in scikit-learn's manner: a class per plot, ``from_estimator``, ``plot``, ``ax_``.

matplotlib is imported when something is plotted. It refuses to compute what it shows: floors below do. Imported by ``tuning``
and by users.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastmlp.base import BaseMLP
from fastmlp.range_test import FACTOR, HIGH, LOW, N_STEPS, run_range_test


def _pyplot() -> Any:
    """matplotlib's pyplot, or an error that says how to get it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'fastmlp[plot]'.") from error
    return pyplot


class LearningRateRangeDisplay:
    """Loss over learning rate: what a range test found.

    ``from_estimator``, or ``plot`` of what :func:`learning_rate_range` returns, make one.

    Parameters
    ----------
    rates, losses, smoothed_losses : ndarray of shape (n,)
        The rate of each step, the loss of its rows, and this loss smoothed.
    suggestion : float, default=None
        A rate to mark.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn on. Losses far above those of the beginning are beyond its upper limit.
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The smoothed losses.
    losses_line_ : matplotlib Line2D
        The losses, as a fainter line of the same colour.
    suggestion_line_ : matplotlib Line2D or None
        A vertical line at the suggestion.

    Examples
    --------
    >>> from fastmlp import LearningRateRangeDisplay, MLPClassifier
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> display = LearningRateRangeDisplay.from_estimator(MLPClassifier(random_state=1), X, y)
    >>> display.figure_.savefig("rates.png")
    """

    ax_: Any
    figure_: Any
    line_: Any
    losses_line_: Any
    suggestion_line_: Any

    def __init__(
        self, *, rates: np.ndarray, losses: np.ndarray, smoothed_losses: np.ndarray, suggestion: float | None = None
    ) -> None:
        self.rates = rates
        self.losses = losses
        self.smoothed_losses = smoothed_losses
        self.suggestion = suggestion

    @classmethod
    def from_estimator(
        cls,
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
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Run the test and plot it.

        Parameters
        ----------
        estimator, X, y, sample_weight, low, high, n_steps, window, factor
            As for :func:`learning_rate_range`.
        ax : matplotlib Axes, default=None
            As for ``plot``.
        **kwargs : dict
            As for ``plot``.

        Returns
        -------
        LearningRateRangeDisplay
        """
        _pyplot()  # if it is missing, that is said before the work is done
        test = run_range_test(
            estimator, X, y, sample_weight=sample_weight, low=low, high=high, n_steps=n_steps, window=window, factor=factor
        )
        display = cls(
            rates=test.rates, losses=test.losses, smoothed_losses=test.smoothed_losses, suggestion=test.suggestion
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, **kwargs: Any) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            What to draw on; None: new ones.
        **kwargs : dict
            For the line of the smoothed losses: ``label`` (which brings a legend), ``color``, ...

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, which is in fastmlp's extra ``plot``.
        """
        pyplot = _pyplot()
        if ax is None:
            ax = pyplot.subplots()[1]
        self.ax_ = ax
        self.figure_ = ax.figure
        (self.line_,) = ax.plot(self.rates, self.smoothed_losses, **kwargs)
        colour = self.line_.get_color()
        faint = {"color": colour, "alpha": 0.3, "linewidth": 0.8, "zorder": self.line_.get_zorder() - 0.5}
        (self.losses_line_,) = ax.plot(self.rates, self.losses, **faint)
        self.suggestion_line_ = None
        if self.suggestion is not None:
            self.suggestion_line_ = ax.axvline(self.suggestion, color=colour, linestyle=":", linewidth=1.0)
        ax.set(xscale="log", xlabel="Learning rate", ylabel="Loss")
        self._set_limits(ax)
        if "label" in kwargs:
            ax.legend()
        return self

    def _set_limits(self, ax: Any) -> None:
        """From the least smoothed loss to the highest one before it, and some more; wider if an earlier plot set wider limits."""
        least = int(np.argmin(self.smoothed_losses))
        bottom, top = self.smoothed_losses[least], self.smoothed_losses[: least + 1].max()
        if not top > bottom:  # the loss never fell
            return
        room = top - bottom
        limits = bottom - 0.1 * room, top + 0.5 * room
        if not ax.get_autoscaley_on():
            before = ax.get_ylim()
            limits = min(limits[0], before[0]), max(limits[1], before[1])
        ax.set_ylim(limits)
