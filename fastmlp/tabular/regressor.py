"""TabularRegressor: numbers for the rows of a table, on the target's own scale."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.utils.metadata_routing import UNUSED

from fastmlp.estimators._sklearn import BaseEstimator, RegressorMixin
from fastmlp.estimators.base import BaseMLP
from fastmlp.estimators.regressor import MLPRegressor, RegressorScore
from fastmlp.estimators.validation.scoring import score_weighted
from fastmlp.network.persistence import Fields, FileFormatError, Tensors
from fastmlp.tabular.base import BaseTabular
from fastmlp.tabular.recipes import REGRESSION_RECIPES
from fastmlp.tabular.search import PredictedNumbers, weighted_mean
from fastmlp.training.run import masked

# The target's scale: arrays with a number for each output, and the rows of those that have several.
_SCALES: dict[str, tuple[int, ...]] = {"target_mean_": (), "target_scale_": (), "target_range_": (2,)}


class TabularRegressor(RegressorScore, BaseTabular):
    """Networks for the rows of a table: numbers, categories, dates and gaps as they are, and a target on its own scale.

    The input is a data frame as it comes, treated as by :class:`TabularClassifier`. The target is standardised inside.
    A network is trained for each of a few folds of the rows, up to the epoch with the least squared error on the rows
    that were left out, and their predictions are averaged.

    Parameters
    ----------
    method : {'tabm', 'plain', 'realmlp'}, default='tabm'
        The kind of networks, and the values of the parameters that are 'auto'. 'tabm': each embeds the columns, and has
        members on shared weights, whose outputs are averaged (after TabM-mini, Gorishniy et al. 2025). 'plain': each is
        an :class:`MLPRegressor` on the codes of the columns, which takes a little less time where there are few of
        them. 'realmlp': each is a network of RealMLP-S on scaled columns, trained as its authors do (Holzmüller et al.
        2024, "TD-S" in their code). Their larger RealMLP ("TD") is another network: it embeds the columns and learns
        its activations.
    categorical_features : 'from_dtype' or array-like of bool, int or str, default='from_dtype'
        Columns to take as categories: a mask, indices, or names, as in scikit-learn's HistGradientBoosting estimators.
        Columns of text, truth values and types for categories are categories in any case; naming a column of text lifts
        the limit on its different values. 'from_dtype': no others.
    n_folds : int, default=5
        Networks, each trained without one fold of the rows, whose predictions are averaged. The rows of its fold tell
        when a network is best. There are at most as many as rows. 1: a single network, without ``validation_fraction``
        of the rows.
    n_configurations : int or 'auto', default='auto'
        Configurations to train: the first is the estimator's own, the others change parameters that have their defaults
        (see Notes). Each is a network for each fold, on the same folds. The predictions are those of an ensemble that
        is selected on the rows that each network has not been trained on. 'auto': 1 or, with a ``time_limit``, as many
        as there is time for.
    time_limit : float or None, default=None
        Seconds that ``fit`` may take, apart from ``n_permutations``. No configuration is begun that is not expected to
        end in time, and a network that trains when its share of the time is up ends with that epoch, its best one kept.
        Every network of the first configuration is trained for one epoch at least.
    n_bins : int, default=48
        Most bins of a column of numbers, at most 65,535: see :class:`PiecewiseLinearEncoder`. Not for 'realmlp'.
    max_categories : int, default=256
        Most inputs for the categories of a column. If it has more, all but the ``max_categories - 1`` most frequent
        share an input.
    embedding : int or 'auto', default='auto'
        Units, a multiple of 16, of an embedding of each column, the first layer: a column's units are piecewise-linear
        functions of its numbers, or are learnt for each of its categories. 0: none. 'auto': 16 for 'tabm', 0 for
        'plain' and 'realmlp', the only value for the latter.
    n_members : int or 'auto', default='auto'
        Members of each network, which multiply the columns' embeddings by random signs of their own, share the other
        layers, and have output layers of their own. More than one needs an embedding. 'auto': 2 for 'tabm', 1 for the
        others. 8 to 16 are better, most where columns act together; the time grows with them.
    hidden_layer_sizes : int, sequence of int or 'auto', default='auto'
        Units of each hidden layer. 'auto': (128, 128) for 'tabm', (256, 256) for 'plain', (256, 256, 256) for
        'realmlp'.
    activation : str or list of str, default='auto'
        As in :class:`MLPClassifier`. 'auto': 'mish' for 'realmlp', 'relu' for the others.
    dropout : float, sequence of float or 'auto', default='auto'
        Rate of dropout after each hidden layer, one for all, or a sequence that begins with 0, for the input: as in
        :class:`MLPClassifier`. An embedding has none. 'auto': 0 for 'realmlp', 0.1 for
        the others. With 'realmlp', rates and weight decay are constant in the first half of ``max_iter`` epochs, then
        fall to 0 along a cosine.
    weight_decay : float or 'auto', default='auto'
        Of the solver, 'adamw': in each step, weights shrink by the learning rate times this. 'auto': 0.0003 for 'tabm',
        0.3 for 'plain', 0 for 'realmlp'.
    max_grad_norm : float, None or 'auto', default='auto'
        Each step's gradient is scaled down to this Euclidean norm; None: never. 'auto': 1 for 'tabm', None for the
        others.
    learning_rate : str or callable, default='auto'
        A plan of the learning rate over ``max_iter`` epochs, as in :class:`MLPClassifier`. 'auto': 'coslog4' for
        'realmlp', 'constant' for the others.
    learning_rate_init : float or 'auto', default='auto'
        Learning rate to start from, with 'realmlp' the highest one, of a weight that is multiplied by 1 / sqrt(fan_in)
        of its layer. 'auto':
        0.002 for 'tabm', 0.001 for 'plain', 0.07 for 'realmlp'.
    beta_2 : float or 'auto', default='auto'
        Decay of the second moment in 'adamw', in [0, 1). 'auto': 0.95 for 'realmlp', 0.999 for the others.
    scaling_rate : float or 'auto', default='auto'
        For 'realmlp': factor of the learning rate for a scaling layer, a number for each input that begins as 1 and is
        then learnt. 0: none. 'auto': 6 for 'realmlp', 0 for the others, the only value for them.
    initial_values : {'auto', 'data'}, default='auto'
        'data', for 'realmlp' only: weights such that each unit has a standard deviation of 1 over the training rows
        before its activation, and biases such that it changes its sign among them, as in the authors' larger RealMLP.
        'auto': normal numbers that do not depend on the rows, and zeros in the output layer.
    batch_size : int or 'auto', default='auto'
        Rows per step. 'auto': a power of two near a sixteenth of the rows that a network trains on, from 16 to 256; 512
        above 32,000 of them, 1024 above 108,000. For 'realmlp' 256; the last rows of an epoch are left out where they
        are fewer.
    max_iter : int or 'auto', default='auto'
        Most epochs. 'auto': 256 for 'realmlp', 200 for the others.
    early_stopping : bool, default=True
        Stop when the score on the rows that a network does not train on has stalled for ``n_iter_no_change`` epochs,
        and keep the parameters of the best epoch. False: train for ``max_iter`` epochs, a single network on all rows,
        and keep the last parameters.
    validation_fraction : float, default=0.2
        Share of the rows, in (0, 1), that a single network does not train on.
    n_iter_no_change : int or 'auto', default='auto'
        Epochs without improvement that are tolerated. 'auto': all for 'realmlp', 16 for the others.
    validation_metric : str, callable or None, default=None
        The score that chooses the epoch: a scikit-learn scorer, by name or (estimator, X, y) -> float, more being
        better. None: minus the squared error.
    n_permutations : int, default=0
        Permutations of each column for ``feature_importances_``; 0: there is no such attribute. Each takes the time of
        predictions for the held-out rows, of which at most 10,000 are taken.
    dtype : {'float32', 'float64', 'auto'}, default='float32'
        Element type of the networks; 'auto' is 'float32'.
    n_jobs : int or None, default=None
        Threads, each of which trains a network of its own; None and -1: as many as OpenMP, threadpoolctl, CPU affinity
        and cgroup allow. The result does not depend on it.
    random_state : int, RandomState instance or None, default=None
        Deals the rows into folds, and draws each network's seed.
    verbose : bool or int, default=False
        As in :class:`MLPClassifier`.

    Attributes
    ----------
    columns_ : list of Column
        What was done to each column; printed, a line for each.
    categories_ : dict of list
        The categories of each column that has such.
    estimators_ : list of MLPRegressor
        The networks' estimators, in the order of the folds, and of configurations after a search. Their input is the
        columns' codes. ``history_`` of each has its epochs.
    networks_ : list of Network
        Their networks.
    estimator_weights_ : ndarray of shape (n_networks,)
        Their weights in predictions, which add up to 1.
    configurations_ : list of dict
        Only after a search, or a fit with a time limit: of each configuration its ``parameters``, its ``score`` (more
        is better: ``validation_metric`` or minus the loss, on the rows that its networks have not been trained on), its
        ``weight`` in the ensemble, the ``seconds`` that its networks took, added up, and how it ``ended``: 'complete',
        'stopped' (time was up) or 'failed' (it diverged, or needed too much memory).
    n_iter_ : ndarray of shape (n_networks,)
        Epochs that each was trained for.
    oof_prediction_ : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The prediction for each row of ``fit`` by the network that did not train on it. Only with several networks.
    feature_importances_, feature_importances_std_ : ndarray of shape (n_features,)
        Only with ``n_permutations``: by how much the score, ``validation_metric`` or minus the loss, falls on the rows
        that networks have not been trained on if a column's values are permuted among them: mean and standard deviation
        over the permutations (scikit-learn's ``permutation_importance``). Columns that say the same thing share what
        they are worth.
    target_mean_, target_scale_ : ndarray of shape (n_outputs,)
        Mean and standard deviation of the training rows' targets, weighted; the networks learn
        ``(y - target_mean_) / target_scale_``.
    target_range_ : ndarray of shape (2, n_outputs)
        Their least and largest value, to which predictions are limited.
    n_outputs_, n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Numbers, dates (as days since 1970) and durations (as days) become piecewise-linear codes, with an input for each
    bin and one for missing values. Categories have an input each, and so have their missing values; if there were none
    in ``fit``, a missing number later counts as the column's median, and a missing category as none. A category that
    ``fit`` has not seen counts as missing. Columns with a single value, or with none, are dropped. Infinity, nested
    values and text with more than 1,000 different values that is not named in ``categorical_features`` are errors that
    name the column. The page on tables has the details.

    With 'realmlp', a number becomes (x - median) / (difference of its quartiles), smoothly limited to 3, missing ones
    being the mean, with a flag of their own; categories have an input each, missing and unknown ones none, and two
    categories share one, as 1 and -1. These inputs are scaled too. ``fit`` then holds each input of all rows, 4 bytes
    in float32: many categories take much memory.

    ``fit`` holds the codes of all rows once, for all networks: 6 bytes for each number, 2 for each category (4 in
    columns of 65,536 categories and more). A number's position in its bin is float32, whatever ``dtype``.

    A search changes parameters that have their defaults. With 'tabm', it tries the method 'plain' and eight members,
    and draws, at random and independently, up to four hidden layers of one width, dropout, learning rate, weight decay,
    embedding and members, eight configurations at a time and the smaller ones first, from the space in which TabM's
    authors tune it, as far as a CPU has the time (4 to 16 members, widths from 64 to 256, no networks that need eight
    times the default's arithmetic or more); every fourth is one of 'plain': up to three layers up to 512 wide, dropout,
    learning rate and weight decay, as all are with ``method="plain"``. With 'realmlp' the space is that of its authors,
    but for embeddings of numbers. The ensemble is selected greedily with replacement, in 50 steps. It minimises the
    error of ``oof_prediction_``, which is a little too small then. Weights of 0 are left out of ``estimators_``. The
    same seed and number of configurations give the same bits on any number of threads. With a ``time_limit`` the number
    depends on the machine, and so does the epoch at which a 'stopped' configuration ended; without such, the same fit
    with ``n_configurations=len(model.configurations_)`` and no limit gives the same model.

    References
    ----------
    Gorishniy, Rubachev and Babenko. On embeddings for numerical features in tabular deep learning. NeurIPS 2022.
    Gorishniy, Kotelnikov and Babenko. TabM: advancing tabular deep learning with parameter-efficient ensembling. ICLR
    2025. Holzmüller, Grinsztajn and Steinwart. Better by default: strong pre-tuned MLPs and boosted trees on tabular
    data. NeurIPS 2024. Breiman. Bagging predictors. Machine Learning 24, 1996. Caruana, Niculescu-Mizil, Crew and
    Ksikes. Ensemble selection from libraries of models. ICML 2004.

    Examples
    --------
    >>> import pandas as pd
    >>> from fastmlp import TabularRegressor
    >>> df = pd.DataFrame({"area": [40.0, 60.0, 80.0, 100.0] * 10, "town": ["Bonn", "Kiel"] * 20})
    >>> model = TabularRegressor(n_folds=2, random_state=0).fit(df, df["area"] * 3000)
    >>> mean, spread = model.predict(df[:3], return_std=True)
    >>> mean.round(-4)
    array([120000., 180000., 240000.])
    """

    _member_class = MLPRegressor
    _predicted_class = PredictedNumbers
    _recipes = REGRESSION_RECIPES
    # An argument of predict that is not data, and so not for scikit-learn to route.
    __metadata_request__predict = {"return_std": UNUSED}

    target_mean_: np.ndarray
    target_scale_: np.ndarray
    target_range_: np.ndarray

    def _member(self) -> BaseMLP:
        member = super()._member()
        if self.validation_metric is not None:
            member.validation_metric = _OnOwnScale(self.validation_metric, self)
        return member

    def _share_target(self, member: Any, source: Any) -> None:
        member.n_outputs_ = source.n_outputs_

    def _class_weighted(self, prototype: Any, y: Any, weight: np.ndarray | None) -> np.ndarray | None:
        return weight

    def _strata(self, y: Any) -> np.ndarray | None:
        return None

    def _learn_scale(self, y: Any, rows: np.ndarray, weight: np.ndarray | None) -> None:
        target = np.asarray(y, dtype=np.float64)[rows].reshape(len(rows), -1)
        own = None if weight is None else weight[rows]
        known = masked(target, own)
        self.target_range_ = np.array([known.min(axis=0), known.max(axis=0)])
        size = np.abs(self.target_range_).max(axis=0)
        size[size == 0] = 1.0
        target = target / size  # squares of these are finite
        mean = np.average(target, axis=0, weights=own)
        scale = np.sqrt(np.average((target - mean) ** 2, axis=0, weights=own))
        constant = self.target_range_[0] == self.target_range_[1]
        self.target_mean_ = mean * size
        self.target_scale_ = np.where(constant | (scale * size == 0), 1.0, scale * size)

    def _network_target(self, y: Any) -> np.ndarray:
        target: np.ndarray = np.asarray(y, dtype=np.float64)
        target = (target.reshape(len(target), -1) - self.target_mean_) / self.target_scale_
        return target[:, 0] if np.ndim(y) == 1 else target

    def _loss_part(self, outputs: np.ndarray, y: Any) -> np.ndarray:
        return outputs

    def _loss(self, part: np.ndarray, y: Any, weight: np.ndarray | None) -> float:
        """Mean squared error of the standardised targets."""
        target = self._network_target(y).reshape(part.shape)
        return weighted_mean((part - target) ** 2, weight)

    def _predicted(self, prediction: np.ndarray) -> np.ndarray:
        return self._shaped(prediction)

    def _own_scale(self, outputs: np.ndarray) -> np.ndarray:
        low, high = self.target_range_
        prediction: np.ndarray = np.minimum(np.maximum(outputs * self.target_scale_ + self.target_mean_, low), high)
        return prediction

    def _shaped(self, prediction: np.ndarray) -> np.ndarray:
        return prediction[:, 0] if self.n_outputs_ == 1 else prediction

    _own_attributes = (*BaseTabular._own_attributes, *_SCALES)

    def _describe_own(self, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
        arrays |= {f"{prefix}{name}": getattr(self, name) for name in _SCALES}
        return super()._describe_own(arrays, prefix)

    def _build_own(self, fields: Fields, tensors: Tensors, prefix: str) -> None:
        super()._build_own(fields, tensors, prefix)
        n_outputs = None
        for name, n_rows in _SCALES.items():
            tensors.require(f"{prefix}{name}", ("float64",), (*n_rows, n_outputs))
            setattr(self, name, np.array(tensors.read(f"{prefix}{name}")))
            n_outputs = getattr(self, name).shape[-1]
        if (
            not n_outputs
            or not (self.target_scale_ > 0).all()
            or not (self.target_range_[0] <= self.target_range_[1]).all()
        ):
            raise FileFormatError("target_scale_ must be > 0, and target_range_ must rise")
        if n_outputs == 1 and hasattr(self, "oof_prediction_"):
            self.oof_prediction_ = self.oof_prediction_[:, 0]

    @overload
    def predict(self, X: Any, return_std: Literal[False] = False) -> np.ndarray: ...
    @overload
    def predict(self, X: Any, return_std: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...
    def predict(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean of the networks' predictions for each row and, if asked for, their spread.

        Parameters
        ----------
        X : data frame, array-like or list of rows, of shape (n_samples, n_features)
            With the columns of ``fit``.
        return_std : bool, default=False
            Return the networks' standard deviation too. It tells how far they disagree, in the unit of y; the noise in
            y is not in it.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or, with several outputs, (n_samples, n_outputs)
            Not beyond the range of the training rows' targets.
        std : ndarray of the same shape
            Only with ``return_std``.

        Raises
        ------
        ValueError
            For ``return_std`` with a single network; and as ``fit``, for columns that are not those of ``fit``.
        """
        mean, spread = self._predict(X, with_std=return_std)
        if spread is None:
            return self._shaped(mean)
        return self._shaped(mean), self._shaped(spread)


class _OnOwnScale:
    """A scorer for a network's estimator, which hands the user's scorer targets and predictions on their own scale."""

    def __init__(self, metric: str | Callable[..., float], regressor: TabularRegressor) -> None:
        self.metric = metric
        self.regressor = regressor

    def __call__(self, estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        own = self.regressor
        model = _Rescaled(estimator, own)
        target = y.reshape(len(y), -1) * own.target_scale_ + own.target_mean_
        metric = check_scoring(model, scoring=self.metric)
        return float(score_weighted(metric, model, X, target[:, 0] if y.ndim == 1 else target, sample_weight))


class _Rescaled(RegressorMixin, BaseEstimator):
    """A network's estimator that predicts on the target's own scale."""

    def __init__(self, estimator: Any = None, regressor: Any = None) -> None:
        self.estimator = estimator
        self.regressor = regressor

    def fit(self, X: Any, y: Any) -> _Rescaled:
        """For scikit-learn, to which an estimator has a ``fit``."""
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predictions for rows of the network's input."""
        prediction = self.estimator.predict(X)
        own: np.ndarray = self.regressor._shaped(self.regressor._own_scale(prediction.reshape(len(X), -1)))
        return own

    def __sklearn_is_fitted__(self) -> bool:
        return True
