"""What steers an update: solver names, hyperparameters, learning-rate schedules.

The arithmetic of the update rules is in the compiled core (csrc/optimizers.def) and, to read, in
``reference``. This file refuses to hold a list of them: names come from the core's table. Used by
``training`` and ``estimators``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastmlp import _core

# The variants of sgd, sgd_<variant> in the core, are chosen by the solver's other parameters; 'gradient' trains
# nothing, it stores the gradient for others. Every other rule is a solver.
_SGD = "sgd"
_GRADIENT = "gradient"

STOCHASTIC_SOLVERS: tuple[str, ...] = tuple(
    rule for rule in _core.OPTIMIZERS if rule != _GRADIENT and not rule.startswith(_SGD + "_")
)
SOLVERS: tuple[str, ...] = ("lbfgs", *STOCHASTIC_SOLVERS)


def update_rule(solver: str, momentum: float, nesterov: bool) -> str:
    """The core's update rule for a stochastic solver: its own name, but for sgd with momentum."""
    if solver != _SGD or momentum == 0:
        return solver
    return "sgd_nesterov" if nesterov else "sgd_momentum"


@dataclass(frozen=True)
class Hyperparameters:
    """Constants of the update rules and of the penalty; each rule reads its own.

    Parameters
    ----------
    momentum, beta_1, beta_2, rho : float
        Decay rates: of the velocity, of adam's two moments, of rmsprop's squared gradient.
    epsilon : float
        Keeps denominators from zero.
    alpha, l1_ratio : float
        Penalty alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2).
    """

    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    rho: float = 0.9
    alpha: float = 0.0
    l1_ratio: float = 0.0


@dataclass
class Schedule:
    """A learning rate over time. A subclass that names itself is in ``SCHEDULES``, and so in the estimators.

    Parameters
    ----------
    initial : float
        The rate to start from, ``learning_rate_init``.
    power_t : float
        Exponent of inverse scaling.
    rate : float
        The rate now. It outlives the object: ``partial_fit`` hands it to the next one.
    """

    initial: float
    power_t: float
    rate: float

    name: ClassVar[str]
    #: scikit-learn's own schedules act on plain gradient descent only; other solvers keep the initial rate.
    sgd_only: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        SCHEDULES[cls.name] = cls

    def rates(self, step: int, n_steps: int) -> np.ndarray:
        """Learning rates (n_steps,) of the coming epoch, whose first step is number ``step`` of the run, from 0."""
        return np.full(n_steps, self.rate, dtype=np.float64)

    def epoch_ends(self, samples_seen: int) -> None:
        """Look at the clock: ``samples_seen`` rows since the first fit."""

    def on_plateau(self) -> tuple[bool, str]:
        """Training no longer improves: whether to stop, and the words to say it."""
        return True, "Stopping."


SCHEDULES: dict[str, type[Schedule]] = {}


class Constant(Schedule):
    """rate = initial, also where ``learning_rate_init`` was changed between two calls of ``partial_fit``."""

    name = "constant"

    def __post_init__(self) -> None:
        self.rate = self.initial


class InverseScaling(Schedule):
    """rate = initial / (samples_seen + 1)^power_t, set once per epoch; the first epoch takes ``initial``."""

    name = "invscaling"
    sgd_only = True

    def epoch_ends(self, samples_seen: int) -> None:
        """rate = initial / (samples_seen + 1)^power_t."""
        self.rate = self.initial / (samples_seen + 1) ** self.power_t


class Adaptive(Schedule):
    """A fifth of the rate whenever training stalls; the end once the rate is down to 1e-6."""

    name = "adaptive"
    sgd_only = True
    smallest: ClassVar[float] = 1e-6

    def on_plateau(self) -> tuple[bool, str]:
        """rate = rate / 5, or stop."""
        if self.rate <= self.smallest:
            return True, "Learning rate too small. Stopping."
        self.rate /= 5.0
        return False, f"Setting learning rate to {self.rate:f}"


def make_schedule(name: str, solver: str, initial: float, power_t: float, rate: float | None = None) -> Schedule:
    """The schedule ``name`` as it applies to ``solver``, at ``rate`` (None: at its beginning)."""
    cls = SCHEDULES[name]
    if cls.sgd_only and solver != _SGD:
        cls = Constant
    return cls(float(initial), float(power_t), float(initial) if rate is None else rate)
