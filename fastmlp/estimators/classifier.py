"""MLPClassifier: labels, class weights, scores and predictions of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, issparse, vstack
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import type_of_target, unique_labels

from fastmlp.core import apply_output
from fastmlp.estimators._sklearn import (
    ClassifierMixin,
    ClassWeight,
    Dtype,
    Initial,
    Interval,
    LayerSizes,
    LearningRate,
    Metric,
    Names,
    RandomState,
    Rates,
    _check_partial_fit_first_call,
    _fit_context,
    available_if,
    warn,
)
from fastmlp.estimators.base import BaseMLP, has_partial_fit, mean_output
from fastmlp.estimators.parameters import one_of
from fastmlp.estimators.transfer import atomic, classifier_of
from fastmlp.estimators.validation.labels import apply_class_weight, check_form, check_known, check_labels, classes_of
from fastmlp.estimators.validation.messages import check_has_rows
from fastmlp.estimators.validation.rows import check_target
from fastmlp.estimators.validation.scoring import leave_out_of_score, mean_metric
from fastmlp.estimators.validation.weights import leave_out, weight_of_rows
from fastmlp.network.network import LazyRows, Network
from fastmlp.training.rows import RowSource

# ``predict`` holds this many outputs at a time, some 16 MB in float32, but no fewer than those of _FEWEST_ROWS rows:
# the core packs the weights for each piece.
_PIECE = 2**22
_FEWEST_ROWS = 1024


class ClassifierScore(ClassifierMixin):
    """The score of a classifier."""

    def score(self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy: the share of rows that are right.

        In multi-label, all labels of a row must be right; with weights of labels, it is the mean of their accuracies.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True labels, as in ``fit``.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Weights of the rows; None: all the same. If weights of labels differ within a row, the score is the mean
            over labels of each one's accuracy with its weights.

        Returns
        -------
        float
        """
        y, weight = leave_out_of_score(self, X, y, sample_weight)
        if np.ndim(weight) == 2:
            return mean_metric(accuracy_score, y, self.predict(X), weight)
        return float(super().score(X, y, weight))


