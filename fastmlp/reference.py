"""The mathematics of fastmlp in plain NumPy float64: the specification, executable.

Read this file to know what the compiled code must compute. It refuses to be fast, to handle threads or
element types, and to share a line with what it checks: it imports NumPy only. Nothing in the package
imports it but ``check`` (``python -m fastmlp check``); the tests do.

Letters: B batch rows, I fan-in, O fan-out; x, W (I, O), b (O,), z = x W + b, a = f(z); dz, dW, db are
derivatives of the batch's loss. Layer l = 0 .. L-1; ``coefs[l]`` is W of layer l, ``intercepts[l]`` its b.
Where a formula follows scikit-learn rather than the textbook, it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Layers = list[np.ndarray]
Rng = np.random.RandomState | np.random.Generator
Rule = str | tuple[str, float] | Callable[[int, int, Any], np.ndarray]


# --- Hidden activations: name -> (forward(x), derivative(x, y)), y = forward(x), both elementwise ----------


def identity(x: Array) -> Array:
    """y = x."""
    return x


def identity_derivative(x: Array, y: Array) -> Array:
    """dy/dx = 1."""
    return np.ones_like(x)


def logistic(x: Array) -> Array:
    """y = 1 / (1 + exp(-x)); exp never sees a positive argument, so nothing overflows."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def logistic_derivative(x: Array, y: Array) -> Array:
    """dy/dx = y (1 - y)."""
    return y * (1.0 - y)


def tanh(x: Array) -> Array:
    """y = tanh(x)."""
    return np.tanh(x)


def tanh_derivative(x: Array, y: Array) -> Array:
    """dy/dx = 1 - y^2."""
    return 1.0 - y * y


def relu(x: Array) -> Array:
    """y = max(x, 0)."""
    return np.maximum(x, 0.0)


def relu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = 0 where y = 0, else 1: at the kink x = 0 it is 0."""
    return np.where(y == 0.0, 0.0, 1.0)


def leaky_relu(x: Array) -> Array:
    """y = x where x > 0, else 0.01 x  (Maas et al. 2013)."""
    return np.where(x > 0.0, x, 0.01 * x)


def leaky_relu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = 1 where x > 0, else 0.01: at the kink x = 0 it is 0.01."""
    return np.where(x > 0.0, 1.0, 0.01)


def elu(x: Array) -> Array:
    """y = x where x > 0, else exp(x) - 1  (Clevert et al. 2015, alpha = 1)."""
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


def elu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = 1 where x > 0, else exp(x)."""
    return np.exp(np.minimum(x, 0.0))


# Klambauer et al. 2017, equation 14: with these numbers, mean 0 and variance 1 are a fixed point of a layer.
SELU_ALPHA = 1.6732632423543772848
SELU_SCALE = 1.0507009873554804934


def selu(x: Array) -> Array:
    """y = scale x where x > 0, else scale alpha (exp(x) - 1)."""
    return SELU_SCALE * np.where(x > 0.0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))


def selu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = scale where x > 0, else scale alpha exp(x): at the kink x = 0 it is scale alpha."""
    return SELU_SCALE * np.where(x > 0.0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0.0)))


def finite(x: Array) -> Array:
    """x, infinities replaced by the largest numbers: what is multiplied by 0 then gives 0, its limit, and not NaN."""
    largest = np.finfo(np.float64).max
    return np.clip(x, -largest, largest)


def normal_density(x: Array) -> Array:
    """phi(x) = exp(-x^2 / 2) / sqrt(2 pi), with the relative accuracy of x's type far out too.

    The rounding error of x^2 would be exp's relative error; so x^2 = h^2 + (x - h) (x + h), h a multiple of 1/16
    whose square is exact. 2 pi = 8 arctan(1), in x's type. Beyond 200, phi is 0 in every type.
    """
    x = np.clip(x, -200.0, 200.0)
    h = np.round(16.0 * x) / 16.0
    return np.exp(-h * h / 2.0) * np.exp(-(x - h) * (x + h) / 2.0) / np.sqrt(8.0 * np.arctan(np.ones_like(x)))


