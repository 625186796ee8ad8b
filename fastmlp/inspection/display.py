"""Displays: plots of a fitted estimator, with the ``from_estimator``, ``plot`` and ``ax_`` of scikit-learn's displays.

matplotlib is imported when something is plotted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from fastmlp.estimators.base import BaseMLP


def pyplot() -> Any:
    """matplotlib's pyplot, or an error with the command that installs it."""
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'fastmlp[plot]'.") from error
    return plt


def axes_or_new(ax: Any) -> Any:
    """The axes to draw on: new ones for None."""
    plt = pyplot()
    return plt.subplots()[1] if ax is None else ax


def line_style(kwargs: dict[str, Any]) -> dict[str, Any]:
    """A line's properties under their full names: ``c`` is ``color``."""
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    style: dict[str, Any] = normalize_kwargs(kwargs, Line2D)
    return style


def _fitted(estimator: Any) -> BaseMLP:
    """The fitted estimator itself, or the last step of a fitted pipeline."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, BaseMLP):
        raise TypeError(
            "estimator must be an MLPClassifier or an MLPRegressor, or a Pipeline that ends in one, got "
            f"{type(last).__name__}. Of a search, take best_estimator_; of an ensemble, one of estimators_."
        )
    check_is_fitted(last)
    return last


@dataclass(kw_only=True, eq=False, repr=False)
class LossCurveDisplay:
    """The course of a fit: training loss over epochs, with validation loss, score and learning rate.

    ``from_estimator`` makes the display of a fitted estimator.

    Parameters
    ----------
    epochs : array-like of shape (n,)
        Number of each epoch.
    loss : array-like of shape (n,)
        Training loss, with penalty.
    validation_loss, validation_score : array-like of shape (n,), default=None
        On the validation rows or ``eval_set``; NaN for an epoch without it.
    learning_rate : array-like of shape (n,), default=None
        At the start of each epoch.
    best_epoch : int, default=None
        The epoch to mark.
    score_name : str, default='Validation score'
        Label of the score's axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The losses' axes.
    figure_ : matplotlib Figure
    line_ : matplotlib Line2D
        The training loss.
    validation_line_, score_line_, rate_line_, best_line_ : matplotlib Line2D or None
        The validation loss; score and learning rate, each on axes of its own over the same epochs; a vertical line at
        the best epoch.
    score_ax_, rate_ax_ : matplotlib Axes or None
        Axes of score and learning rate, to the right.

    Examples
    --------
    >>> from fastmlp import LossCurveDisplay, MLPClassifier
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=200, random_state=1)
    >>> model = MLPClassifier(random_state=1, early_stopping=True).fit(X, y)
    >>> display = LossCurveDisplay.from_estimator(model)  # doctest: +SKIP
    >>> display.figure_.savefig("loss.png")  # doctest: +SKIP
    """

    epochs: ArrayLike
    loss: ArrayLike
    validation_loss: ArrayLike | None = None
    validation_score: ArrayLike | None = None
    learning_rate: ArrayLike | None = None
    best_epoch: int | None = None
    score_name: str = "Validation score"

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None, **kwargs: Any) -> Self:
        """Plot the ``history_`` of a fitted estimator.

        Parameters
        ----------
        estimator : MLPClassifier, MLPRegressor, or a Pipeline that ends in one
            Fitted. The best epoch is the first with ``best_validation_score_``, whose parameters ``early_stopping``
            keeps. Without scores, none is marked.
        ax : matplotlib Axes, default=None
            As for ``plot``.
        **kwargs : dict
            As for ``plot``.

        Returns
        -------
        LossCurveDisplay

        Raises
        ------
        TypeError
            For another estimator.
        NotFittedError
            Before ``fit``.
        """
        pyplot()
        fitted = _fitted(estimator)
        history = fitted.history_

        def column(name: str) -> np.ndarray | None:
            values = np.array([epoch.get(name, np.nan) for epoch in history], dtype=np.float64)
            return None if np.isnan(values).all() else values

        score = column("validation_score")
        # Scores of an earlier fit with another metric do not match it.
        best = getattr(fitted, "best_validation_score_", None)
        metric = fitted.validation_metric
        display = cls(
            epochs=np.array([epoch["epoch"] for epoch in history], dtype=np.intp),
            loss=np.array([epoch["loss"] for epoch in history], dtype=np.float64),
            validation_loss=column("validation_loss"),
            validation_score=score,
            learning_rate=column("learning_rate"),
            best_epoch=next(
                (epoch["epoch"] for epoch in history if epoch.get("validation_score", np.nan) == best), None
            ),
            score_name=f"Validation score ({metric})" if isinstance(metric, str) else "Validation score",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(
        self, ax: Any = None, *, plot_score: bool = True, plot_learning_rate: bool | None = None, **kwargs: Any
    ) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes new ones.
        plot_score : bool, default=True
            Draw the score, if there is one.
        plot_learning_rate : bool or None, default=None
            Draw the learning rate; None: if it varies.
        **kwargs
            For the lines of both losses: ``linewidth``, ``marker``, ...

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, which is in fastmlp's extra ``plot``.
        """
        ax = self.ax_ = axes_or_new(ax)
        self.figure_ = ax.figure
        kwargs = line_style(kwargs)
        (self.line_,) = ax.plot(self.epochs, self.loss, **{"label": "Training loss", "color": "C0", **kwargs})
        self.validation_line_: Any = None
        self.score_line_: Any = None
        self.rate_line_: Any = None
        self.best_line_: Any = None
        self.score_ax_: Any = None
        self.rate_ax_: Any = None
        if self.validation_loss is not None:
            style = {"color": "C1", **kwargs, "label": "Validation loss"}
            (self.validation_line_,) = ax.plot(self.epochs, self.validation_loss, **style)
        ax.set(xlabel="Epoch", ylabel="Loss")
        if plot_score and self.validation_score is not None:
            style = {"label": self.score_name, "color": "C2", "linestyle": "--"}
            self.score_ax_, self.score_line_ = self._beside(self.validation_score, **style)
        varies = self.learning_rate is not None and np.ptp(np.asarray(self.learning_rate)) > 0
        if self.learning_rate is not None and (varies if plot_learning_rate is None else plot_learning_rate):
            style = {"label": "Learning rate", "color": "C7", "linestyle": ":", "drawstyle": "steps-mid"}
            self.rate_ax_, self.rate_line_ = self._beside(self.learning_rate, **style)
            if self.score_ax_ is not None:  # two scales on the right
                self.rate_ax_.spines["right"].set_position(("outward", 50))
        if self.best_epoch is not None:
            style = {"color": "0.5", "linewidth": 1.0, "linestyle": "-."}
            self.best_line_ = ax.axvline(self.best_epoch, label=f"Best epoch ({self.best_epoch})", **style)
        lines = [self.line_, self.validation_line_, self.score_line_, self.rate_line_, self.best_line_]
        drawn = [line for line in lines if line is not None]
        # On the axes that are drawn last, so that no line covers it; in the middle, between fallen losses and risen
        # scores.
        on_top = self.rate_ax_ or self.score_ax_ or ax
        on_top.legend(drawn, [line.get_label() for line in drawn], loc="center right")
        return self

    def _beside(self, values: ArrayLike, **style: Any) -> tuple[Any, Any]:
        """Plot values over the same epochs, with their own scale on the right."""
        axes = self.ax_.twinx()
        (line,) = axes.plot(self.epochs, values, **style)
        axes.set_ylabel(style["label"], color=style["color"])
        return axes, line