class ClassifierPredictions(ClassifierScore):
    """Predictions and score of one network, or of several whose probabilities are averaged."""

    classes_: np.ndarray
    n_outputs_: int
    _target_type: str
    _sparse_target: bool
    _networks: Callable[[], list[Network]]
    _rows_and_threads: Callable[[Network, Any], tuple[Any, int]]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row; an ensemble averages its members' probabilities.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or, in multi-label, (n_samples, n_outputs)
        """
        networks = self._networks()
        rows, n_threads = self._rows_and_threads(networks[0], X)
        n_rows, n_outputs = rows.shape[0], networks[0].layer_sizes[-1]
        step = max(_FEWEST_ROWS, _PIECE // n_outputs)
        if n_rows <= step and not isinstance(rows, LazyRows):
            return self._labels(mean_output(networks, rows, n_threads))
        if isinstance(rows, LazyRows):
            pieces = (self._labels(mean_output(networks, part, n_threads)) for _, part in rows.parts())
        else:
            output = np.empty((step, n_outputs), dtype=networks[0].dtype)
            pieces = (
                self._labels(mean_output(networks, rows[first : first + step], n_threads, output[: n_rows - first]))
                for first in range(0, n_rows, step)
            )
        if self._sparse_target:
            stacked: np.ndarray = vstack(list(pieces), format="csr")
            return stacked
        labels, first = np.empty(0), 0
        for piece in pieces:
            if first == 0:
                labels = np.empty((n_rows, *piece.shape[1:]), dtype=piece.dtype)
            labels[first : first + len(piece)] = piece
            first += len(piece)
        return labels

    def _labels(self, output: np.ndarray) -> np.ndarray:
        """The most probable classes, from the network's output (n_samples, n_outputs)."""
        labels: np.ndarray
        if self._target_type.startswith("multilabel"):
            indicator = output > 0.5
            labels = (csr_matrix(indicator) if self._sparse_target else indicator).astype(int)
        elif len(self.classes_) == 1:
            labels = np.repeat(self.classes_, len(output))
        elif self.n_outputs_ == 1:
            labels = self.classes_[(output[:, 0] > 0.5).astype(np.intp)]
        else:
            labels = self.classes_[output.argmax(axis=1)]
        return labels

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class; for an ensemble, the mean of its members'.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Columns in the order of ``classes_``; rows add up to 1 (to rounding), except in multi-label. Of two classes,
            each probability is computed from the logit: a small one keeps its digits.
        """
        networks = self._networks()
        return self._probabilities(networks, *self._rows_and_threads(networks[0], X))

    def _probabilities(self, networks: Sequence[Network], rows: Any, n_threads: int = 1) -> np.ndarray:
        """A column for each class, also for two classes, which have one output."""
        if len(self.classes_) == 1:
            return np.ones((rows.shape[0], 1), dtype=networks[0].dtype)
        if self.n_outputs_ > 1:
            return mean_output(networks, rows, n_threads)
        total = _no_and_yes(networks[0], rows, n_threads, "logistic")
        for network in networks[1:]:
            total += _no_and_yes(network, rows, n_threads, "logistic")
        if len(networks) > 1:
            total /= len(networks)
        return total

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of ``predict_proba``, from the logits: finite also where a probability rounds to 0.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
        """
        networks = self._networks()
        rows, n_threads = self._rows_and_threads(networks[0], X)
        if len(self.classes_) == 1:
            return np.zeros((rows.shape[0], 1), dtype=networks[0].dtype)
        total = self._log_probabilities(networks[0], rows, n_threads)
        for network in networks[1:]:
            np.logaddexp(total, self._log_probabilities(network, rows, n_threads), out=total)
        if len(networks) > 1:
            total -= np.log(total.dtype.type(len(networks)))
        return total

    def _log_probabilities(self, network: Network, rows: Any, n_threads: int) -> np.ndarray:
        """Logarithms of one network's probabilities."""
        log_activation = f"log_{network.out_activation}"
        if self.n_outputs_ > 1:
            return network.forward(rows, n_threads=n_threads, out_activation=log_activation)
        return _no_and_yes(network, rows, n_threads, log_activation)


def share_classes(estimator: Any, source: Any) -> None:
    """Give an estimator what ``source``, a classifier, has learnt about its target."""
    for name in ("classes_", "n_outputs_", "_target_type", "_sparse_target"):
        setattr(estimator, name, getattr(source, name))


def _no_and_yes(network: Network, rows: Any, n_threads: int, activation: str) -> np.ndarray:
    """``activation`` (n_samples, 2) of the logit of a single output, with the sign of 'no' and of 'yes'."""
    logit = network.forward(rows, n_threads=n_threads, out_activation="identity")
    both = np.empty((len(logit), 2), dtype=logit.dtype)
    np.negative(logit[:, 0], out=both[:, 0])
    both[:, 1] = logit[:, 0]
    return apply_output(network.plan_with(activation), both)