def normal_cdf(x: Array) -> Array:
    """Phi(x), the integral of phi up to x, with the relative accuracy of x's type but for two digits.

    With a = |x|, Phi(-a) = 1/2 - phi(a) (a + a^3/3 + a^5/(3*5) + ...) for a < 2.5 (Marsaglia 2004), and beyond
    phi(a) / (a + 1 / (a + 2 / (a + 3 / ...))) (Laplace 1805). Phi(a) = 1 - Phi(-a).
    """
    a = np.abs(x)
    near, far = np.minimum(a, 2.5), np.maximum(a, 2.5)
    term = series = near
    for k in range(3, 101, 2):
        term = term * near * near / k
        series = series + term
    fraction = far
    for k in range(100, 0, -1):
        fraction = far + k / fraction
    lower = np.where(a < 2.5, 0.5 - normal_density(a) * series, normal_density(a) / fraction)
    return np.where(x < 0.0, lower, 1.0 - lower)


def gelu(x: Array) -> Array:
    """y = x Phi(x)  (Hendrycks and Gimpel 2016, the exact form)."""
    return np.where(x < 0.0, finite(x), x) * normal_cdf(x)


def gelu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = Phi(x) + x phi(x)."""
    return normal_cdf(x) + finite(x) * normal_density(x)


def silu(x: Array) -> Array:
    """y = x logistic(x)  (Elfwing et al. 2017); also named swish."""
    return np.where(x < 0.0, finite(x), x) * logistic(x)


def silu_derivative(x: Array, y: Array) -> Array:
    """dy/dx = s (1 + x (1 - s)), s = logistic(x), 1 - s = logistic(-x)."""
    return logistic(x) * (1.0 + finite(x) * logistic(-x))


def softplus(x: Array) -> Array:
    """y = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which does not overflow."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def softplus_derivative(x: Array, y: Array) -> Array:
    """dy/dx = logistic(x)."""
    return logistic(x)


def mish(x: Array) -> Array:
    """y = x tanh(softplus(x))  (Misra 2019)."""
    return np.where(x < 0.0, finite(x), x) * np.tanh(softplus(x))


def mish_derivative(x: Array, y: Array) -> Array:
    """dy/dx = t + x (1 - t^2) logistic(x), t = tanh(softplus(x))."""
    t = np.tanh(softplus(x))
    return t + finite(x) * (1.0 - t * t) * logistic(x)


ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "identity": (identity, identity_derivative),
    "logistic": (logistic, logistic_derivative),
    "tanh": (tanh, tanh_derivative),
    "relu": (relu, relu_derivative),
    "leaky_relu": (leaky_relu, leaky_relu_derivative),
    "elu": (elu, elu_derivative),
    "selu": (selu, selu_derivative),
    "gelu": (gelu, gelu_derivative),
    "silu": (silu, silu_derivative),
    "softplus": (softplus, softplus_derivative),
    "mish": (mish, mish_derivative),
}


# --- Output activations: name -> forward(z), z of shape (B, O) ---------------------------------------------


def softmax(z: Array) -> Array:
    """a_ij = exp(z_ij - m_i) / sum_k exp(z_ik - m_i), m_i = max_k z_ik; one row, one distribution."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def exp(z: Array) -> Array:
    """a = exp(z): the mean of a Poisson variable, z its logarithm."""
    return np.exp(z)


OUTPUTS: dict[str, Callable[[Array], Array]] = {
    "identity": identity,
    "logistic": logistic,
    "softmax": softmax,
    "exp": exp,
}


# --- Losses: name -> (output activation, value(y, a, eps, k), dz(y, a, k)) ---------------------------------
# value: (B,), the loss of each row; dz: (B, O), the derivative of each row's loss by z. ``eps`` is the unit
# roundoff of the element type, finfo(dtype).eps: probabilities are clipped to [eps, 1 - eps] in the value
# only, as in scikit-learn; the gradient is that of the unclipped loss. k is the loss's parameter, where it has one.


def log_loss(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """-log a[y], for y a class index (B,); -sum_j y_j log a_j, for y a distribution over the classes (B, O)."""
    logs = np.log(np.clip(a, eps, 1.0 - eps))
    return -(y * logs).sum(axis=1) if y.ndim == 2 else -logs[np.arange(len(y)), y]


def log_loss_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """a - onehot(y), or a - y."""
    return a - y if y.ndim == 2 else a - np.eye(a.shape[1])[y]


def binary_log_loss(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """-sum_j (y_j log a_j + (1 - y_j) log(1 - a_j)): one yes-or-no question per output."""
    p = np.clip(a, eps, 1.0 - eps)
    return -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).sum(axis=1)


def binary_log_loss_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """a - y."""
    return a - y


def squared_error(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """(1 / 2O) sum_j (a_j - y_j)^2."""
    return 0.5 * ((a - y) ** 2).mean(axis=1)


def squared_error_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """(a - y) / O: the value's own derivative. scikit-learn leaves out the 1 / O (its issue #8349)."""
    return (a - y) / y.shape[1]


