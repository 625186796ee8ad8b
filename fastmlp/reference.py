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
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Layers = list[np.ndarray]


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


# --- Losses: name -> (output activation, value(y, a, eps), dz(y, a)) ---------------------------------------
# value: (B,), the loss of each row; dz: (B, O), the derivative of each row's loss by z. ``eps`` is the unit
# roundoff of the element type, finfo(dtype).eps: probabilities are clipped to [eps, 1 - eps] in the value
# only, as in scikit-learn; the gradient is that of the unclipped loss.


def log_loss(y: Array, a: Array, eps: float) -> Array:
    """-log a[y], for y a class index (B,)."""
    return -np.log(np.clip(a[np.arange(len(y)), y], eps, 1.0 - eps))


def log_loss_dz(y: Array, a: Array) -> Array:
    """a - onehot(y)."""
    dz = a.copy()
    dz[np.arange(len(y)), y] -= 1.0
    return dz


def binary_log_loss(y: Array, a: Array, eps: float) -> Array:
    """-sum_j (y_j log a_j + (1 - y_j) log(1 - a_j)): one yes-or-no question per output."""
    p = np.clip(a, eps, 1.0 - eps)
    return -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).sum(axis=1)


def binary_log_loss_dz(y: Array, a: Array) -> Array:
    """a - y."""
    return a - y


def squared_error(y: Array, a: Array, eps: float) -> Array:
    """(1 / 2O) sum_j (a_j - y_j)^2."""
    return 0.5 * ((a - y) ** 2).mean(axis=1)


def squared_error_dz(y: Array, a: Array) -> Array:
    """(a - y) / O: the value's own derivative. scikit-learn leaves out the 1 / O (its issue #8349)."""
    return (a - y) / y.shape[1]


def poisson(y: Array, a: Array, eps: float) -> Array:
    """sum_j (y_j log(y_j / a_j) - y_j + a_j), half the deviance; 0 log 0 = 0. A SUM over outputs, as scikit-learn."""
    positive = y > 0.0
    log_ratio = np.log(np.where(positive, y, 1.0) / np.where(positive, a, 1.0))
    return (y * log_ratio - y + a).sum(axis=1)


def poisson_dz(y: Array, a: Array) -> Array:
    """a - y."""
    return a - y


LOSSES: dict[str, tuple[str, Callable[[Array, Array, float], Array], Callable[[Array, Array], Array]]] = {
    "log_loss": ("softmax", log_loss, log_loss_dz),
    "binary_log_loss": ("logistic", binary_log_loss, binary_log_loss_dz),
    "squared_error": ("identity", squared_error, squared_error_dz),
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
}


# --- The network -------------------------------------------------------------------------------------------


def initialise(layer_sizes: Sequence[int], activation: str, rng: np.random.RandomState) -> tuple[Layers, Layers]:
    """W, b ~ uniform(-r, r), r = sqrt(6 / (I + O)); 2 instead of 6 for logistic (Glorot and Bengio 2010).

    The order of the draws is scikit-learn's: layer by layer, the weights, then the biases.
    """
    factor = 2.0 if activation == "logistic" else 6.0
    coefs, intercepts = [], []
    for fan_in, fan_out in pairwise(layer_sizes):
        r = np.sqrt(factor / (fan_in + fan_out))
        coefs.append(rng.uniform(-r, r, (fan_in, fan_out)))
        intercepts.append(rng.uniform(-r, r, fan_out))
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


def backward(coefs: Layers, activations: Sequence[str], z: Layers, a: Layers, dz: Array) -> tuple[Layers, Layers]:
    """dW[l] = a[l]^T dz[l]; db[l] = column sums of dz[l]; dz[l-1] = (dz[l] W[l]^T) f'(z[l-1]); from the last dz."""
    dW: Layers = [np.empty(0)] * len(coefs)
    db: Layers = [np.empty(0)] * len(coefs)
    for layer in reversed(range(len(coefs))):
        dW[layer] = a[layer].T @ dz
        db[layer] = dz.sum(axis=0)
        if layer > 0:
            derivative = ACTIVATIONS[activations[layer - 1]][1]
            dz = (dz @ coefs[layer].T) * derivative(z[layer - 1], a[layer])
    return dW, db