class MLPClassifier(ClassifierPredictions, BaseMLP):
    """Multilayer perceptron that minimises the log-loss.

    A drop-in replacement of :class:`sklearn.neural_network.MLPClassifier`: same parameters, numbers and warnings,
    in a fraction of the time.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of each hidden layer.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'softplus', \
'mish'}, \
or a list of them, default='relu'
        Activation of the hidden layers; with a list, of each. Formulas: ``docs/methods.md``.
    solver : {'lbfgs', 'sgd', 'adam', 'momentum', 'adagrad', 'rmsprop', 'adam_hat', 'adamw', 'nadam', 'amsgrad'}, \
default='adam'
        'lbfgs' uses all rows in every step (scipy.optimize), the others one batch. Formulas: ``docs/methods.md``;
        'adam' is scikit-learn's form, 'adam_hat' algorithm 1 of Kingma and Ba (2014).
    alpha : float, default=0.0001
        Strength of the penalty ``alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2)``, which is divided by the
        batch's sum of weights (see ``loss_reduction``). Biases go unpenalised.
    batch_size : int or 'auto', default='auto'
        Rows per step; 'auto' is min(200, n_samples).
    learning_rate : {'constant', 'invscaling', 'adaptive', 'step', 'exponential', 'cosine', 'one_cycle', \
'warmup_cosine', \
'flat_cosine', 'coslog4'} or callable, default='constant'
        The first three are scikit-learn's and act on 'sgd' only: unchanged; ``learning_rate_init / (t_ + 1)^power_t``,
        set after each epoch; a fifth whenever training stalls. The others plan the rate of each step over ``max_iter``
        epochs, for every solver but 'lbfgs': a name, a :class:`StepDecay`, :class:`ExponentialDecay`,
        :class:`CosineDecay`, :class:`OneCycle`, :class:`WarmupCosine`, :class:`FlatCosine` or :class:`LogCosine`, or
        any function (step, n_steps) -> factor on learning_rate_init. A run that reaches the end of its plan gives no
        ConvergenceWarning.
    learning_rate_init : float, default=0.001
        Learning rate to start from.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
    max_iter : int, default=200
        Most epochs, or most iterations of 'lbfgs'.
    shuffle : bool, default=True
        Draw a new order of the rows in each epoch.
    random_state : int, RandomState instance or None, default=None
        Draws initial parameters, validation split and orders, in scikit-learn's order.
    tol : float, default=1e-4
        Improvement of loss or validation score below this counts as none.
    verbose : bool or int, default=False
        1: a line per epoch, with loss, score, time and the most time left; 2 and more: a bar, on a
        terminal. See ``docs/callbacks.md``.
    warm_start : bool, default=False
        Begin a further ``fit`` from the fitted parameters. Changes by ``set_params`` take effect then, except for the
        network itself: ``hidden_layer_sizes``, ``batch_norm`` and ``residual`` must stay the same, and ``weight_init``,
        ``bias_init``, ``pretrained`` and ``pretrained_rate`` have no effect. ``dtype='auto'`` then means the network's.
        The same holds for ``partial_fit``, whose solver keeps its memory as long as ``solver``, ``dtype`` and, for
        'sgd', the form of momentum (none, plain, Nesterov's) stay the same.
    momentum : float, default=0.9
        For 'sgd' and 'momentum', in [0, 1].
    nesterovs_momentum : bool, default=True
        For 'sgd'.
    early_stopping : bool, default=False
        Validate on rows that are split off, stratified by class, stop when their score stalls, and keep the parameters
        with the best score.
    validation_fraction : float, default=0.1
        Share of the rows for validation, in [0, 1).
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of the first and second moment in 'adam' and its variants, in [0, 1).
    epsilon : float, default=1e-8
        Keeps denominators from 0 in 'adam' and its variants, 'adagrad' and 'rmsprop'.
    n_iter_no_change : int, default=10
        Epochs without improvement that are tolerated.
    max_fun : int, default=15000
        Most evaluations of the loss by 'lbfgs'.
    dtype : {'auto', 'float32', 'float64'} or a type such as np.float32, default='auto'
        Element type of parameters and arithmetic; 'auto' is that of X. X is not converted as a whole.
    n_jobs : int or None, default=None
        None and -1: as many threads as pay, within what OpenMP, threadpoolctl, CPU affinity and cgroup allow. An
        integer: at most that many. The result does not depend on it.
    class_weight : 'balanced', dict, list of dict or None, default=None
        Factors {label: weight} on ``sample_weight``, also where validation rows are split off; 'balanced' takes
        n_samples / (n_classes * count of the class). A list has one dict per output, in multi-label.
    l1_ratio : float, default=0.0
        Share of the absolute values in the penalty, in [0, 1].
    dropout : float or sequence of float, default=0.0
        Share, in [0, 1), of a layer's input that becomes 0 in training, the rest being divided by 1 - share (Srivastava
        et al., JMLR 2014). A number is for the hidden units; a sequence has one rate for the input and one for each
        hidden layer.
    batch_norm : bool, default=False
        Normalise each hidden layer over the batch before its activation (Ioffe and Szegedy, ICML 2015); predictions use
        running averages (a tenth of each new batch, less of a shorter one). ``network_.intercepts`` are then the
        shifts, ``network_.scales`` the scales; there are no ``intercepts_``.
    residual : bool, default=False
        Hidden layers as wide as their input add it to their output (He et al., CVPR 2016). ``fit`` warns if there is
        none.
    label_smoothing : float, default=0.0
        Share of each target, in [0, 1), that goes to all classes alike (Szegedy et al., CVPR 2016).
    weight_init, bias_init : str, (str, float) or callable, default='auto'
        'auto' is scikit-learn's rule; 'glorot_uniform', 'glorot_normal', 'he_uniform', 'he_normal', 'lecun_normal',
        'orthogonal' (weights only), ('normal', std), ('uniform', bound), ('constant', value), or a function
        (fan_in, fan_out, rng) that returns an array: see :class:`Network`.
    rho : float, default=0.9
        Decay of the squared gradient in 'rmsprop', in [0, 1).
    weight_decay : float, default=0.0
        Of 'adamw': weights shrink by the learning rate times this, apart from the gradient (Loshchilov and Hutter, ICLR
        2019).
    max_grad_norm : float or None, default=None
        A gradient with a larger Euclidean norm is scaled down to it (Pascanu, Mikolov and Bengio, ICML 2013).
    validation_metric : str, callable or None, default=None
        The score of early stopping and of ``eval_set``: a scikit-learn scorer, by name or (estimator, X, y) -> float,
        more being better. It gets the rows' weights if it takes ``sample_weight``. 'loss': minus the loss on these
        rows, without penalty and label smoothing. None: accuracy; in regression R^2, or minus the loss for losses that
        scikit-learn lacks. ``fit`` warns if there is nothing to score.
    input_noise : float, default=0.0
        Standard deviation of the normal noise that is added to each number of X whenever a row is trained on.
    input_mask : float, default=0.0
        Share of the numbers of X that become 0, in [0, 1), whenever a row is trained on.
    mixup : float, default=0.0
        Each step draws s from Beta(mixup, mixup); rows become s row + (1 - s) (the next row of the batch), and so do
        their targets and weights (Zhang et al., ICLR 2018). 0: none; 0.2 is usual.
    pretrained : Network or None, default=None
        ``network_`` of another estimator with the same hidden layers: a new fit begins with a copy of these, and draws
        the output layer only.
    pretrained_rate : float, default=0.0
        Factor on the learning rate of these layers; 0 freezes them.
    loss_reduction : {'weighted_mean', 'mean'}, default='weighted_mean'
        What divides the sum of a batch's weighted losses: the sum of its weights, as in scikit-learn, so that only the
        ratio of weights within a batch matters; or the number of its rows, so that a row of weight 100 counts a hundred
        times as much as one of weight 1 in any other batch. It also divides the penalty, and the losses that are
        reported.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels; the columns' indices in multi-label. If y has one class only, ``fit`` warns, and that class is
        predicted, with probability 1.
    coefs_, intercepts_ : list of ndarray
        Weights (fan_in, fan_out) and biases (fan_out,) of each layer: views of ``network_.parameters``. Code that
        computes a network from them must know ``activation``. With batch normalisation or residual layers they are not
        the whole network, and ``intercepts_`` raises AttributeError: ``docs/saving.md`` says how to export it.
    network_ : Network
        Architecture and parameters, to predict without scikit-learn.
    loss_, best_loss_ : float
        Loss of the last epoch, and the least one (None with early stopping).
    loss_curve_ : list of float
        Loss of each epoch.
    validation_scores_, best_validation_score_ : list of float, float
        Score of each epoch on the validation rows, or on ``eval_set``; None without such.
    validation_loss_curve_ : list of float
        Loss on these rows, without penalty.
    layer_rates_ : tuple of float
        Factor on the learning rate of each layer: see ``freeze``.
    history_ : list of dict
        One per epoch: epoch, loss, learning_rate, rows, time (seconds), validation_score and validation_loss if there
        are.
    n_iter_, t_ : int
        Epochs run by the last call; rows seen in all.
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn.

    Notes
    -----
    Where scikit-learn 1.9 is wrong, results differ: early stopping stratifies multi-class too, with an integer
    seed each ``partial_fit`` draws a new order (its issue #12505), rows of weight 0 change nothing, a changed
    ``learning_rate_init`` takes effect in ``partial_fit``, and the next fit does not compare with a best loss for
    another ``alpha``.

    Examples
    --------
    >>> from fastmlp import MLPClassifier
    >>> from sklearn.datasets import make_classification
    >>> X, y = make_classification(n_samples=100, random_state=1)
    >>> MLPClassifier(random_state=1, max_iter=300).fit(X, y).predict(X[:2]).shape
    (2,)
    """

    loss = "log_loss"

    _parameter_constraints = {
        **BaseMLP._parameter_constraints,
        "class_weight": [one_of(["balanced"]), dict, list, None],
        "label_smoothing": [Interval(Real, 0, 1, closed="left")],
    }

    # scikit-learn reads the parameters from this signature.
    def __init__(
        self,
        hidden_layer_sizes: LayerSizes = (100,),
        activation: Names = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: RandomState = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dtype: Dtype = "auto",
        n_jobs: int | None = None,
        class_weight: ClassWeight = None,
        l1_ratio: float = 0.0,
        dropout: Rates = 0.0,
        batch_norm: bool = False,
        residual: bool = False,
        label_smoothing: float = 0.0,
        weight_init: Initial = "auto",
        bias_init: Initial = "auto",
        rho: float = 0.9,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        validation_metric: Metric = None,
        input_noise: float = 0.0,
        input_mask: float = 0.0,
        mixup: float = 0.0,
        pretrained: Network | None = None,
        pretrained_rate: float = 0.0,
        loss_reduction: str = "weighted_mean",
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.max_fun = max_fun
        self.dtype = dtype
        self.n_jobs = n_jobs
        self.class_weight = class_weight
        self.l1_ratio = l1_ratio
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.residual = residual
        self.label_smoothing = label_smoothing
        self.weight_init = weight_init
        self.bias_init = bias_init
        self.rho = rho
        self.weight_decay = weight_decay
        self.max_grad_norm = max_grad_norm
        self.validation_metric = validation_metric
        self.input_noise = input_noise
        self.input_mask = input_mask
        self.mixup = mixup
        self.pretrained = pretrained
        self.pretrained_rate = pretrained_rate
        self.loss_reduction = loss_reduction

    @classmethod
    def from_network(
        cls, network: Network, classes: ArrayLike, *, feature_names: Sequence[str] | None = None, **parameters: Any
    ) -> Self:
        """A fitted classifier with the layers and weights of a network.

        Parameters
        ----------
        network : Network
            It is copied. Of k classes, it has k outputs and ``out_activation='softmax'``; of two classes also one
            logistic output, the probability of the second. Several logistic outputs make a multi-label classifier.
        classes : array-like of shape (n_classes,)
            Labels in the order of the outputs: numbers, truth values or strings. Rising order is restored, for the
            outputs too. In multi-label ``range(n_outputs)``.
        feature_names : sequence of str, default=None
            ``feature_names_in_``.
        **parameters
            Of the constructor, except those that describe the network. ``warm_start`` is True unless it is given: a
            further ``fit`` begins with the network's weights, like ``partial_fit``.

        Returns
        -------
        MLPClassifier
            Its probabilities are the network's output. Two softmax outputs become one logistic output, of the
            difference of their weights: the same function to rounding. ``loss_`` is NaN, ``n_iter_`` and ``t_`` are 0,
            ``history_`` is empty.

        Raises
        ------
        ValueError
            For classes that do not belong to the outputs, weights that are not finite, an embedding, invalid
            parameters.
        TypeError
            For another object than a Network, and labels of several kinds.

        Examples
        --------
        >>> import numpy as np
        >>> from fastmlp import MLPClassifier, Network
        >>> classifier = MLPClassifier.from_network(Network((4, 8, 3), random_state=0), ["a", "b", "c"])
        >>> classifier.predict_proba(np.zeros((1, 4))).shape
        (1, 3)
        """
        estimator: Self = classifier_of(cls, network, classes, feature_names, parameters)
        return estimator

    def _learn_target(self, y: Any, incremental: bool) -> None:
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._learn_classes(y, incremental)
        else:
            check_labels(unique_labels(y), self.classes_, all_of_them=self.warm_start and not incremental)
        check_form(y, self._target_type)
        if y.ndim == 2:
            self.n_outputs_ = y.shape[1]
        else:
            self.n_outputs_ = 1 if len(self.classes_) <= 2 else len(self.classes_)

    def _learn_classes(self, y: Any, incremental: bool) -> None:
        """Learn the classes from ``y``, or from the ``classes`` of partial_fit."""
        classes, target_type = classes_of(y)
        if len(classes) < 2:
            source = "classes" if incremental else "y"
            warn(f"{source} contains only one class, {classes.tolist()[0]!r}: the model predicts it for every row.")
        self.classes_ = classes
        self._target_type = target_type
        self._sparse_target = bool(issparse(y))

    def _check_target(self, y: Any) -> None:
        check_form(y, self._target_type, self.n_outputs_)
        check_known(y, self.classes_)

    def _apply_class_weight(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        if self.class_weight is None:
            return weight
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit, which does not see all rows. Give the "
                "weights as a dict: sklearn.utils.compute_class_weight finds them."
            )
        return apply_class_weight(self.class_weight, self.classes_, y, weight)

    def _encode(self, y: Any) -> np.ndarray:
        target: np.ndarray
        if y.ndim == 2:
            target = y.toarray() if issparse(y) else y
        elif self.n_outputs_ == 1:
            target = y != self.classes_[0]  # also of a single class
        else:
            target = np.searchsorted(self.classes_, y)
        return target

    def _output_and_loss(self) -> tuple[str, str]:
        if self._target_type == "multiclass":
            return "softmax", "log_loss"
        return "logistic", "binary_log_loss"

    def _strata(self, target: np.ndarray) -> np.ndarray | None:
        if self._target_type.startswith("multilabel"):
            return None
        return self.classes_[target.astype(np.intp).ravel()]

    def _validation_score(self, output: np.ndarray, target: np.ndarray, sample_weight: np.ndarray | None) -> float:
        if target.ndim == 1:
            correct = output.argmax(axis=1) == target
        else:
            correct = (output > 0.5) == (target > 0.5)
            if sample_weight is not None and sample_weight.ndim == 2:
                of_rows = weight_of_rows(sample_weight)
                if of_rows is not None:
                    return float(np.average(correct.all(axis=1), weights=of_rows))
                total = sample_weight.sum(axis=0)
                return float(np.mean((sample_weight * correct).sum(axis=0)[total > 0] / total[total > 0]))
            correct = correct.all(axis=1)
        return float(np.average(correct, weights=sample_weight))

    @available_if(has_partial_fit)
    @atomic
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: ArrayLike | None = None, classes: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch on these rows, from where the last call ended.

        Over chunks of whole batches, without ``shuffle``, it gives what one epoch of ``fit`` gives: ``docs/data.md``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            As in ``fit``, like ``sample_weight``.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            As in ``fit``. By default the weights' sum in each batch divides them out: the weight of a single row has no
            effect. ``loss_reduction='mean'`` keeps it.
        classes : array-like of shape (n_classes,), default=None
            All classes there will be; required in the first call. A batch need not contain all of them.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As ``fit``; and for labels that are not among the classes.
        AttributeError
            If the solver is 'lbfgs'.
        """
        seen = X._labels(self) if isinstance(X, RowSource) else leave_out(y, sample_weight)
        check_target(self, seen)
        if classes is None and isinstance(X, RowSource):
            classes = X._classes
        if classes is not None:
            check_has_rows("classes", classes)
        if _check_partial_fit_first_call(self, classes):
            self._learn_classes(seen if type_of_target(seen).startswith("multilabel") else classes, incremental=True)
        self._fit_one_epoch(X, y, sample_weight)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