def absolute_error(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """(1 / O) sum_j |a_j - y_j|."""
    return np.abs(a - y).mean(axis=1)


def absolute_error_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """sign(a - y) / O; 0 at the kink."""
    return np.sign(a - y) / y.shape[1]


def huber(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """(1 / O) sum_j h(a_j - y_j), h(r) = r^2 / 2 for |r| <= k, else k (|r| - k / 2)  (Huber 1964)."""
    r = np.abs(a - y)
    return np.where(r <= k, 0.5 * r * r, k * (r - 0.5 * k)).mean(axis=1)


def huber_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """a - y, cut off at -k and k, / O."""
    return np.clip(a - y, -k, k) / y.shape[1]


def quantile(y: Array, a: Array, eps: float, k: float = 0.5) -> Array:
    """(1 / O) sum_j max(k (y_j - a_j), (k - 1) (y_j - a_j)): least for a the k-quantile  (Koenker and Bassett 1978)."""
    return np.maximum(k * (y - a), (k - 1.0) * (y - a)).mean(axis=1)


def quantile_dz(y: Array, a: Array, k: float = 0.5) -> Array:
    """-k where a < y, 1 - k where a > y, 0 at the kink, / O."""
    return np.where(a < y, -k, np.where(a > y, 1.0 - k, 0.0)) / y.shape[1]


def poisson(y: Array, a: Array, eps: float, k: float = 1.0) -> Array:
    """sum_j (y_j log(y_j / a_j) - y_j + a_j), half the deviance; 0 log 0 = 0. A SUM over outputs, as scikit-learn."""
    positive = y > 0.0
    log_ratio = np.log(np.where(positive, y, 1.0) / np.where(positive, a, 1.0))
    return (y * log_ratio - y + a).sum(axis=1)


def poisson_dz(y: Array, a: Array, k: float = 1.0) -> Array:
    """a - y."""
    return a - y


LOSSES: dict[str, tuple[str, Callable[..., Array], Callable[..., Array]]] = {
    "log_loss": ("softmax", log_loss, log_loss_dz),
    "binary_log_loss": ("logistic", binary_log_loss, binary_log_loss_dz),
    "squared_error": ("identity", squared_error, squared_error_dz),
    "absolute_error": ("identity", absolute_error, absolute_error_dz),
    "huber": ("identity", huber, huber_dz),
    "quantile": ("identity", quantile, quantile_dz),
    "poisson": ("exp", poisson, poisson_dz),
}


# --- Update rules: name -> (number of state arrays, update(w, g, state, hyper, t)) -------------------------
# w: parameters, g: gradient, state: as many arrays of w's shape (zeros before the first step), t: the count
# of this update, from 1. Returns the new w and the new state.


class Hyper(NamedTuple):
    """What the update rules are steered by; each rule reads its own."""

    learning_rate: float
    momentum: float = 0.9
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    rho: float = 0.9
    weight_decay: float = 0.0  # of weights; ``step`` hands vectors a 0


State = tuple[np.ndarray, ...]
Update = Callable[[Array, Array, State, Hyper, int], tuple[Array, State]]


def gradient(w: Array, g: Array, state: State, hyper: Hyper, t: int) -> tuple[Array, State]:
    """w stays, the state becomes g: for whoever wants the gradient itself, as L-BFGS does."""
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

    The paper takes off eta_t lambda w, eta_t being a schedule's factor; here the initial rate is in lr too, as users of
    other libraries expect, so lambda is that rate times weight_decay. The penalty (alpha) is part of g, as in every rule.
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


# --- Learning rates: name -> factor(step, n_steps), what learning_rate_init is multiplied by ---------------
# step = 0 .. n_steps - 1 counts the updates of a run; after that the last factor stays. scikit-learn's own three
# schedules follow what happens in the run instead, and are held against scikit-learn itself.


def step_decay(step: int, n_steps: int, factor: float = 0.1, at: Sequence[float] = (0.5, 0.75)) -> float:
    """factor^k, k = how many of the shares ``at`` of the run are over (He et al. 2016)."""
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


SCHEDULES: dict[str, Callable[..., float]] = {
    "step": step_decay,
    "exponential": exponential_decay,
    "cosine": cosine_decay,
    "one_cycle": one_cycle,
    "warmup_cosine": warmup_cosine,
}


# --- The network -------------------------------------------------------------------------------------------


# Initial parameters: name -> (distribution, size(I, O)); the size is the bound of uniform(-size, size), or the standard
# deviation of a normal distribution around 0. Besides: 'auto', 'orthogonal', pairs and callables.
INITIALISERS: dict[str, tuple[str, Callable[[int, int], float]]] = {
    "glorot_uniform": ("uniform", lambda I, O: np.sqrt(6.0 / (I + O))),  # Glorot and Bengio 2010
    "glorot_normal": ("normal", lambda I, O: np.sqrt(2.0 / (I + O))),
    "he_uniform": ("uniform", lambda I, O: np.sqrt(6.0 / I)),  # He et al. 2015
    "he_normal": ("normal", lambda I, O: np.sqrt(2.0 / I)),
    "lecun_normal": ("normal", lambda I, O: np.sqrt(1.0 / I)),  # LeCun et al. 1998
}


def orthogonal(I: int, O: int, rng: Rng) -> Array:
    """Q = Q_0 Q_1 ... of n = min(I, O) columns, m = max(I, O) long; transposed where I < O (Saxe et al. 2014).

    Q_k leaves the first k axes alone and turns the next one into x / |x|, x = m - k normal numbers: minus the sign of x_0
    times the reflection that swaps the two, for that one axis. Then Q is evenly distributed (Stewart 1980).
    """
    n, m = min(I, O), max(I, O)
    x = rng.normal(0.0, 1.0, (n, m))
    Q = np.eye(m)
    for k in range(n):
        sign = 1.0 if x[k, k] >= 0.0 else -1.0
        v = np.concatenate([np.zeros(k), x[k, k:]])
        v[k] += sign * np.linalg.norm(v)
        Q_k = np.eye(m) - 2.0 * np.outer(v, v) / (v @ v)
        Q_k[:, k] *= -sign
        Q = Q @ Q_k
    Q = Q[:, :n]
    return Q if I >= O else Q.T


def initial(rule: Rule, I: int, O: int, activation: str, shape: tuple[int, ...], rng: Rng) -> Array:
    """Initial weights, shape (I, O), or biases, shape (O,), of one layer."""
    if callable(rule):
        return rule(I, O, rng)
    if rule == "orthogonal":
        return orthogonal(I, O, rng)
    if rule == "auto":  # scikit-learn's: Glorot's bound, a smaller one for logistic
        kind, size = "uniform", np.sqrt((2.0 if activation == "logistic" else 6.0) / (I + O))
    elif isinstance(rule, str):
        kind, size = INITIALISERS[rule][0], INITIALISERS[rule][1](I, O)
    else:
        kind, size = rule
    if kind == "constant":
        return np.full(shape, size)
    return rng.uniform(-size, size, shape) if kind == "uniform" else rng.normal(0.0, size, shape)


def initialise(
    layer_sizes: Sequence[int],
    activation: str | Sequence[str],
    rng: Rng,
    weight_init: Rule = "auto",
    bias_init: Rule = "auto",
) -> tuple[Layers, Layers]:
    """W and b of all layers. ``activation``: of the hidden layers; the output layer is drawn as the last of them.

    The order of the draws is scikit-learn's: layer by layer, the weights, then the biases.
    """
    n_layers = len(layer_sizes) - 1
    names = [activation] * n_layers if isinstance(activation, str) else [*activation, activation[-1]]
    coefs, intercepts = [], []
    for name, (I, O) in zip(names, pairwise(layer_sizes), strict=True):
        coefs.append(initial(weight_init, I, O, name, (I, O), rng))
        intercepts.append(initial(bias_init, I, O, name, (O,), rng))
    return coefs, intercepts


def output_function(name: str) -> Callable[[Array], Array]:
    """An output activation by name; a hidden activation may serve as one too."""
    return OUTPUTS[name] if name in OUTPUTS else ACTIVATIONS[name][0]


def forward_layers(
    coefs: Layers, intercepts: Layers, activations: Sequence[str], output: str, X: Array
) -> tuple[Layers, Layers]:
    """a[0] = X; z[l] = a[l] W[l] + b[l]; a[l+1] = f_l(z[l]). Returns all z (L of them) and all a (L + 1)."""
    functions = [ACTIVATIONS[name][0] for name in activations] + [output_function(output)]
    a, z = [X], []
    for W, b, f in zip(coefs, intercepts, functions, strict=True):
        z.append(a[-1] @ W + b)
        a.append(f(z[-1]))
    return z, a


def forward(coefs: Layers, intercepts: Layers, activations: Sequence[str], output: str, X: Array) -> Array:
    """The network's output (B, O) for the rows of X (B, n_features)."""
    return forward_layers(coefs, intercepts, activations, output, X)[1][-1]


# --- Random numbers by position ------------------------------------------------------------------------------

# Streams: dropout on what enters layer l takes stream l; the input's noise and mask these.
STREAM_NOISE = 0x40000000
STREAM_MASK = 0x40000001


def philox(counter: Sequence[Array], key: tuple[int, int]) -> list[Array]:
    """Philox4x32-10: four words from a counter of four and a key of two (Salmon, Moraes, Dror, Shaw 2011)."""
    low = np.uint64(0xFFFFFFFF)
    x = [np.asarray(word, dtype=np.uint64) & low for word in counter]
    k0, k1 = key
    for _ in range(10):
        p0, p1 = x[0] * np.uint64(0xD2511F53), x[2] * np.uint64(0xCD9E8D57)
        x = [
            (p1 >> np.uint64(32)) ^ x[1] ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ x[3] ^ np.uint64(k1),
            p0 & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


def words(seed: int, stream: int, step: int, rows: int, columns: int) -> Array:
    """(rows, columns) words of 32 bits: word row % 4 at counter (row / 4, column, stream, step), key the seed."""
    group, column = np.meshgrid(np.arange(-(-rows // 4)), np.arange(columns), indexing="ij")
    four = philox((group, column, np.full_like(group, stream), np.full_like(group, step)), (seed & 0xFFFFFFFF, seed >> 32))
    return np.stack(four, axis=1).reshape(4 * len(group), columns)[:rows]


def keep(seed: int, stream: int, step: int, rows: int, columns: int, rate: float) -> Array:
    """Dropout's factors: 0 where word < rate 2^32, else 1 / (1 - rate)  (Srivastava et al. 2014, inverted)."""
    kept = words(seed, stream, step, rows, columns) >= np.uint64(rate * 2.0**32)
    return kept / (1.0 - rate)


def normals(seed: int, stream: int, step: int, rows: int, columns: int) -> Array:
    """sqrt(-2 log u0) cos(2 pi u1) and sin: rows 2k and 2k + 1 (Box and Muller 1958), u = (upper 23 bits + 1/2) / 2^23."""
    u = (words(seed, stream, step, rows + rows % 2, columns) >> np.uint64(9)).astype(np.float64)
    u = (u + 0.5) / 2.0**23
    radius, angle = np.sqrt(-2.0 * np.log(u[0::2])), 2.0 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(u.shape)[:rows]


# --- Batch normalisation -------------------------------------------------------------------------------------

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1


def normalise(z: Array, scale: Array, b: Array) -> tuple[Array, Array, Array]:
    """u = scale xhat + b, xhat = (z - mean) / sqrt(variance + epsilon) over the batch (Ioffe and Szegedy 2015, algorithm 1).

    Returns u, xhat and 1 / sqrt(variance + epsilon).
    """
    slope = 1.0 / np.sqrt(z.var(axis=0) + NORM_EPSILON)
    xhat = (z - z.mean(axis=0)) * slope
    return scale * xhat + b, xhat, slope


def normalise_gradient(du: Array, xhat: Array, slope: Array, scale: Array) -> tuple[Array, Array, Array]:
    """dz = scale slope (du - mean(du) - xhat mean(du xhat)); d_scale = sum du xhat; d_b = sum du."""
    d_scale, d_b = (du * xhat).sum(axis=0), du.sum(axis=0)
    return scale * slope * (du - d_b / len(du) - xhat * d_scale / len(du)), d_scale, d_b


def normalise_fixed(z: Array, scale: Array, b: Array, mean: Array, variance: Array) -> Array:
    """The same with given averages, as in prediction."""
    return scale * (z - mean) / np.sqrt(variance + NORM_EPSILON) + b


def running(average: Array, value: Array) -> Array:
    """A running average after one more batch."""
    return average + NORM_MOMENTUM * (value - average)


def unbiased_variance(z: Array) -> Array:
    """Variance over the batch with n - 1; 0 for one row."""
    return z.var(axis=0) * (len(z) / max(len(z) - 1, 1))


# --- Models --------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """Parameters and the optimizer's memory: ``state[k]`` holds k arrays for each of ``coefs + intercepts + scales``.

    ``scales``, ``means`` and ``variances`` hold one array per hidden layer with batch normalisation, else nothing; the
    layer's intercept is then its shift.
    """

    coefs: Layers
    intercepts: Layers
    state: list[State]
    scales: Layers = []
    means: Layers = []
    variances: Layers = []

    @property
    def parameters(self) -> Layers:
        """All arrays that are learned, in the order of ``state``."""
        return self.coefs + self.intercepts + self.scales


class Method(NamedTuple):
    """What a training run does beyond the plain one. Rates are one per layer, ``dropout[0]`` that of the input."""

    residual: bool = False
    dropout: tuple[float, ...] = ()
    layer_rates: tuple[float, ...] = ()
    max_grad_norm: float = 0.0
    loss_parameter: float = 1.0
    label_smoothing: float = 0.0
    input_noise: float = 0.0
    input_mask: float = 0.0
    seed: int = 0


PLAIN = Method()


def new_model(coefs: Layers, intercepts: Layers, optimizer: str, batch_norm: bool = False) -> Model:
    """A model before its first step: state of zeros; scales 1, running means 0 and variances 1."""
    hidden = intercepts[:-1] if batch_norm else []
    scales, means = [np.ones_like(b) for b in hidden], [np.zeros_like(b) for b in hidden]
    n_state = OPTIMIZERS[optimizer][0]
    state = [tuple(np.zeros_like(w) for _ in range(n_state)) for w in coefs + intercepts + scales]
    return Model(coefs, intercepts, state, scales, means, [np.ones_like(b) for b in hidden])


def adds_input(W: Array, layer: int, n_layers: int, residual: bool) -> bool:
    """A residual network's hidden layer adds its input to its output where the widths agree (He et al. 2016)."""
    return residual and layer < n_layers - 1 and W.shape[0] == W.shape[1]


def predict(model: Model, activations: Sequence[str], output: str, X: Array, residual: bool = False) -> Array:
    """a[0] = X; a[l+1] = f_l(a[l] W[l] + b[l]) (+ a[l]), batch normalisation by running averages in between."""
    a = X
    for layer, (W, b) in enumerate(zip(model.coefs, model.intercepts, strict=True)):
        if layer < len(model.scales):
            u = normalise_fixed(a @ W, model.scales[layer], b, model.means[layer], model.variances[layer])
        else:
            u = a @ W + b
        y = output_function(output)(u) if layer == len(model.coefs) - 1 else ACTIVATIONS[activations[layer]][0](u)
        a = y + a if adds_input(W, layer, len(model.coefs), residual) else y
    return a


def penalty(coefs: Layers, alpha: float, l1_ratio: float) -> float:
    """alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2); biases go unpenalised."""
    return alpha * sum(l1_ratio * np.abs(W).sum() + 0.5 * (1.0 - l1_ratio) * (W * W).sum() for W in coefs)


def penalty_gradient(W: Array, alpha: float, l1_ratio: float) -> Array:
    """alpha (l1_ratio sign(W) + (1 - l1_ratio) W); 0 at W = 0."""
    return alpha * (l1_ratio * np.sign(W) + (1.0 - l1_ratio) * W)


def augment(X: Array, method: Method, step: int) -> Array:
    """X + noise, then numbers that become 0, then dropout on what is left."""
    rows, columns = X.shape
    if method.input_noise:
        X = X + method.input_noise * normals(method.seed, STREAM_NOISE, step, rows, columns)
    if method.input_mask:
        X = X * (keep(method.seed, STREAM_MASK, step, rows, columns, method.input_mask) > 0)
    if method.dropout and method.dropout[0]:
        X = X * keep(method.seed, 0, step, rows, columns, method.dropout[0])
    return X


def soft_targets(y: Array, n_classes: int, smoothing: float) -> Array:
    """(1 - smoothing) onehot(y) + smoothing / K  (Szegedy et al. 2016); for yes-or-no targets K = 2."""
    if y.ndim == 2:
        return (1.0 - smoothing) * y + smoothing / 2.0
    return (1.0 - smoothing) * np.eye(n_classes)[y] + smoothing / n_classes


class Gradients(NamedTuple):
    """The loss of a batch, its gradient in the order of ``Model.parameters``, and the statistics of its normalisations."""

    loss: float
    parameters: Layers
    means: Layers
    variances: Layers


def gradients(
    model: Model,
    activations: Sequence[str],
    loss: str,
    X: Array,
    y: Array,
    sample_weight: Array | None = None,
    alpha: float = 0.0,
    l1_ratio: float = 0.0,
    eps: float = np.finfo(np.float64).eps,
    method: Method = PLAIN,
    step: int = 1,
    mix: float | None = None,
) -> Gradients:
    """J = (sum_i s_i loss_i + penalty) / S with S = sum_i s_i, and its derivatives. Without weights s_i = 1.

    That the penalty is divided by S is scikit-learn's rule. With mixup (Zhang et al. 2018) row i of the batch becomes
    mix row_i + (1 - mix) row_{i+1}, its targets and its weight likewise, the first row following the last. Layers whose rate is
    0 pay no penalty and normalise by their running averages.
    """
    output, value, derivative = LOSSES[loss]
    n_layers = len(model.coefs)
    rates = method.layer_rates or (1.0,) * n_layers
    s = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if output == "softmax" and (mix is not None or method.label_smoothing):
        y = soft_targets(y, model.coefs[-1].shape[1], method.label_smoothing)
    elif method.label_smoothing:
        y = soft_targets(y, 2, method.label_smoothing)
    if mix is not None:
        X, y, s = (mix * v + (1.0 - mix) * np.roll(v, -1, axis=0) for v in (X, y, s))
    S = s.sum()

    # Forward; what backward wants to know is kept per layer.
    x, u, y_of, xhats, slopes, keeps, means, variances = [augment(X, method, step)], [], [], {}, {}, {}, [], []
    for layer, (W, b) in enumerate(zip(model.coefs, model.intercepts, strict=True)):
        z = x[-1] @ W
        if layer < len(model.scales):
            learns = rates[layer] > 0
            means.append(running(model.means[layer], z.mean(axis=0)) if learns else model.means[layer])
            variances.append(running(model.variances[layer], unbiased_variance(z)) if learns else model.variances[layer])
            if learns:
                z, xhats[layer], slopes[layer] = normalise(z, model.scales[layer], b)
            else:
                z = normalise_fixed(z, model.scales[layer], b, model.means[layer], model.variances[layer])
        else:
            z = z + b
        u.append(z)
        if layer == n_layers - 1:
            break
        y_of.append(ACTIVATIONS[activations[layer]][0](z))
        leaving = y_of[-1] + x[-1] if adds_input(W, layer, n_layers, method.residual) else y_of[-1]
        if method.dropout and method.dropout[layer + 1]:
            keeps[layer] = keep(method.seed, layer + 1, step, *leaving.shape, method.dropout[layer + 1])
            leaving = leaving * keeps[layer]
        x.append(leaving)
    a = output_function(output)(u[-1])
    learning = [W for W, rate in zip(model.coefs, rates, strict=True) if rate > 0]
    J = ((s * value(y, a, eps, method.loss_parameter)).sum() + penalty(learning, alpha, l1_ratio)) / S

    # Backward.
    dz = s[:, np.newaxis] * derivative(y, a, method.loss_parameter)
    dW: Layers = [np.empty(0)] * n_layers
    db: Layers = [np.empty(0)] * n_layers
    d_scale: Layers = [np.empty(0)] * len(model.scales)
    for layer in reversed(range(n_layers)):
        W = model.coefs[layer]
        if layer < n_layers - 1:
            dz = dx * keeps[layer] if layer in keeps else dx
            d_leaving = dz
            dz = dz * ACTIVATIONS[activations[layer]][1](u[layer], y_of[layer])
        db[layer] = dz.sum(axis=0)
        if layer in xhats:
            dz, d_scale[layer], db[layer] = normalise_gradient(dz, xhats[layer], slopes[layer], model.scales[layer])
        elif layer < len(model.scales):
            d_scale[layer] = np.zeros_like(model.scales[layer])
            dz = dz * model.scales[layer] / np.sqrt(model.variances[layer] + NORM_EPSILON)
        dW[layer] = x[layer].T @ dz + penalty_gradient(W, alpha, l1_ratio)
        dx = dz @ W.T
        if adds_input(W, layer, n_layers, method.residual):
            dx = dx + d_leaving
    return Gradients(float(J), [g / S for g in dW + db + d_scale], means, variances)


def loss_gradient(
    coefs: Layers,
    intercepts: Layers,
    activations: Sequence[str],
    loss: str,
    X: Array,
    y: Array,
    sample_weight: Array | None = None,
    alpha: float = 0.0,
    l1_ratio: float = 0.0,
    eps: float = np.finfo(np.float64).eps,
) -> tuple[float, Layers, Layers]:
    """J, dJ/dW and dJ/db of a plain network. Where the weights sum to 0 there is nothing to learn: all zero."""
    if sample_weight is not None and np.sum(sample_weight) == 0.0:
        return 0.0, [np.zeros_like(W) for W in coefs], [np.zeros_like(b) for b in intercepts]
    found = gradients(Model(coefs, intercepts, []), activations, loss, X, y, sample_weight, alpha, l1_ratio, eps)
    return found.loss, found.parameters[: len(coefs)], found.parameters[len(coefs) :]


# --- Training ----------------------------------------------------------------------------------------------


def clip(g: Layers, learns: Sequence[bool], max_norm: float) -> Layers:
    """g min(1, max_norm / |g|), |g| the Euclidean norm of all that learns (Pascanu, Mikolov, Bengio 2013); 0: as it is."""
    norm = np.sqrt(sum((part * part).sum() for part, counts in zip(g, learns, strict=True) if counts))
    return [part * (max_norm / norm) for part in g] if max_norm and norm > max_norm else g


def step(
    model: Model,
    activations: Sequence[str],
    loss: str,
    optimizer: str,
    X: Array,
    y: Array,
    sample_weight: Array | None,
    hyper: Hyper,
    t: int,
    alpha: float = 0.0,
    l1_ratio: float = 0.0,
    eps: float = np.finfo(np.float64).eps,
    method: Method = PLAIN,
    mix: float | None = None,
) -> tuple[float, Model]:
    """One batch: loss and gradient at the old parameters, then update number t (from 1) of all that learns.

    A batch whose weights sum to 0 changes nothing and has loss 0.
    """
    if sample_weight is not None and np.sum(sample_weight) == 0.0:
        return 0.0, model
    found = gradients(model, activations, loss, X, y, sample_weight, alpha, l1_ratio, eps, method, t, mix)
    n_layers, update = len(model.coefs), OPTIMIZERS[optimizer][1]
    rates = method.layer_rates or (1.0,) * n_layers
    rates = (*rates, *rates, *rates[: len(model.scales)])
    g = clip(found.parameters, [rate > 0 for rate in rates], method.max_grad_norm)
    new = []
    for k, (w, state) in enumerate(zip(model.parameters, model.state, strict=True)):
        own = hyper._replace(learning_rate=hyper.learning_rate * rates[k], weight_decay=hyper.weight_decay * (k < n_layers))
        new.append(update(w, g[k], state, own, t) if rates[k] > 0 else (w, state))
    parameters = [w for w, _ in new]
    return found.loss, Model(
        parameters[:n_layers],
        parameters[n_layers : 2 * n_layers],
        [state for _, state in new],
        parameters[2 * n_layers :],
        found.means,
        found.variances,
    )


def batches(n_rows: int, batch_size: int) -> Iterator[slice]:
    """batch_size rows at a time; the last batch is the rest."""
    for start in range(0, n_rows, batch_size):
        yield slice(start, min(start + batch_size, n_rows))


def epoch(
    model: Model,
    activations: Sequence[str],
    loss: str,
    optimizer: str,
    batch_size: int,
    X: Array,
    y: Array,
    sample_weight: Array | None,
    order: Array | None,
    learning_rates: Array,
    t: int,
    hyper: Hyper,
    alpha: float = 0.0,
    l1_ratio: float = 0.0,
    eps: float = np.finfo(np.float64).eps,
    method: Method = PLAIN,
    mix: Array | None = None,
) -> tuple[float, Model]:
    """One pass over the rows ``order`` (all, in order, if None), one step per batch.

    ``t`` counts the steps before this epoch; step k of the epoch is number t + k + 1 and takes
    ``learning_rates[k]`` and ``mix[k]``. Returns the mean of the batch losses weighted by the batches' numbers of ROWS, as
    scikit-learn reports it, and the new model.
    """
    rows = np.arange(len(X)) if order is None else order
    total = 0.0
    for k, batch in enumerate(batches(len(rows), batch_size)):
        i = rows[batch]
        batch_weight = None if sample_weight is None else sample_weight[i]
        rate = hyper._replace(learning_rate=float(learning_rates[k]))
        mixed = None if mix is None else float(mix[k])
        batch_loss, model = step(
            model, activations, loss, optimizer, X[i], y[i], batch_weight, rate, t + k + 1, alpha, l1_ratio, eps, method, mixed
        )
        total += batch_loss * len(i)
    return total / len(rows), model
