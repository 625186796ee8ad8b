"""The parameters that the classifier and the regressor share: their constraints, and the training options that follow
from them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics import get_scorer_names

import fastmlp.core as core
from fastmlp.estimators._sklearn import (
    BaseEstimator,
    Dtype,
    Hidden,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_parameter_constraints,
    warn_of_parameter,
)
from fastmlp.network.names import hint, near_name
from fastmlp.network.network import Network
from fastmlp.training.run import Method
from fastmlp.training.schedules import CURVES, SCHEDULES
from fastmlp.training.solvers import SOLVERS

_SHARE = Interval(Real, 0, 1, closed="left")
_POSITIVE = Interval(Real, 0, None, closed="neither")
_NOT_NEGATIVE = Interval(Real, 0, None, closed="left")
_COUNT = Interval(Integral, 1, None, closed="left")
# Forms of dtype that are not names. Messages list the names only.
_FLOAT_TYPES = (np.float32, np.float64, float)
_DTYPE_OBJECTS = (Options(type, set(_FLOAT_TYPES)), Options(np.dtype, set(map(np.dtype, _FLOAT_TYPES))))
# L-BFGS takes all rows at once and needs exact losses: with it, these must have their defaults.
_STOCHASTIC_ONLY: dict[str, Any] = {
    "dropout": 0, "batch_norm": False, "input_noise": 0, "input_mask": 0, "mixup": 0, "max_grad_norm": None,
    "weight_decay": 0,
}  # fmt: skip
# Parameters that a run's rate, loss, score and random numbers depend on. After one of them changes, these are no longer
# comparable with those of the previous run.
_RATE_DEPENDS_ON = ("learning_rate", "learning_rate_init", "power_t")
_LOSS_DEPENDS_ON = (
    "loss", "quantile", "huber_delta", "alpha", "l1_ratio", "class_weight", "label_smoothing", "dropout", "input_noise",
    "input_mask",
    "mixup", "loss_reduction", "hidden_layer_sizes", "layer_rates_",
)  # fmt: skip
_DRAWS_DEPEND_ON = ("random_state",)
_SCORE_DEPENDS_ON = ("validation_metric", "validation_fraction", "early_stopping")
# Parameters beyond scikit-learn's that do nothing without another one: the value that is off, whether this estimator
# uses them, and what they need.
_NEEDS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "quantile": (0.5, lambda estimator: estimator.loss == "quantile", "loss='quantile'"),
    "huber_delta": (1.0, lambda estimator: estimator.loss == "huber", "loss='huber'"),
    "rho": (0.9, lambda estimator: estimator.solver == "rmsprop", "solver='rmsprop'"),
    "l1_ratio": (0.0, lambda estimator: estimator.alpha > 0, "alpha > 0"),
    "pretrained_rate": (0.0, lambda estimator: estimator.pretrained is not None, "pretrained"),
}
#: The validation_metric that is minus the loss.
LOSS = "loss"
# The only solver with weight_decay; all other solvers have alpha only.
_DECAYING_SOLVER = "adamw"


def one_of(names: Iterable[str]) -> StrOptions:
    """A constraint that lists names in their order; a set's order changes from process to process."""
    return StrOptions(dict.fromkeys(names).keys())


def plain(value: Any) -> Any:
    """A parameter's value as ``load`` would return it: NumPy's numbers as Python's, sequences as tuples, element types
    by name."""
    if isinstance(value, np.dtype) or (isinstance(value, type) and value in _FLOAT_TYPES):
        return np.dtype(value).name
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(map(plain, value))
    return {plain(key): plain(part) for key, part in value.items()} if isinstance(value, dict) else value


