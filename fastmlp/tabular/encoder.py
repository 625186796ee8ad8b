"""PiecewiseLinearEncoder: piecewise-linear codes as a transformer for any pipeline."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from fastmlp.estimators._sklearn import (
    BaseEstimator,
    Interval,
    TransformerMixin,
    _check_feature_names_in,
    _fit_context,
)
from fastmlp.estimators.parameters import one_of, validate
from fastmlp.estimators.validation.messages import explain_columns
from fastmlp.estimators.validation.rows import FLOATS, refuse_dates
from fastmlp.tabular.bins import MOST_BINS, fill_codes, known_numbers, median, n_components, quantile_edges


class PiecewiseLinearEncoder(TransformerMixin, BaseEstimator):
    """Encode each number by its position in bins between the training rows' quantiles.

    With edges e_0 < ... < e_m, component i of the code of x is ``(x - e_{i-1}) / (e_i - e_{i-1})``: 1 in the bins below
    x, 0 in those above, and the position within the bin of x. A layer on such codes is a piecewise-linear function of
    each column, which a network learns much better than steep functions of the number itself. Nothing needs scaling.

    Parameters
    ----------
    n_bins : int, default=48
        Most bins of a column, at most 65,535. Quantiles that are equal are one edge, so that a column with few
        different values has fewer bins.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        Element type of the codes; 'auto' is that of X if it is a float, float64 otherwise. The arithmetic is in
        float64.

    Attributes
    ----------
    edges_ : list of ndarray of shape (n_edges,), float64
        Each column's edges: the quantiles 0, 1 / n_bins ... 1 without repetitions. A column with one value has one edge
        and no component; one without values has neither.
    missing_ : ndarray of shape (n_features,), bool
        Columns with missing numbers in ``fit``.
    fill_ : ndarray of shape (n_features,)
        Each column's median in ``fit``, NaN for columns without values.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    The first component is at most 1, the last at least 0, and those between are in [0, 1]: beyond the outer edges the
    code goes on linearly. A single component has no limits. Codes too large for ``dtype`` become its largest number.

    A missing number (NaN, None, NA) of a column that had some in ``fit`` has a code of zeros, and a 1 in a column of
    its own, the last of its feature. If there was none in ``fit``, nothing could be learnt about such a column: there
    is none, and the number gets the code of the column's median.

    References
    ----------
    Gorishniy, Rubachev and Babenko. On embeddings for numerical features in tabular deep learning. NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from fastmlp import PiecewiseLinearEncoder
    >>> encoder = PiecewiseLinearEncoder(n_bins=2).fit(np.array([[0.0], [2.0], [6.0]]))
    >>> encoder.edges_
    [array([0., 2., 6.])]
    >>> encoder.transform([[1.0], [5.0], [10.0]])
    array([[0.5 , 0.  ],
           [1.  , 0.75],
           [1.  , 2.  ]])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_bins": [Interval(Integral, 1, MOST_BINS, closed="both")],
        "dtype": [one_of(["auto", "float32", "float64"])],
    }

    edges_: list[np.ndarray]
    missing_: np.ndarray
    fill_: np.ndarray

    def __init__(self, n_bins: int = 48, *, dtype: str = "auto") -> None:
        self.n_bins = n_bins
        self.dtype = dtype

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the edges.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Numbers; NaN, None, NA and masked values for missing ones.
        y : ignored
            For pipelines.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X holds infinity, or text that is not a number.
        TypeError
            If X holds dates or durations, whose numbers depend on their unit.
        """
        X = self._check(X, reset=True)
        columns = [known_numbers(column.astype(np.float64)) for column in X.T]
        self.edges_ = [quantile_edges(column, self.n_bins) for column in columns]
        self.missing_ = np.isnan(X).any(axis=0)
        self.fill_ = np.array([median(column) for column in columns])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The codes of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            As in ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_components)
            Column by column of X, its components in rising order, then the mark of a missing number if it has one.
        """
        check_is_fitted(self)
        X = self._check(X, reset=False)
        out = np.empty((len(X), sum(self._widths())), dtype=X.dtype if self.dtype == "auto" else self.dtype)
        first = 0
        for j, width in enumerate(self._widths()):
            fill_codes(
                out[:, first : first + width],
                X[:, j],
                self.edges_[j],
                self.missing_[j],
                self.fill_[j],
            )
            first += width
        return out

    def _validate_params(self) -> None:
        validate(type(self), self.get_params(deep=False))

    def _check(self, X: Any, reset: bool) -> np.ndarray:
        """X as an array of floats, missing numbers as NaN."""
        if isinstance(X, np.ma.MaskedArray):
            X = np.ma.filled(X.astype(np.result_type(X.dtype, np.float32)), np.nan)
        with explain_columns(self, X, allow_gaps=True):
            refuse_dates("X", X)
            rows: np.ndarray = validate_data(self, X, dtype=FLOATS, ensure_all_finite="allow-nan", reset=reset)
        return rows

    def _widths(self) -> list[int]:
        """Number of columns that each feature becomes."""
        return [n_components(edges) + int(missing) for edges, missing in zip(self.edges_, self.missing_, strict=True)]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of ``transform``: ``<feature>_bin<i>``, i from 0, and ``<feature>_missing``.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the features; None: those seen in ``fit``, or x0, x1 ...

        Returns
        -------
        ndarray of str objects
        """
        check_is_fitted(self)
        names: list[str] = []
        for name, edges, missing in zip(
            _check_feature_names_in(self, input_features), self.edges_, self.missing_, strict=True
        ):
            names += [f"{name}_bin{i}" for i in range(n_components(edges))]
            names += [f"{name}_missing"] if missing else []
        return np.asarray(names, dtype=object)

    @property
    def _n_features_out(self) -> int:
        return sum(self._widths())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"] if self.dtype == "auto" else [self.dtype]
        return tags
