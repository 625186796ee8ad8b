"""Update rules and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Array = np.ndarray


# --- Update rules: name -> (number of state arrays, update(w, g, state, hyper, t)) -------------------------
# w: parameters, g: gradient, state: as many arrays of w's shape (zeros before the first step), t: the count
# of this update, from 1. Returns the new w and the new state.


class Hyper(NamedTuple):
    """Hyperparameters of the update rules; each rule reads its own."""

    learning_rate: float
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    rho: float = 0.9
    weight_decay: float = 0.0  # of weights only: ``step`` passes 0 for biases and scales


# After every 128th update, subnormal numbers in an average of gradients become 0: they are slow to compute with, and
# their share of a step is negligible. Averages of squares stay, since steps are divided by them.
FLUSH_INTERVAL = 128

State = tuple[np.ndarray, ...]
Update = Callable[[Array, Array, State, Hyper, int], tuple[Array, State]]


def flush_subnormals(state: State) -> State:
    """The state with subnormal numbers of its first array replaced by 0 of the same sign."""
    first = state[0]
    return (np.where(np.abs(first) < np.finfo(first.dtype).tiny, 0 * first, first), *state[1:])


def gradient(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w stays, the state becomes g: L-BFGS takes the gradient itself."""
    return w, (g,)


def sgd(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w -= lr g."""
    return w - hyper.learning_rate * g, ()


def sgd_momentum(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """v = momentum v - lr g; w += v."""
    (v,) = state
    v = hyper.momentum * v - hyper.learning_rate * g
    return w + v, (v,)


def sgd_nesterov(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """v = momentum v - lr g; w += momentum v - lr g, with the new v."""
    (v,) = state
    v = hyper.momentum * v - hyper.learning_rate * g
    return w + (hyper.momentum * v - hyper.learning_rate * g), (v,)


def momentum(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """v = momentum v + (1 - momentum) g; w -= lr v: v is an exponential average of gradients."""
    (v,) = state
    v = hyper.momentum * v + (1.0 - hyper.momentum) * g
    return w - hyper.learning_rate * v, (v,)


def adagrad(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """G += g^2; w -= lr g / sqrt(G + epsilon)  (Duchi et al. 2011; epsilon inside the root)."""
    (G,) = state
    G = G + g * g
    return w - hyper.learning_rate * g / np.sqrt(G + hyper.epsilon), (G,)


def rmsprop(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """G = rho G + (1 - rho) g^2; w -= lr g / sqrt(G + epsilon)  (Tieleman and Hinton 2012; epsilon inside)."""
    (G,) = state
    G = hyper.rho * G + (1.0 - hyper.rho) * g * g
    return w - hyper.learning_rate * g / np.sqrt(G + hyper.epsilon), (G,)


def adam_moments(g: Array, state: State, hyper: Hyper) -> State:
    """m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2."""
    m, v = state
    return (hyper.beta_1 * m + (1.0 - hyper.beta_1) * g, hyper.beta_2 * v + (1.0 - hyper.beta_2) * g * g)


def adam(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w -= lr sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon): scikit-learn's form.

    Kingma and Ba 2014, end of section 2: epsilon beside sqrt(v), not beside sqrt(v_hat).
    """
    m, v = adam_moments(g, state, hyper)
    rate = hyper.learning_rate * np.sqrt(1.0 - hyper.beta_2**t) / (1.0 - hyper.beta_1**t)
    return w - rate * m / (np.sqrt(v) + hyper.epsilon), (m, v)


def adam_hat(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w -= lr m_hat / (sqrt(v_hat) + epsilon), m_hat = m / (1 - beta_1^t), v_hat = v / (1 - beta_2^t).

    Kingma and Ba 2014, algorithm 1.
    """
    m, v = adam_moments(g, state, hyper)
    m_hat = m / (1.0 - hyper.beta_1**t)
    v_hat = v / (1.0 - hyper.beta_2**t)
    return w - hyper.learning_rate * m_hat / (np.sqrt(v_hat) + hyper.epsilon), (m, v)


def adamw(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """adam_hat on g, and w -= lr weight_decay w besides, with the old w (Loshchilov and Hutter 2019, algorithm 2).

    The paper subtracts eta_t lambda w, eta_t being a schedule's factor; here the initial rate is in lr too, as users of
    other libraries expect, so lambda is that rate times weight_decay. The penalty (alpha) is part of g, as in every
    rule.
    """
    new, state = adam_hat(w, g, state, hyper, t)
    return new - hyper.learning_rate * hyper.weight_decay * w, state


def nadam(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w -= lr m_bar / (sqrt(v_hat) + epsilon), m_bar = beta_1 m / (1 - beta_1^(t+1)) + (1 - beta_1) g / (1 - beta_1^t).

    Dozat 2016, with mu_t = beta_1 at every step. The paper has a schedule for it, mu_t = mu (1 - 0.96^(t / 250) / 2):
    momentum grows from half its size over some thousand steps. Without it the first steps lean on momentum as much as
    the later ones, and the products of all mu_i in the two corrections are powers of beta_1.
    """
    m, v = adam_moments(g, state, hyper)
    b = hyper.beta_1
    m_bar = b * m / (1.0 - b ** (t + 1)) + (1.0 - b) * g / (1.0 - b**t)
    v_hat = v / (1.0 - hyper.beta_2**t)
    return w - hyper.learning_rate * m_bar / (np.sqrt(v_hat) + hyper.epsilon), (m, v)


def amsgrad(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """adam_hat with the largest v so far in v's place: v_max = max(v_max, v) (Reddi, Kale and Kumar 2018, algorithm 2).

    The paper corrects neither m nor v for their start at 0; here both are, as in adam_hat, v_max by the t of this step.
    """
    m, v = adam_moments(g, state[:2], hyper)
    v_max = np.maximum(state[2], v)
    m_hat = m / (1.0 - hyper.beta_1**t)
    v_hat = v_max / (1.0 - hyper.beta_2**t)
    return w - hyper.learning_rate * m_hat / (np.sqrt(v_hat) + hyper.epsilon), (m, v, v_max)


OPTIMIZERS: dict[str, tuple[int, Update]] = {
    "gradient": (1, gradient),
    "sgd": (0, sgd),
    "sgd_momentum": (1, sgd_momentum),
    "sgd_nesterov": (1, sgd_nesterov),
    "momentum": (1, momentum),
    "adagrad": (1, adagrad),
    "rmsprop": (1, rmsprop),
    "adam": (2, adam),
    "adam_hat": (2, adam_hat),
    "adamw": (2, adamw),
    "nadam": (2, nadam),
    "amsgrad": (3, amsgrad),
}
# Rules whose first array is an average of gradients, or a velocity.
AVERAGES = {"sgd_momentum", "sgd_nesterov", "momentum", "adam", "adam_hat", "adamw", "nadam", "amsgrad"}


# --- Learning rates: name -> factor(step, n_steps) on learning_rate_init ------------------------------------
# step = 0 .. n_steps - 1 counts the updates of a run; after that the last factor stays. scikit-learn's own three
# schedules depend on the losses of the run instead; tests compare them with scikit-learn itself.


def step_decay(step: int, n_steps: int, factor: float = 0.1, at: Sequence[float] = (0.5, 0.75)) -> float:
    """factor^k, k = the number of shares ``at`` of the run that are over (He et al. 2016)."""
    return factor ** sum(step / n_steps >= share for share in at)


def exponential_decay(step: int, n_steps: int, final: float = 0.01) -> float:
    """final^(step / n_steps)."""
    return final ** (step / n_steps)


def half_wave(first: float, last: float, p: float) -> float:
    """From ``first`` at p = 0 to ``last`` at p = 1, along a cosine."""
    return last + (first - last) * 0.5 * (1.0 + float(np.cos(np.pi * p)))


def cosine_decay(step: int, n_steps: int, final: float = 0.0) -> float:
    """final + (1 - final) (1 + cos(pi step / n_steps)) / 2 (Loshchilov and Hutter 2017)."""
    return half_wave(1.0, final, step / n_steps)


def one_cycle(step: int, n_steps: int, warmup: float = 0.3, start: float = 0.04, final: float = 1e-5) -> float:
    """Up to 1 in the share ``warmup`` of the run, then down to ``final`` (Smith and Topin 2019); cosines for lines."""
    w = warmup * n_steps
    return half_wave(start, 1.0, step / w) if step < w else half_wave(1.0, final, (step - w) / (n_steps - w))


def warmup_cosine(step: int, n_steps: int, warmup: float = 0.1, final: float = 0.0) -> float:
    """(step + 1) / (w + 1) for step < w = warmup n_steps (Goyal et al. 2017), then half a cosine down to ``final``."""
    w = warmup * n_steps
    return (step + 1) / (w + 1) if step < w else half_wave(1.0, final, (step - w) / (n_steps - w))


def flat_cosine(step: int, n_steps: int, flat: float = 0.5, final: float = 0.0) -> float:
    """1 for step < w = flat n_steps, then half a cosine down to ``final``."""
    w = flat * n_steps
    return 1.0 if step < w else half_wave(1.0, final, (step - w) / (n_steps - w))


def log_cosine(step: int, n_steps: int, n_cycles: int = 4) -> float:
    """(1 - cos(2 pi log2(1 + (2^n_cycles - 1) step / n_steps))) / 2 (Holzmüller, Grinsztajn and Steinwart 2024)."""
    return 0.5 - 0.5 * float(np.cos(2.0 * np.pi * np.log2(1.0 + (2.0**n_cycles - 1.0) * step / n_steps)))


SCHEDULES: dict[str, Callable[..., float]] = {
    "step": step_decay,
    "exponential": exponential_decay,
    "cosine": cosine_decay,
    "one_cycle": one_cycle,
    "warmup_cosine": warmup_cosine,
    "flat_cosine": flat_cosine,
    "coslog4": log_cosine,
}
