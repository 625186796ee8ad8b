"""Hidden activations, output activations, losses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


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
    """x, infinities replaced by the largest numbers: their product with 0 is then 0, the limit, and not NaN."""
    largest = np.finfo(np.float64).max
    return np.clip(x, -largest, largest)


def normal_density(x: Array) -> Array:
    """phi(x) = exp(-x^2 / 2) / sqrt(2 pi), with the relative accuracy of x's type in the tails too.

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
    """a_ij = exp(z_ij - m_i) / sum_k exp(z_ik - m_i), m_i = max_k z_ik; one row, one distribution.

    An infinite z counts as the largest number of its sign: the limit where one logit outgrows the others, and a share
    for each where several do.
    """
    largest = np.finfo(z.dtype).max
    z = np.clip(z, -largest, largest)
    with np.errstate(over="ignore"):
        z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def log_softmax(z: Array) -> Array:
    """The logarithm of ``softmax``, also where that is 0: a_ij = z_ij - m_i - log1p(s_i), m_i = max_k z_ik, s_i the sum
    of exp(z_ik - m_i) over all k but that of the maximum.
    """
    largest = np.finfo(z.dtype).max
    z = np.clip(z, -largest, largest)
    with np.errstate(over="ignore"):
        z = z - z.max(axis=1, keepdims=True)
    e = np.exp(z)
    e[np.arange(len(z)), z.argmax(axis=1)] = 0.0
    return z - np.log1p(e.sum(axis=1, keepdims=True))


def log_logistic(z: Array) -> Array:
    """a = -softplus(-z): the logarithm of ``logistic``, also where that is 0."""
    return -softplus(-z)


def exp(z: Array) -> Array:
    """a = exp(z): the mean of a Poisson variable, z its logarithm."""
    return np.exp(z)


OUTPUTS: dict[str, Callable[[Array], Array]] = {
    "identity": identity,
    "logistic": logistic,
    "softmax": softmax,
    "log_logistic": log_logistic,
    "log_softmax": log_softmax,
    "exp": exp,
}


# --- Losses: name -> (output activation, value(y, a, eps, k), dz(y, a, k)) ---------------------------------
# value: (B,), the loss of each row; dz: (B, O), the derivative of each row's loss by z. ``eps`` is the unit
# roundoff of the element type, finfo(dtype).eps: probabilities are clipped to [eps, 1 - eps] in the value
# only, as in scikit-learn; the gradient is that of the unclipped loss. k is the loss's parameter, if it has one.


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
    """sum_j (y_j log(y_j / a_j) - y_j + a_j), half the deviance; 0 log 0 = 0. A SUM over outputs, as scikit-learn.

    Infinite for an infinite a; a quotient that underflows counts as the smallest normal number, since a outweighs its
    logarithm.
    """
    positive = y > 0.0
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        ratio = np.where(positive, y, 1.0) / np.where(positive, a, 1.0)
        log_ratio = np.log(np.maximum(ratio, np.finfo(a.dtype).tiny))
    return np.where(np.isinf(a), np.inf, y * log_ratio - y + a).sum(axis=1)


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