def layer_sizes_of(hidden_layer_sizes: Any) -> tuple[int, ...]:
    """Units of each hidden layer, from one number or a sequence."""
    if isinstance(hidden_layer_sizes, (Set, Mapping)):
        raise ValueError(f"hidden_layer_sizes must be in an order, as in a tuple; got {hidden_layer_sizes!r}.")
    sizes = list(hidden_layer_sizes) if hasattr(hidden_layer_sizes, "__iter__") else [hidden_layer_sizes]
    if any(isinstance(size, bool) or not isinstance(size, Integral) for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be integers, got {sizes}.")
    if any(size <= 0 for size in sizes):
        raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
    return tuple(int(size) for size in sizes)


def validate(estimator_class: type[BaseEstimator], given: dict[str, Any]) -> None:
    """scikit-learn's check of parameters. An error ends with the choice that is meant, or the parameter that takes the
    value."""
    constraints: dict[str, list[Any]] = estimator_class._parameter_constraints
    try:
        validate_parameter_constraints(constraints, given, estimator_class.__name__)
    except InvalidParameterError as error:
        name = str(error).split("'")[1]  # "The 'alpha' parameter of MLPClassifier must be ..."
        error.args = (f"{error}{_advice(name, given[name], constraints[name])}",)
        raise


def _advice(name: str, value: Any, constraints: list[Any]) -> str:
    """What to do about a value that belongs to another parameter, or a choice under another name; '' if there is no
    advice."""
    if name == "learning_rate" and _is_number(value):
        return f" A number is the learning_rate_init={float(value)}."
    if name == "learning_rate_init" and isinstance(value, str) and value in (*SCHEDULES, *CURVES):
        return f" A schedule is the learning_rate={value!r}."
    if name == "random_state" and isinstance(value, np.random.Generator):
        return " A Generator can draw one: int(generator.integers(2**32))."
    if name == "dtype":
        return _advice_on_type(value)
    if name == "categorical_features":
        return " Take a list, [0] or ['column'], for example."
    if name == "class_weight" and hasattr(value, "__len__") and not isinstance(value, str):
        return " A dict has a weight for each label: {0: 1.0, 1: 2.0}, for example."
    if name == "pretrained" and hasattr(value, "partial_fit"):
        return " Take the fitted estimator's network_."
    if name == "loss" and near_name(value, ["neg_log_loss"]):
        return " It is the loss of MLPClassifier."
    return hint(value, [choice for part in constraints if isinstance(part, StrOptions) for choice in part.options])


def _advice_on_type(value: Any) -> str:
    """Which element type to take instead of this one."""
    try:
        wide = None if value is None else np.dtype(value).name
    except TypeError:
        wide = None if "16" in str(value) else near_name(value, ["float32", "float64"])
    if wide in ("float32", "float64"):
        return f" Did you mean {wide!r}?"
    return (
        " Networks compute in these types only, float32 with half the memory. X and y may have any: a batch at a time "
        "is converted."
    )


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, (Real, str)) and float(value) > 0
    except ValueError:
        return False


@lru_cache(maxsize=32)
def _default_parameters(estimator_class: type[Parameters]) -> dict[str, Any]:
    """The parameters of a class with their defaults; ``inspect.Parameter.empty`` for those without a valid one."""
    signature = inspect.signature(estimator_class.__init__).parameters
    defaults = {name: signature[name].default for name in estimator_class._get_param_names()}
    for name, default in defaults.items():
        try:
            validate_parameter_constraints(estimator_class._parameter_constraints, {name: default}, "")
        except InvalidParameterError:  # a subclass may require a parameter in this way
            defaults[name] = inspect.Parameter.empty
    return defaults


