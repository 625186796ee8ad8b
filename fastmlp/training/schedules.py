"""Learning-rate schedules: scikit-learn's, which follow the run, and curves, which are planned ahead for each step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from numbers import Real
from typing import ClassVar

import numpy as np

from fastmlp.network.callables import check_takes
from fastmlp.network.names import hint
from fastmlp.training.solvers import SGD

# --- schedules that follow the run -------------------------------------------------------------------------------


@dataclass
class Schedule:
    """A learning rate over time. A subclass with a ``name`` is added to ``SCHEDULES``, and so to the estimators.

    Parameters
    ----------
    initial : float
        The first rate, ``learning_rate_init``.
    power_t : float
        Exponent of inverse scaling.
    rate : float
        The present rate. ``partial_fit`` passes it to the schedule of the next call.
    """

    initial: float
    power_t: float
    rate: float

    name: ClassVar[str]
    #: scikit-learn's own schedules act on 'sgd' only; other solvers keep the initial rate.
    sgd_only: ClassVar[bool] = False
    #: The whole run is planned: it should end with its last epoch.
    planned: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            SCHEDULES[cls.name] = cls

    def __post_init__(self) -> None:
        """Without it, the dataclass would not call that of a subclass."""

    def rates(self, step: int, n_steps: int) -> np.ndarray:
        """Learning rates (n_steps,) of the coming epoch, whose first step is number ``step`` of the run, from 0."""
        return np.full(n_steps, self.rate, dtype=np.float64)

    def epoch_ends(self, samples_seen: int) -> None:
        """Update the rate; ``samples_seen`` rows since the first fit."""

    def on_plateau(self) -> tuple[bool, str]:
        """Training no longer improves: whether to stop, and a message."""
        return True, "Stopping."


SCHEDULES: dict[str, type[Schedule]] = {}


@dataclass
class Constant(Schedule):
    """rate = initial, also after ``learning_rate_init`` was changed between two calls of ``partial_fit``."""

    name = "constant"

    def __post_init__(self) -> None:
        self.rate = self.initial


class InverseScaling(Schedule):
    """rate = initial / (samples_seen + 1)^power_t, set once per epoch; the first epoch takes ``initial``."""

    name = "invscaling"
    sgd_only = True

    def epoch_ends(self, samples_seen: int) -> None:
        """rate = initial / (samples_seen + 1)^power_t."""
        try:
            self.rate = self.initial / (samples_seen + 1) ** self.power_t
        except OverflowError:  # the power lies beyond float64
            self.rate = 0.0


class Adaptive(Schedule):
    """Divides the rate by 5 whenever training stalls, and stops once it is 1e-6 or less."""

    name = "adaptive"
    sgd_only = True
    smallest: ClassVar[float] = 1e-6

    def on_plateau(self) -> tuple[bool, str]:
        """rate = rate / 5, or stop."""
        if self.rate <= self.smallest:
            return True, "Learning rate too small. Stopping."
        self.rate /= 5.0
        return False, f"Setting learning rate to {self.rate:f}"


# --- curves, planned ahead for each step ---------------------------------------------------------------------------


class Curve:
    """A plan for the learning rate: a callable (step, n_steps) -> factor on ``learning_rate_init``.

    ``step`` counts the updates of a run from 0; ``n_steps`` is the number of updates in ``max_iter`` epochs. Training
    that stops earlier skips the rest of the plan, and training that continues beyond it (``partial_fit``) keeps the
    last factor. Curves are compared by value, can be pickled, and work with every stochastic solver. A subclass with a
    ``name`` is added to ``CURVES``; its name means an object with the default values.

    The factors have the same bits on every machine. NumPy's exp and power differ in the last bit between AVX2 and
    AVX-512, so this module has its own.
    """

    name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        if "name" in vars(cls):
            CURVES[cls.name] = cls

    def __call__(self, step: int, n_steps: int) -> float:
        """The factor at one step."""
        return float(self.factors(np.array([step]), n_steps)[0])

    def factors(self, steps: np.ndarray, n_steps: int) -> np.ndarray:
        """Factors at some steps of a run.

        Parameters
        ----------
        steps : array-like of int, shape (n,)
            Numbers of the steps, from 0.
        n_steps : int
            Steps of the whole run.

        Returns
        -------
        ndarray of shape (n,)
            Factors on ``learning_rate_init``.

        Raises
        ------
        ValueError
            If ``n_steps`` is less than 1.
        """
        if n_steps < 1:
            raise ValueError(f"n_steps must be at least 1, got {n_steps}.")
        last = min(n_steps - 1, sys.maxsize)  # max_iter may be any whole number
        return self._factors(np.minimum(steps, last).astype(np.float64), float(n_steps))

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """Factors (n,) at 0 <= steps < n_steps: the only method that a curve must define."""
        raise NotImplementedError

    def _require(self, argument: str, valid: Callable[[float], bool], allowed: str) -> None:
        value = getattr(self, argument)
        if isinstance(value, bool) or not isinstance(value, Real) or not valid(float(value)):
            raise ValueError(f"{argument} of {type(self).__name__} must be {allowed}, got {value!r}.")


CURVES: dict[str, type[Curve]] = {}


@dataclass(frozen=True)
class StepDecay(Curve):
    """factor^k, where k of the points ``at`` are past: He, Zhang, Ren and Sun, CVPR 2016.

    Parameters
    ----------
    factor : float, default=0.1
        In (0, 1].
    at : sequence of float, default=(0.5, 0.75)
        Points as fractions of the run, rising, each in (0, 1): from step ``fraction * n_steps`` on, the rate is
        multiplied by ``factor``.

    Raises
    ------
    ValueError
        For values outside these ranges.

    Examples
    --------
    >>> from fastmlp import StepDecay
    >>> curve = StepDecay(factor=0.5, at=(0.5,))
    >>> curve(49, 100), curve(50, 100)
    (1.0, 0.5)
    """

    factor: float = 0.1
    at: tuple[float, ...] = (0.5, 0.75)

    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        self._require("factor", lambda value: 0 < value <= 1, "in (0, 1]")
        try:
            object.__setattr__(self, "at", tuple(map(float, self.at)))
        except (TypeError, ValueError):
            shares: tuple[float, ...] = (math.nan,)
        else:
            shares = self.at
        if not all(low < high for low, high in zip((0.0, *shares), (*shares, 1.0), strict=True)):
            raise ValueError(f"at of StepDecay must be rising shares of the run, each in (0, 1), got {self.at!r}.")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """factor^(number of points <= step / n_steps)."""
        levels = np.cumprod([1.0, *[self.factor] * len(self.at)])
        return levels[np.searchsorted(self.at, steps / n_steps, side="right")]


@dataclass(frozen=True)
class ExponentialDecay(Curve):
    """final^(step / n_steps): from 1 towards ``final``, by the same ratio at each step.

    Parameters
    ----------
    final : float, default=0.01
        In (0, 1]; the factor of the step after the last one.

    Raises
    ------
    ValueError
        For a value outside this range.
    """

    final: float = 0.01

    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        self._require("final", lambda value: 0 < value <= 1, "in (0, 1]")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """A power, since a running product would accumulate rounding errors."""
        return _power(self.final, steps / n_steps)


@dataclass(frozen=True)
class CosineDecay(Curve):
    """final + (1 - final) (1 + cos(pi step / n_steps)) / 2: Loshchilov and Hutter, ICLR 2017, without restarts.

    Parameters
    ----------
    final : float, default=0.0
        In [0, 1]; the factor of the step after the last one.

    Raises
    ------
    ValueError
        For a value outside this range.
    """

    final: float = 0.0

    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        self._require("final", lambda value: 0 <= value <= 1, "in [0, 1]")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """Half a wave from 1 to ``final``."""
        return _between(1.0, self.final, steps / n_steps)


@dataclass(frozen=True)
class OneCycle(Curve):
    """From ``start`` up to 1, then down to ``final``, both by half a cosine wave (Smith and Topin 2019).

    ``learning_rate_init`` is the highest rate, so it may be several times the usual one. The paper's ramps are straight
    lines, and its momentum falls while the rate rises; here the momentum is constant.

    Parameters
    ----------
    warmup : float, default=0.3
        In [0, 1): the fraction of the run in which the rate rises.
    start : float, default=0.04
        In [0, 1]: the first factor.
    final : float, default=1e-5
        In [0, 1]; the factor of the step after the last one.

    Raises
    ------
    ValueError
        For values outside these ranges.
    """

    warmup: float = 0.3
    start: float = 0.04
    final: float = 1e-5

    name: ClassVar[str] = "one_cycle"

    def __post_init__(self) -> None:
        self._require("warmup", lambda value: 0 <= value < 1, "in [0, 1)")
        self._require("start", lambda value: 0 <= value <= 1, "in [0, 1]")
        self._require("final", lambda value: 0 <= value <= 1, "in [0, 1]")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """With w = warmup n_steps: start .. 1 over step / w, then 1 .. final over (step - w) / (n_steps - w)."""
        w = self.warmup * n_steps
        up = _between(self.start, 1.0, np.minimum(steps / max(w, 1.0), 1.0))
        return np.where(steps < w, up, _between(1.0, self.final, np.maximum(steps - w, 0.0) / (n_steps - w)))


@dataclass(frozen=True)
class WarmupCosine(Curve):
    """A straight line up to 1 (Goyal et al. 2017), then half a cosine wave down to ``final``.

    Parameters
    ----------
    warmup : float, default=0.1
        In [0, 1): the fraction of the run in which the rate rises.
    final : float, default=0.0
        In [0, 1]; the factor of the step after the last one.

    Raises
    ------
    ValueError
        For values outside these ranges.
    """

    warmup: float = 0.1
    final: float = 0.0

    name: ClassVar[str] = "warmup_cosine"

    def __post_init__(self) -> None:
        self._require("warmup", lambda value: 0 <= value < 1, "in [0, 1)")
        self._require("final", lambda value: 0 <= value <= 1, "in [0, 1]")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """With w = warmup n_steps: (step + 1) / (w + 1), so that the first rate is not 0, then a cosine."""
        w = self.warmup * n_steps
        down = _between(1.0, self.final, np.maximum(steps - w, 0.0) / (n_steps - w))
        return np.where(steps < w, (steps + 1.0) / (w + 1.0), down)


@dataclass(frozen=True)
class FlatCosine(Curve):
    """1, then half a cosine wave down to ``final``.

    Parameters
    ----------
    flat : float, default=0.5
        In [0, 1): the fraction of the run in which the factor is 1.
    final : float, default=0.0
        In [0, 1]; the factor of the step after the last one.

    Raises
    ------
    ValueError
        For values outside these ranges.
    """

    flat: float = 0.5
    final: float = 0.0

    name: ClassVar[str] = "flat_cosine"

    def __post_init__(self) -> None:
        self._require("flat", lambda value: 0 <= value < 1, "in [0, 1)")
        self._require("final", lambda value: 0 <= value <= 1, "in [0, 1]")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """With w = flat n_steps: 1, from w on a cosine over (step - w) / (n_steps - w)."""
        w = self.flat * n_steps
        return _between(1.0, self.final, np.maximum(steps - w, 0.0) / (n_steps - w))


@dataclass(frozen=True)
class LogCosine(Curve):
    """Whole cosine waves from 0 up to 1 and back, each about twice as long as the one before (RealMLP, NeurIPS 2024).

    ``learning_rate_init`` is the highest rate; the rate of the first step is 0.

    Parameters
    ----------
    n_cycles : int, default=4
        Number of waves, from 1 to 50.

    Raises
    ------
    ValueError
        For a value outside this range.

    References
    ----------
    Holzmüller, Grinsztajn and Steinwart. Better by default: strong pre-tuned MLPs and boosted trees on tabular data.
    NeurIPS 2024.
    """

    n_cycles: int = 4

    name: ClassVar[str] = "coslog4"

    def __post_init__(self) -> None:
        self._require("n_cycles", lambda value: 1 <= value <= 50 and value == int(value), "a whole number from 1 to 50")

    def _factors(self, steps: np.ndarray, n_steps: float) -> np.ndarray:
        """(1 - cos(2 pi w)) / 2 with w = log2(1 + (2^n_cycles - 1) step / n_steps), the number of waves so far."""
        waves = _log2(1.0 + (2.0 ** int(self.n_cycles) - 1.0) * (steps / n_steps))
        return _between(0.0, 1.0, 2.0 * np.abs(waves - np.rint(waves)))


# Taylor series of sin(x) / x in x^2, to x^16, for |x| <= pi / 4, and of exp(x), to x^14, for |x| <= ln(2) / 2. The
# remainder is below 1e-18 of the result.
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(9)]
_EXP = [1 / math.factorial(k) for k in range(15)]
_ARTANH = [1 / (2 * k + 1) for k in range(12)]
_LN2 = 0.6931471805599453
_DECIMAL = Context(prec=30)


def _polynomial(x: np.ndarray, terms: list[float]) -> np.ndarray:
    """terms[0] + x terms[1] + x^2 terms[2] + ..."""
    value = np.full_like(x, terms[-1])
    for term in reversed(terms[:-1]):
        value = value * x + term
    return value


def _between(first: float, last: float, p: np.ndarray) -> np.ndarray:
    """first c + last (1 - c), c = (1 + cos(pi p)) / 2, for p in [0, 1].

    c = 1 - s for p <= 1/2 and s beyond, s = sin(pi min(p, 1 - p) / 2)^2: exact at both ends, and never below 0.
    """
    x = math.pi / 2 * np.minimum(p, 1.0 - p)
    s = (x * _polynomial(x * x, _SINE)) ** 2
    early = p <= 0.5
    rates: np.ndarray = first * np.where(early, 1.0 - s, s) + last * np.where(early, s, 1.0 - s)
    return rates


def _log2(x: np.ndarray) -> np.ndarray:
    """log2(x) = n + 2 artanh(z) / ln(2), z = (m - 1) / (m + 1), for x = m 2^n and m in [sqrt(1/2), sqrt(2)), x >= 1.

    The series of artanh(z) / z in z^2 goes to z^22; the remainder is below 1e-18.
    """
    m, n = np.frexp(x)
    low = m < math.sqrt(0.5)
    m, n = np.where(low, 2.0 * m, m), n - low
    z = (m - 1.0) / (m + 1.0)
    logs: np.ndarray = n + z * _polynomial(z * z, _ARTANH) * (2.0 / _LN2)
    return logs


def _power(base: float, p: np.ndarray) -> np.ndarray:
    """base^p = 2^n exp(f ln 2), n + f = p log2(base), n whole, for base in (0, 1] and p in [0, 1]."""
    y = p * float(_DECIMAL.divide(_DECIMAL.ln(Decimal(float(base))), _DECIMAL.ln(Decimal(2))))
    n = np.rint(y)
    powers: np.ndarray = np.ldexp(_polynomial((y - n) * _LN2, _EXP), n.astype(np.intc))
    return powers


@dataclass
class Planned(Schedule):
    """rate = initial * factor(step, total_steps): a ``Curve``, or a user's function, which is called for each step.

    ``step`` counts the updates made so far; those beyond ``total_steps`` keep the last factor.
    """

    factor: Callable[[int, int], float]
    total_steps: int
    step: int = 0

    planned: ClassVar[bool] = True

    #: Steps beyond the epoch for which a Curve is evaluated too: epochs may be one step long, and a call takes tens of
    #: microseconds.
    look_ahead: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        self._known_from, self._known = 0, np.empty(0)
        self.rate = self._rate_now()

    def rates(self, step: int, n_steps: int) -> np.ndarray:
        """initial * factor of the steps from ``step`` on."""
        self.step = step + n_steps
        return self.initial * self._factors(step, n_steps)

    def epoch_ends(self, samples_seen: int) -> None:
        """rate = the first one of the next epoch."""
        self.rate = self._rate_now()

    def _rate_now(self) -> float:
        return self.initial * float(self._factors(self.step, 1)[0])

    def _factors(self, first: int, n: int) -> np.ndarray:
        """Factors (n,) of the steps from ``first`` on."""
        if isinstance(self.factor, Curve):
            start = first - self._known_from
            if start < 0 or start + n > len(self._known):
                steps = np.arange(first, first + n + self.look_ahead)
                self._known_from, self._known, start = first, self.factor.factors(steps, self.total_steps), 0
            return self._known[start : start + n]
        last = self.total_steps - 1
        asked = [self._ask(step) for step in range(min(first, last), min(first + n, last + 1))]
        return np.array(asked + asked[-1:] * (n - len(asked)))

    def _ask(self, step: int) -> float:
        """A user's function at one step, checked."""
        value: object = self.factor(step, self.total_steps)
        if isinstance(value, np.ndarray) and value.ndim == 0:  # np.where returns these
            value = value.item()
        factor = float(value) if isinstance(value, Real) else math.nan
        if not 0 <= factor < math.inf:
            raise ValueError(
                "learning_rate must return a factor that is finite and >= 0 for each step, got "
                f"{value!r} for step {step} of {self.total_steps}."
            )
        return factor