@dataclass(kw_only=True, eq=False, repr=False)
class WeightsDisplay:
    """The weights into a layer, as one heat map or as an image per unit.

    ``from_estimator`` makes the display of a fitted estimator.

    Parameters
    ----------
    weights : array-like of shape (fan_in, fan_out)
        An element of ``coefs_``, or some of its columns.
    image_shape : tuple (height, width), default=None
        With height * width == fan_in: one image per unit, side by side in rows. None: a heat map, a row per input and a
        column per unit.
    feature_names : sequence of str of length fan_in, default=None
        Names of the heat map's rows.
    input_label : str, default='Feature'
        Label of the heat map's rows.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage
        The whole plot is one image. Gaps between units' images are NaN, which is left blank.
    colorbar_ : matplotlib Colorbar or None

    Examples
    --------
    >>> from fastmlp import MLPClassifier, WeightsDisplay
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = MLPClassifier((25,), max_iter=20, random_state=0, alpha=1.0).fit(X / 16, y)  # doctest: +SKIP
    >>> display = WeightsDisplay.from_estimator(model, image_shape=(8, 8))  # doctest: +SKIP
    >>> display.figure_.savefig("weights.png")  # doctest: +SKIP
    """

    weights: ArrayLike
    image_shape: tuple[int, int] | None = None
    feature_names: Sequence[str] | None = None
    input_label: str = "Feature"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        layer: int = 0,
        units: int | Sequence[int] | None = None,
        image_shape: tuple[int, int] | None = None,
        ax: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Plot the weights of a fitted estimator.

        Parameters
        ----------
        estimator : MLPClassifier, MLPRegressor, or a Pipeline that ends in one
            Fitted. The first layer's inputs are the features as the last step gets them.
        layer : int, default=0
            Index into ``coefs_``; 0 is the first hidden layer, -1 the output.
        units : int or sequence of int, default=None
            Indices of the layer's units, or the number of units from the first; None: all.
        image_shape : tuple (height, width), default=None
            As in the class.
        ax : matplotlib Axes, default=None
            As for ``plot``.
        **kwargs : dict
            As for ``plot``.

        Returns
        -------
        WeightsDisplay

        Raises
        ------
        TypeError
            For another estimator.
        NotFittedError
            Before ``fit``.
        ValueError
            For a layer or units that do not exist, or an image of another size.
        """
        pyplot()
        fitted = _fitted(estimator)
        coefs = fitted.coefs_
        if not -len(coefs) <= layer < len(coefs):
            raise ValueError(f"layer must be the index of one of {len(coefs)} layers, from 0, got {layer}.")
        weights = coefs[layer]
        n_units = weights.shape[1]
        if units is None:
            units = n_units
        chosen = list(range(units) if isinstance(units, (int, np.integer)) else units)
        if not chosen or not all(-n_units <= unit < n_units for unit in chosen):
            raise ValueError(f"units must be among the {n_units} of layer {layer}, got {units}.")
        is_first = layer in (0, -len(coefs))
        names = getattr(fitted, "feature_names_in_", None) if is_first else None
        display = cls(
            weights=weights[:, chosen],
            image_shape=image_shape,
            feature_names=None if names is None else list(names),
            input_label="Feature" if is_first else "Unit of the layer before",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, ax: Any = None, *, colorbar: bool = True, **kwargs: Any) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on; None makes new ones.
        colorbar : bool, default=True
            Whether to draw the colour scale, with 0 in the middle.
        **kwargs
            For ``imshow``: ``cmap`` (default 'RdBu_r'), ``vmax``, ...

        Returns
        -------
        self

        Raises
        ------
        ImportError
            Without matplotlib, which is in fastmlp's extra ``plot``.
        ValueError
            If the images' size is not the number of weights into a unit.
        """
        pyplot()  # raises before the work if matplotlib is missing
        weights = np.asarray(self.weights)
        shown = weights if self.image_shape is None else self._side_by_side(weights)
        ax = self.ax_ = axes_or_new(ax)
        self.figure_ = ax.figure
        style: dict[str, Any] = {
            "cmap": "RdBu_r",
            "aspect": "auto" if self.image_shape is None else "equal",
            "interpolation": "nearest",
        }
        if kwargs.get("norm") is None:  # a norm has its own limits
            limit = kwargs.pop("vmax", None) or float(np.abs(weights).max()) or 1.0
            style |= {"vmin": -limit, "vmax": limit}
        self.image_ = ax.imshow(shown, **{**style, **kwargs})
        self.colorbar_ = self.figure_.colorbar(self.image_, ax=ax, label="Weight") if colorbar else None
        if self.image_shape is not None:
            ax.set(xticks=[], yticks=[])
            return self
        ax.set(xlabel="Unit", ylabel=self.input_label)
        if self.feature_names is not None:
            ax.set_yticks(range(len(weights)), self.feature_names)
        return self

    def _side_by_side(self, weights: np.ndarray) -> np.ndarray:
        """One image (rows (height + 1) - 1, columns (width + 1) - 1), about square, with NaN between the units'
        images."""
        fan_in, n = weights.shape
        shape = np.ravel(np.asarray(self.image_shape)).tolist()
        height, width = shape if len(shape) == 2 else (0, 0)
        if height * width != fan_in or height < 0:
            raise ValueError(
                f"image_shape must have height * width = {fan_in}, the number of weights into a unit, got "
                f"{self.image_shape}."
            )
        columns = int(np.ceil(np.sqrt(n)))
        rows = -(-n // columns)
        tiles = np.full((rows * columns, height + 1, width + 1), np.nan)
        tiles[:n, :height, :width] = weights.T.reshape(n, height, width)
        grid = tiles.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
        return grid.reshape(rows * (height + 1), columns * (width + 1))[:-1, :-1]