class Parameters(BaseEstimator):
    """The parameters that the classifier and the regressor share."""

    hidden_layer_sizes: Any
    activation: Any
    solver: str
    alpha: float
    batch_size: int | str
    learning_rate: Any
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: bool | int
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: float
    max_fun: int
    dtype: Dtype
    n_jobs: int | None
    l1_ratio: float
    dropout: Any
    batch_norm: bool
    residual: bool
    weight_init: Any
    bias_init: Any
    rho: float
    weight_decay: float
    max_grad_norm: float | None
    validation_metric: Any
    input_noise: float
    input_mask: float
    mixup: float
    pretrained: Network | None
    pretrained_rate: float
    loss_reduction: str

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden_layer_sizes": ["array-like", _COUNT],
        "activation": [one_of(core.ACTIVATIONS), "array-like"],
        "solver": [one_of(SOLVERS)],
        "alpha": [_NOT_NEGATIVE],
        "batch_size": [one_of(["auto"]), _COUNT],
        "learning_rate": [one_of([*SCHEDULES, *CURVES]), callable],
        "learning_rate_init": [_POSITIVE],
        "power_t": [_NOT_NEGATIVE],
        "max_iter": [_COUNT],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [_NOT_NEGATIVE],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [_SHARE],
        "beta_1": [_SHARE],
        "beta_2": [_SHARE],
        "epsilon": [_POSITIVE],
        "n_iter_no_change": [_COUNT, Options(Real, {np.inf})],
        "max_fun": [_COUNT],
        "dtype": [one_of(["auto", "float32", "float64"]), *map(Hidden, _DTYPE_OBJECTS)],
        "n_jobs": [None, Options(Integral, {-1}), _COUNT],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "dropout": [_SHARE, "array-like"],
        "batch_norm": ["boolean"],
        "residual": ["boolean"],
        "weight_init": [str, tuple, callable],
        "bias_init": [str, tuple, callable],
        "rho": [_SHARE],
        "weight_decay": [_NOT_NEGATIVE],
        "max_grad_norm": [None, _POSITIVE],
        "validation_metric": [None, one_of([LOSS, *get_scorer_names()]), callable],
        "input_noise": [_NOT_NEGATIVE],
        "input_mask": [_SHARE],
        "mixup": [_NOT_NEGATIVE],
        "pretrained": [None, Network],
        "pretrained_rate": [_NOT_NEGATIVE],
        "loss_reduction": [one_of(["weighted_mean", "mean"])],
    }

    def _validate_params(self) -> None:
        """scikit-learn's check, of those parameters only that are not the default objects: few of the 40 usually."""
        own: type = type(self)
        given = {
            name: value
            for name, default in _default_parameters(own).items()
            if (value := getattr(self, name)) is not default
        }
        validate(own, given)

    def _dtype_name(self) -> str:
        """'auto' or the name of the element type."""
        return str(plain(self.dtype))

    def _hidden_layer_sizes(self) -> tuple[int, ...]:
        return layer_sizes_of(self.hidden_layer_sizes)

    def _dropout_rates(self, n_layers: int) -> tuple[float, ...]:
        """One rate for the input of each layer. A single number is for the hidden units; the input has none."""
        if isinstance(self.dropout, Real):
            return (0.0, *(float(self.dropout),) * (n_layers - 1))
        rates = tuple(self.dropout)
        if len(rates) != n_layers or not all(isinstance(rate, Real) and 0 <= float(rate) < 1 for rate in rates):
            raise ValueError(
                f"dropout must be one rate in [0, 1), or {n_layers} of them: of the input and of each hidden layer; "
                f"got {self.dropout!r}."
            )
        return tuple(float(rate) for rate in rates)

    def _hyperparameters(self) -> dict[str, float]:
        return {name: float(getattr(self, name)) for name in ("alpha", "l1_ratio", *core.HYPERPARAMETERS)}

    def _terms(self, has_eval_set: bool = False) -> dict[str, dict[str, Any]]:
        """The values that a run's rate, loss, score and random numbers depend on, in a form that is only compared.

        has_eval_set: the score is that of an ``eval_set``, not of rows that were split off.
        """
        groups = {
            "rate": _RATE_DEPENDS_ON,
            "loss": _LOSS_DEPENDS_ON,
            "score": _SCORE_DEPENDS_ON,
            "draws": _DRAWS_DEPEND_ON,
        }
        values = {group: {name: getattr(self, name, None) for name in names} for group, names in groups.items()}
        values["score"]["eval_set"] = has_eval_set
        if isinstance(self.random_state, np.random.RandomState):  # the repr of a copy has another address
            values["draws"]["random_state"] = "RandomState"
        return {
            group: {name: v if callable(v) else repr(plain(v)) for name, v in terms.items()}
            for group, terms in values.items()
        }

    def _loss_parameter(self) -> float:
        """The parameter of the loss, for those that have one."""
        return 1.0

    def _method(self, layer_rates: Sequence[float], rng: np.random.RandomState, seed: int | None = None) -> Method:
        """The options of each step; draws a seed only if they need one and none is given."""
        rates = self._dropout_rates(len(layer_rates))
        random = any(rates) or self.input_noise or self.input_mask or self.mixup
        if random and seed is None:
            low, high = rng.randint(0, 2**32, size=2, dtype=np.uint64).tolist()
            seed = low | high << 32
        return Method(
            dropout=rates,
            layer_rates=tuple(layer_rates),
            max_grad_norm=0.0 if self.max_grad_norm is None else float(self.max_grad_norm),
            loss_parameter=self._loss_parameter(),
            label_smoothing=float(getattr(self, "label_smoothing", 0.0)),
            input_noise=float(self.input_noise),
            input_mask=float(self.input_mask),
            mixup=float(self.mixup),
            loss_reduction=self.loss_reduction,
            seed=seed if random and seed is not None else 0,
        )

    def _warn_of_unused(self, has_eval_set: bool = False) -> None:
        """Warn of parameters that were given and that this fit does not use."""
        for name, (off, is_used, needs) in _NEEDS.items():
            value = getattr(self, name, off)
            if value != off and not is_used(self):
                warn_of_parameter(f"{name}={value!r} has no effect without {needs}.")
        if self.validation_metric is not None and not self.early_stopping and not has_eval_set:
            warn_of_parameter(
                f"validation_metric={self.validation_metric!r} has no effect without early_stopping=True or an "
                f"eval_set."
            )

    def _check_combination(self, eval_set: Any) -> None:
        """Check parameters that may each be valid, but not together."""
        if self.weight_decay and self.solver != _DECAYING_SOLVER:
            raise ValueError(
                f"weight_decay belongs to solver={_DECAYING_SOLVER!r}, got weight_decay={self.weight_decay} and "
                f"solver={self.solver!r}, whose penalty is alpha."
            )
        if self.solver != "lbfgs":
            return
        asked = [name for name, off in _STOCHASTIC_ONLY.items() if np.any(np.not_equal(getattr(self, name), off))]
        asked += ["eval_set"] if eval_set is not None else []
        asked += [] if self.learning_rate in SCHEDULES else ["a planned learning_rate"]
        if asked:
            raise ValueError(f"solver='lbfgs' takes all rows at once, without {', '.join(asked)}; use another solver.")