def penalty(coefs: Layers, alpha: float, l1_ratio: float) -> float:
    """alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2); biases go unpenalised."""
    return alpha * sum(l1_ratio * np.abs(W).sum() + 0.5 * (1.0 - l1_ratio) * (W * W).sum() for W in coefs)


def penalty_gradient(W: Array, alpha: float, l1_ratio: float) -> Array:
    """alpha (l1_ratio sign(W) + (1 - l1_ratio) W); 0 at W = 0."""
    return alpha * (l1_ratio * np.sign(W) + (1.0 - l1_ratio) * W)


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
    """J = (sum_i s_i loss_i + penalty) / S with S = sum_i s_i, and dJ/dW, dJ/db. Without weights s_i = 1.

    That the penalty is divided by S is scikit-learn's rule. Where S = 0 there is nothing to learn: all zero.
    """
    output, value, derivative = LOSSES[loss]
    s = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    S = s.sum()
    if S == 0.0:
        return 0.0, [np.zeros_like(W) for W in coefs], [np.zeros_like(b) for b in intercepts]
    z, a = forward_layers(coefs, intercepts, activations, output, X)
    J = ((s * value(y, a[-1], eps)).sum() + penalty(coefs, alpha, l1_ratio)) / S
    dW, db = backward(coefs, activations, z, a, s[:, np.newaxis] * derivative(y, a[-1]))
    dW = [(g + penalty_gradient(W, alpha, l1_ratio)) / S for g, W in zip(dW, coefs, strict=True)]
    return float(J), dW, [g / S for g in db]


# --- Training ----------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """Parameters and the optimizer's memory: ``state[k]`` holds k arrays for each of ``coefs + intercepts``."""

    coefs: Layers
    intercepts: Layers
    state: list[State]


def new_model(coefs: Layers, intercepts: Layers, optimizer: str) -> Model:
    """A model before its first step: state of zeros."""
    n_state = OPTIMIZERS[optimizer][0]
    return Model(coefs, intercepts, [tuple(np.zeros_like(w) for _ in range(n_state)) for w in coefs + intercepts])


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
) -> tuple[float, Model]:
    """One batch: loss and gradient at the old parameters, then update number t (from 1) of all of them.

    A batch whose weights sum to 0 changes nothing and has loss 0.
    """
    batch_loss, dW, db = loss_gradient(
        model.coefs, model.intercepts, activations, loss, X, y, sample_weight, alpha, l1_ratio, eps
    )
    if sample_weight is not None and np.sum(sample_weight) == 0.0:
        return 0.0, model
    update = OPTIMIZERS[optimizer][1]
    parameters = model.coefs + model.intercepts
    new = [update(w, g, s, hyper, t) for w, g, s in zip(parameters, dW + db, model.state, strict=True)]
    n_layers = len(model.coefs)
    weights = [w for w, _ in new]
    return batch_loss, Model(weights[:n_layers], weights[n_layers:], [s for _, s in new])


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
) -> tuple[float, Model]:
    """One pass over the rows ``order`` (all, in order, if None), one step per batch.

    ``t`` counts the steps before this epoch; step k of the epoch is number t + k + 1 and takes
    ``learning_rates[k]``. Returns the mean of the batch losses weighted by the batches' numbers of ROWS, as
    scikit-learn reports it, and the new model.
    """
    rows = np.arange(len(X)) if order is None else order
    total = 0.0
    for k, batch in enumerate(batches(len(rows), batch_size)):
        i = rows[batch]
        batch_weight = None if sample_weight is None else sample_weight[i]
        rate = hyper._replace(learning_rate=float(learning_rates[k]))
        batch_loss, model = step(
            model, activations, loss, optimizer, X[i], y[i], batch_weight, rate, t + k + 1, alpha, l1_ratio, eps
        )
        total += batch_loss * len(i)
    return total / len(rows), model
