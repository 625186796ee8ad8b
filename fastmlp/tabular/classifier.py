"""TabularClassifier: class labels of the rows of a table."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from scipy.sparse import issparse

from fastmlp.estimators._sklearn import ClassWeight, LayerSizes, Metric, RandomState, Rates
from fastmlp.estimators.base import BaseMLP
from fastmlp.estimators.classifier import ClassifierScore, MLPClassifier, share_classes
from fastmlp.estimators.parameters import one_of
from fastmlp.estimators.validation.labels import apply_class_weight
from fastmlp.network.network import Network, SelectedRows
from fastmlp.tabular.base import BaseTabular
from fastmlp.tabular.coding import Inputs
from fastmlp.tabular.recipes import AUTO
from fastmlp.tabular.search import PredictedClasses, weighted_mean


class TabularClassifier(ClassifierScore, BaseTabular):
    """Classifies rows of a table: numbers, categories, dates and gaps as they are.

    The input is a data frame as it comes. Each number is encoded by its place between quantiles, each category has an
    input of its own, and gaps are marked; a network is trained for each of a few folds of the rows, up to the epoch
    with the least log-loss on the rows that were left out, and their probabilities are averaged.

    Parameters
    ----------
    method : {'tabm', 'plain', 'realmlp'}, default='tabm'
        The kind of networks, and the values of the parameters that are 'auto'. 'tabm': each embeds the columns, and has
        members on shared weights, whose outputs are averaged (after TabM-mini, Gorishniy et al. 2025). 'plain': each is
        an :class:`MLPClassifier` on the codes of the columns, which takes a little less time where there are few of
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
        As in :class:`MLPClassifier`. 'auto': 'selu' for 'realmlp', 'relu' for the others.
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
        0.002 for 'tabm', 0.001 for 'plain', 0.04 for 'realmlp'.
    beta_2 : float or 'auto', default='auto'
        Decay of the second moment in 'adamw', in [0, 1). 'auto': 0.95 for 'realmlp', 0.999 for the others.
    scaling_rate : float or 'auto', default='auto'
        For 'realmlp': factor of the learning rate for a scaling layer, a number for each input that begins as 1 and is
        then learnt. 0: none. 'auto': 6 for 'realmlp', 0 for the others, the only value for them.
    initial_values : {'auto', 'data'}, default='auto'
        'data', for 'realmlp' only: weights such that each unit has a standard deviation of 1 over the training rows
        before its activation, and biases such that it changes its sign among them, as in the authors' larger RealMLP.
        'auto': normal numbers that do not depend on the rows, and zeros in the output layer.
    label_smoothing : float or 'auto', default='auto'
        As in :class:`MLPClassifier`. 'auto': 0.1 for 'realmlp', 0 for the others. Its authors advise 0, and
        ``validation_metric='loss'``, where probabilities or the AUC count.
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
        better. None: minus the log-loss; for 'realmlp' the accuracy, and of epochs with the same one the last.
    n_permutations : int, default=0
        Permutations of each column for ``feature_importances_``; 0: there is no such attribute. Each takes the time of
        predictions for the held-out rows, of which at most 10,000 are taken.
    class_weight : 'balanced', dict, list of dict or None, default=None
        As in :class:`MLPClassifier`.
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
    estimators_ : list of MLPClassifier
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
    oof_prediction_ : ndarray of shape (n_samples, n_classes)
        Probabilities of each row of ``fit`` by the network that did not train on it. Only with several networks.
    feature_importances_, feature_importances_std_ : ndarray of shape (n_features,)
        Only with ``n_permutations``: by how much the score, ``validation_metric`` or minus the loss, falls on the rows
        that networks have not been trained on if a column's values are permuted among them: mean and standard deviation
        over the permutations (scikit-learn's ``permutation_importance``). Columns that say the same thing share what
        they are worth.
    classes_ : ndarray of shape (n_classes,)
        Class labels; the columns' indices in multi-label.
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
    >>> from fastmlp import TabularClassifier
    >>> df = pd.DataFrame({"age": [22, 35, None, 58] * 10, "town": ["Bonn", "Kiel", "Kiel", None] * 10})
    >>> model = TabularClassifier(n_folds=2, random_state=0).fit(df, ["yes", "no", "no", "yes"] * 10)
    >>> model.columns_
    column  type     inputs  treatment
    age     float64       7  number, 6 bins, missing values marked
    town    str           3  2 categories, missing values marked
    >>> model.predict(df[:2])
    array(['yes', 'no'], dtype='<U3')
    """

    _parameter_constraints = {
        **BaseTabular._parameter_constraints,
        "class_weight": MLPClassifier._parameter_constraints["class_weight"],
        "label_smoothing": [one_of([AUTO]), *MLPClassifier._parameter_constraints["label_smoothing"]],
    }
    _member_class = MLPClassifier
    _predicted_class = PredictedClasses

    _target_type: str
    _sparse_target: bool

    def __init__(
        self,
        method: str = "tabm",
        *,
        categorical_features: Any = "from_dtype",
        n_folds: int = 5,
        n_configurations: int | str = AUTO,
        time_limit: float | None = None,
        n_bins: int = 48,
        max_categories: int = 256,
        embedding: int | str = AUTO,
        n_members: int | str = AUTO,
        hidden_layer_sizes: LayerSizes | str = AUTO,
        activation: Any = AUTO,
        dropout: Rates | str = AUTO,
        weight_decay: float | str = AUTO,
        max_grad_norm: float | str | None = AUTO,
        learning_rate: Any = AUTO,
        learning_rate_init: float | str = AUTO,
        beta_2: float | str = AUTO,
        scaling_rate: float | str = AUTO,
        initial_values: str = AUTO,
        label_smoothing: float | str = AUTO,
        batch_size: int | str = "auto",
        max_iter: int | str = AUTO,
        early_stopping: bool = True,
        validation_fraction: float = 0.2,
        n_iter_no_change: float | str = AUTO,
        validation_metric: Metric = None,
        n_permutations: int = 0,
        class_weight: ClassWeight = None,
        dtype: str = "float32",
        n_jobs: int | None = None,
        random_state: RandomState = None,
        verbose: bool | int = False,
    ) -> None:
        super().__init__(
            method,
            categorical_features=categorical_features,
            n_folds=n_folds,
            n_configurations=n_configurations,
            time_limit=time_limit,
            n_bins=n_bins,
            max_categories=max_categories,
            embedding=embedding,
            n_members=n_members,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            beta_2=beta_2,
            scaling_rate=scaling_rate,
            initial_values=initial_values,
            batch_size=batch_size,
            max_iter=max_iter,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            validation_metric=validation_metric,
            n_permutations=n_permutations,
            dtype=dtype,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight

    def _member(self) -> BaseMLP:
        member = super()._member()
        member.label_smoothing = self._own("label_smoothing")
        return member

    def _metric(self) -> Metric:
        """For 'realmlp', the networks' own: the accuracy."""
        return None if self.method == "realmlp" and self.validation_metric is None else super()._metric()

    def _share_target(self, member: Any, source: Any) -> None:
        share_classes(member, source)

    def _class_weighted(self, prototype: Any, y: Any, weight: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return weight
        return apply_class_weight(self.class_weight, self.classes_, y, weight)

    def _strata(self, y: Any) -> np.ndarray | None:
        return None if issparse(y) or y.ndim == 2 else np.searchsorted(self.classes_, y)

    def _learn_scale(self, y: Any, rows: np.ndarray, weight: np.ndarray | None) -> None:
        """Labels have none."""

    def _network_target(self, y: Any) -> Any:
        return y

    def _loss_part(self, outputs: np.ndarray, y: Any) -> np.ndarray:
        """The probability of each row's class, or of each label as it is."""
        if self._target_type.startswith("multilabel"):
            return np.where(y.toarray() if issparse(y) else y, outputs, 1.0 - outputs)
        probability: np.ndarray = outputs[np.arange(len(outputs)), self._strata(y)]
        return probability

    def _loss(self, part: np.ndarray, y: Any, weight: np.ndarray | None) -> float:
        """The log-loss."""
        return -weighted_mean(np.log(np.maximum(part, np.finfo(np.float32).tiny)), weight)

    def _predicted(self, prediction: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.estimators_[0]._labels(prediction[:, -self.n_outputs_ :])
        return labels

    def _n_columns(self) -> int:
        return self.n_outputs_ if self._target_type.startswith("multilabel") else len(self.classes_)

    def _run(self, network: Network, rows: Inputs | SelectedRows) -> np.ndarray:
        """Probabilities of the classes, of two classes too."""
        probabilities: np.ndarray = self.estimators_[0]._probabilities([network], rows, self._threads(network, rows))
        return probabilities

    def _own_scale(self, outputs: np.ndarray) -> np.ndarray:
        if not self._target_type.startswith("multilabel"):  # in float32, rows add up to 1 to seven digits only
            outputs = outputs / outputs.sum(axis=-1, keepdims=True)
        return outputs

    def _shaped(self, prediction: np.ndarray) -> np.ndarray:
        return prediction

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row.

        Parameters
        ----------
        X : data frame, array-like or list of rows, of shape (n_samples, n_features)
            With the columns of ``fit``.

        Returns
        -------
        ndarray of shape (n_samples,) or, in multi-label, (n_samples, n_outputs)
        """
        probabilities, _ = self._predict(X)
        return self._predicted(probabilities)

    @overload
    def predict_proba(self, X: Any, return_std: Literal[False] = False) -> np.ndarray: ...
    @overload
    def predict_proba(self, X: Any, return_std: Literal[True]) -> tuple[np.ndarray, np.ndarray]: ...
    def predict_proba(self, X: Any, return_std: bool = False) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Mean of the networks' probabilities of each class and, if asked for, their spread.

        Parameters
        ----------
        X : data frame, array-like or list of rows, of shape (n_samples, n_features)
            With the columns of ``fit``.
        return_std : bool, default=False
            Return the standard deviation of the networks' probabilities too. It tells how far they disagree, not how
            sure they are.

        Returns
        -------
        mean : ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows add up to 1, except in multi-label.
        std : ndarray of the same shape
            Only with ``return_std``.

        Raises
        ------
        ValueError
            For ``return_std`` with a single network; and as ``fit``, for columns that are not those of ``fit``.
        """
        mean, spread = self._predict(X, with_std=return_std)
        return mean if spread is None else (mean, spread)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of ``predict_proba``, from the networks' logits: finite also where a probability rounds to 0.

        Parameters
        ----------
        X : data frame, array-like or list of rows, of shape (n_samples, n_features)
            With the columns of ``fit``.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        return np.concatenate([self._mean_logarithm(codes) for codes in self._pieces(X)])

    def _mean_logarithm(self, codes: Inputs) -> np.ndarray:
        """The logarithm of the mean of the networks' probabilities."""
        if len(self.classes_) == 1:
            return np.zeros((len(codes), 1))
        log_probabilities = self.estimators_[0]._log_probabilities
        logarithms = [
            log_probabilities(network, codes, self._threads(network, codes)).astype(np.float64)
            for network in self.networks_
        ]
        if self._counts is not None:
            logarithms = [log + np.log(count) for log, count in zip(logarithms, self._counts, strict=True)]
        n_all = len(logarithms) if self._counts is None else sum(self._counts)
        mean: np.ndarray = np.logaddexp.reduce(logarithms) - np.log(n_all)
        return mean

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