def make_schedule(
    schedule: str | Callable[[int, int], float],
    solver: str,
    initial: float,
    power_t: float,
    rate: float | None = None,
    total_steps: int | None = None,
    step: int = 0,
) -> Schedule:
    """The schedule for the estimators' ``learning_rate``, ``solver``, ``learning_rate_init`` and ``power_t``.

    A schedule that follows the run continues from ``rate`` (None: ``initial``), a curve from ``step``, the number of
    updates made before. ``total_steps`` is the most updates of the whole run: ``max_iter`` times ceil(rows /
    batch_size), with the rows that are trained on. Only curves need it.
    """
    if isinstance(schedule, str) and schedule in SCHEDULES:
        cls = SCHEDULES[schedule]
        if cls.sgd_only and solver != SGD:
            cls = Constant
        return cls(float(initial), float(power_t), float(initial) if rate is None else rate)
    factor = CURVES[schedule]() if isinstance(schedule, str) and schedule in CURVES else schedule
    if isinstance(factor, (str, type)) or not callable(factor):
        raise ValueError(
            f"learning_rate must be one of {[*SCHEDULES, *CURVES]}, or a callable (step, n_steps) -> factor such as "
            f"CosineDecay(), got {schedule!r}.{hint(schedule, [*SCHEDULES, *CURVES])}"
        )
    check_takes("learning_rate", factor, ("step", "n_steps"), "factor on learning_rate_init")
    if total_steps is None or total_steps < 1:
        raise ValueError(f"total_steps must be at least 1 for learning_rate={schedule!r}, got {total_steps}.")
    return Planned(float(initial), float(power_t), float(initial), factor, total_steps, step)
