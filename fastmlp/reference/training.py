"""Networks and their training: initial values, random numbers by position, batch normalisation, gradients, steps,
epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from fastmlp.reference.functions import ACTIVATIONS, LOSSES, OUTPUTS, Array
from fastmlp.reference.updates import AVERAGES, FLUSH_INTERVAL, OPTIMIZERS, Hyper, State, flush_subnormals

Layers = list[np.ndarray]
Rng = np.random.RandomState | np.random.Generator
Rule = str | tuple[str, float] | Callable[[int, int, Any], np.ndarray]


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

    Q_k leaves the first k axes alone and turns the next one into x / |x|, x = m - k normal numbers: minus the sign of
    x_0 times the reflection that swaps the two, for that one axis. Then Q is evenly distributed (Stewart 1980).
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


def data_driven(x: Array, W: Array, rows: Array, shares: Array) -> tuple[Array, Array]:
    """W / std(x W) by columns, over the rows of x (B, I); and b = -sum_k shares[:, k] z[rows[:, k]], z = x W / std(x
    W).

    W (I, O) normal; rows, shares (O, 5), the shares of each unit adding up to 1 (Holzmüller, Grinsztajn and Steinwart
    2024).
    """
    W = W / (x @ W).std(axis=0)
    z = x @ W
    return W, -np.array([sum(shares[o, k] * z[rows[o, k], o] for k in range(rows.shape[1])) for o in range(W.shape[1])])


def output_function(name: str) -> Callable[[Array], Array]:
    """An output activation by name; a hidden activation may serve as one too."""
    return OUTPUTS[name] if name in OUTPUTS else ACTIVATIONS[name][0]


# --- Random numbers by position ------------------------------------------------------------------------------

# Streams: dropout on the input of layer l takes stream l; the noise and the mask of the input take these.
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
    four = philox(
        (group, column, np.full_like(group, stream), np.full_like(group, step)), (seed & 0xFFFFFFFF, seed >> 32)
    )
    return np.stack(four, axis=1).reshape(4 * len(group), columns)[:rows]


def keep(seed: int, stream: int, step: int, rows: int, columns: int, rate: float) -> Array:
    """Dropout's factors: 0 where word < rate 2^32, else 1 / (1 - rate)  (Srivastava et al. 2014, inverted)."""
    kept = words(seed, stream, step, rows, columns) >= np.uint64(rate * 2.0**32)
    return kept / (1.0 - rate)


def normals(seed: int, stream: int, step: int, rows: int, columns: int) -> Array:
    """sqrt(-2 log u0) cos(2 pi u1) and sin: rows 2k and 2k + 1 (Box and Muller 1958), u = (upper 23 bits + 1/2) /
    2^23."""
    u = (words(seed, stream, step, rows + rows % 2, columns) >> np.uint64(9)).astype(np.float64)
    u = (u + 0.5) / 2.0**23
    radius, angle = np.sqrt(-2.0 * np.log(u[0::2])), 2.0 * np.pi * u[1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(u.shape)[:rows]


# --- Batch normalisation -------------------------------------------------------------------------------------

NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1


def normalise(z: Array, scale: Array, b: Array) -> tuple[Array, Array, Array]:
    """u = scale xhat + b, xhat = (z - mean) / sqrt(variance + epsilon) over the batch (Ioffe and Szegedy 2015,
    algorithm 1).

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


def running(average: Array | float, value: Array, share: float = 1.0) -> Array:
    """A running average after one more batch, which counts less if it has only a ``share`` of a batch's rows.

    The last batch of an epoch may be one row, of variance 0: at full weight it would spoil the averages each time.
    """
    return average + NORM_MOMENTUM * share * (value - average)


def unbiased_variance(z: Array) -> Array:
    """Variance over the batch with n - 1; 0 for one row."""
    return z.var(axis=0) * (len(z) / max(len(z) - 1, 1))


# --- Models --------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """Parameters and optimizer state: ``state[k]`` holds the arrays of parameter k, in the order of ``parameters``.

    ``input_scale`` (I,), none or one, multiplies the input. ``scales``, ``means`` and ``variances`` hold one array per
    hidden layer with batch normalisation, else nothing; the layer's intercept is then its shift.
    """

    coefs: Layers
    intercepts: Layers
    state: list[State] = []
    scales: Layers = []
    means: Layers = []
    variances: Layers = []
    input_scale: Layers = []

    @property
    def parameters(self) -> Layers:
        """All learned arrays, in the order of ``state``."""
        return self.coefs + self.intercepts + self.scales + self.input_scale


Factors = tuple[float, float, float]


class Method(NamedTuple):
    """Options of a training run. Rates are one per layer; ``dropout[0]`` is the rate of the input.

    ``factors`` multiply learning rate, epsilon and weight decay, of each layer's weights, and of its biases and scales;
    ``input_scaling`` those of the input's scale.
    ``eps`` is the unit roundoff that losses clip by. ``first_row`` is the number of the batch's first row in the draws
    of dropout behind the first layer.
    """

    residual: bool = False
    dropout: tuple[float, ...] = ()
    layer_rates: tuple[float, ...] = ()
    max_grad_norm: float = 0.0
    loss_parameter: float = 1.0
    label_smoothing: float = 0.0
    input_noise: float = 0.0
    input_mask: float = 0.0
    seed: int = 0
    alpha: float = 0.0
    l1_ratio: float = 0.0
    eps: float = float(np.finfo(np.float64).eps)
    loss_reduction: str = "weighted_mean"
    first_row: int = 0
    factors: tuple[tuple[Factors, Factors], ...] = ()
    input_scaling: Factors = (1.0, 1.0, 1.0)


PLAIN = Method()


def new_model(
    coefs: Layers, intercepts: Layers, optimizer: str, batch_norm: bool = False, scales_input: bool = False
) -> Model:
    """A model before its first step: state of zeros; scales 1, running means 0 and variances 1."""
    scale = [np.ones(len(coefs[0]))] if scales_input else []
    hidden = intercepts[:-1] if batch_norm else []
    scales, means = [np.ones_like(b) for b in hidden], [np.zeros_like(b) for b in hidden]
    n_state = OPTIMIZERS[optimizer][0]
    state = [tuple(np.zeros_like(w) for _ in range(n_state)) for w in coefs + intercepts + scales + scale]
    return Model(coefs, intercepts, state, scales, means, [np.ones_like(b) for b in hidden], scale)


def adds_input(W: Array, layer: int, n_layers: int, residual: bool) -> bool:
    """A residual network's hidden layer adds its input to its output where the widths agree (He et al. 2016)."""
    return residual and layer < n_layers - 1 and W.shape[0] == W.shape[1]


def predict(model: Model, activations: Sequence[str], output: str, X: Array, residual: bool = False) -> Array:
    """The network's output (B, O): a[0] = X, times the input's scale; a[l+1] = f_l(a[l] W[l] + b[l]) (+ a[l]).

    Hidden layers with batch normalisation normalise a[l] W[l] by running averages.
    """
    a = X * model.input_scale[0] if model.input_scale else X
    for layer, (W, b) in enumerate(zip(model.coefs, model.intercepts, strict=True)):
        if layer < len(model.scales):
            u = normalise_fixed(a @ W, model.scales[layer], b, model.means[layer], model.variances[layer])
        else:
            u = a @ W + b
        y = output_function(output)(u) if layer == len(model.coefs) - 1 else ACTIVATIONS[activations[layer]][0](u)
        a = y + a if adds_input(W, layer, len(model.coefs), residual) else y
    return a


def penalty(coefs: Layers, method: Method) -> float:
    """alpha (l1_ratio sum |W| + (1 - l1_ratio) / 2 sum W^2); biases are not penalised."""
    l1, l2 = method.l1_ratio, 1.0 - method.l1_ratio
    return method.alpha * sum(l1 * np.abs(W).sum() + 0.5 * l2 * (W * W).sum() for W in coefs)


def penalty_gradient(W: Array, method: Method) -> Array:
    """alpha (l1_ratio sign(W) + (1 - l1_ratio) W); 0 at W = 0."""
    return method.alpha * (method.l1_ratio * np.sign(W) + (1.0 - method.l1_ratio) * W)


def augment(X: Array, method: Method, step: int) -> Array:
    """X + noise, then the mask, then dropout."""
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


def output_losses(y: Array, a: Array, loss: str, method: Method) -> Array:
    """Each output's part (B, O) of the loss of its row, which is the mean of its outputs' losses, or their sum."""
    output, value, _ = LOSSES[loss]
    columns = [value(y[:, o : o + 1], a[:, o : o + 1], method.eps, method.loss_parameter) for o in range(a.shape[1])]
    return np.stack(columns, axis=1) / (a.shape[1] if output == "identity" else 1)


class Gradients(NamedTuple):
    """The loss of a batch, its gradient in the order of ``Model.parameters``, and the statistics of its
    normalisations."""

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
    method: Method = PLAIN,
    step: int = 1,
    mix: float | None = None,
    share: float = 1.0,
) -> Gradients:
    """J = (sum_i s_i loss_i + penalty) / S, and its derivatives. Without weights s_i = 1.

    With weights s_io of outputs, a loss that is a sum or a mean over outputs takes s_io times that of output o, and s_i
    is the mean of s_io over the outputs. S = sum_i s_i, or with ``loss_reduction='mean'`` the number of rows. That the
    penalty is divided by S is scikit-learn's rule. With mixup (Zhang et al. 2018) row i of the batch becomes mix row_i
    + (1 - mix) row_{i+1}, its targets and its weight likewise, the first row following the last. Layers whose rate is 0
    pay no penalty and normalise by their running averages. ``share`` is the number of rows divided by ``batch_size``.
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
        left_out = (s == 0) | (np.roll(s, -1, axis=0) == 0) if s.ndim == 2 else None
        X, y, s = (mix * v + (1.0 - mix) * np.roll(v, -1, axis=0) for v in (X, y, s))
        s = s if left_out is None else np.where(left_out, 0.0, s)
    if s.ndim == 2:
        y = np.where(s == 0, 0.0, y)
    S = len(s) if method.loss_reduction == "mean" else s.sum() / (s.shape[1] if s.ndim == 2 else 1)

    # Forward. Backward needs most of it again, layer by layer.
    given = augment(X, method, step)
    x, u, y_of, xhats, slopes, keeps, means, variances = [given], [], [], {}, {}, {}, [], []
    if model.input_scale:
        x = [given * model.input_scale[0]]
    for layer, (W, b) in enumerate(zip(model.coefs, model.intercepts, strict=True)):
        z = x[-1] @ W
        if layer < len(model.scales):
            learns = rates[layer] > 0
            means.append(running(model.means[layer], z.mean(axis=0), share) if learns else model.means[layer])
            variance = unbiased_variance(z)
            variances.append(running(model.variances[layer], variance, share) if learns else model.variances[layer])
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
        layer_output = y_of[-1] + x[-1] if adds_input(W, layer, n_layers, method.residual) else y_of[-1]
        if method.dropout and method.dropout[layer + 1]:
            first, rate = method.first_row if layer else 0, method.dropout[layer + 1]
            keeps[layer] = keep(method.seed, layer + 1, step, first + len(z), W.shape[1], rate)[first:]
            layer_output = layer_output * keeps[layer]
        x.append(layer_output)
    a = output_function(output)(u[-1])
    learning = [W for W, rate in zip(model.coefs, rates, strict=True) if rate > 0]
    of_outputs = s.ndim == 2
    losses = output_losses(y, a, loss, method) if of_outputs else value(y, a, method.eps, method.loss_parameter)
    J = ((s * losses).sum() + penalty(learning, method)) / S

    # Backward: dx and d_output are the gradients of a layer's input and of its output before dropout.
    dx = d_output = np.empty(0)
    dz = (s if of_outputs else s[:, np.newaxis]) * derivative(y, a, method.loss_parameter)
    dW: Layers = [np.empty(0)] * n_layers
    db: Layers = [np.empty(0)] * n_layers
    d_scale: Layers = [np.empty(0)] * len(model.scales)
    for layer in reversed(range(n_layers)):
        W = model.coefs[layer]
        if layer < n_layers - 1:
            dz = dx * keeps[layer] if layer in keeps else dx
            d_output = dz
            dz = dz * ACTIVATIONS[activations[layer]][1](u[layer], y_of[layer])
        db[layer] = dz.sum(axis=0)
        if layer in xhats:
            dz, d_scale[layer], db[layer] = normalise_gradient(dz, xhats[layer], slopes[layer], model.scales[layer])
        elif layer < len(model.scales):
            d_scale[layer] = np.zeros_like(model.scales[layer])
            dz = dz * model.scales[layer] / np.sqrt(model.variances[layer] + NORM_EPSILON)
        dW[layer] = x[layer].T @ dz + penalty_gradient(W, method)
        dx = dz @ W.T
        if adds_input(W, layer, n_layers, method.residual):
            dx = dx + d_output
    d_input_scale = [(given * dx).sum(axis=0)] if model.input_scale else []
    return Gradients(float(J), [g / S for g in dW + db + d_scale + d_input_scale], means, variances)


# --- Training ----------------------------------------------------------------------------------------------


def clip(g: Layers, learns: Sequence[bool], max_norm: float) -> Layers:
    """g min(1, max_norm / |g|), |g| the Euclidean norm of all layers that learn (Pascanu, Mikolov, Bengio 2013); 0: as
    it is."""
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
    method: Method = PLAIN,
    mix: float | None = None,
    share: float = 1.0,
) -> tuple[float, Model]:
    """One batch: loss and gradient at the old parameters, then update number t (from 1) of all layers that learn.

    A batch whose weights sum to 0 changes nothing and has loss 0.
    """
    if sample_weight is not None and np.sum(sample_weight) == 0.0:
        return 0.0, model
    found = gradients(model, activations, loss, X, y, sample_weight, method, t, mix, share)
    n_layers, update = len(model.coefs), OPTIMIZERS[optimizer][1]
    rates = method.layer_rates or (1.0,) * n_layers
    factors = method.factors or (((1.0, 1.0, 1.0),) * 2,) * n_layers
    own = [weights for weights, _ in factors] + [others for _, others in factors]
    own += [others for _, others in factors[: len(model.scales)]] + [method.input_scaling] * len(model.input_scale)
    rates = (*rates, *rates, *rates[: len(model.scales)], *rates[: len(model.input_scale)])
    g = clip(found.parameters, [rate > 0 for rate in rates], method.max_grad_norm)
    new = []
    n_layered = 2 * n_layers + len(model.scales)
    for k, (w, state) in enumerate(zip(model.parameters, model.state, strict=True)):
        rate, epsilon, decay = own[k]
        decays = k < n_layers or k >= n_layered  # neither biases nor scales of batch normalisation
        tensor = hyper._replace(
            learning_rate=hyper.learning_rate * rates[k] * rate,
            epsilon=hyper.epsilon * epsilon,
            weight_decay=hyper.weight_decay * decay * decays,
        )
        if rates[k] > 0:
            w, state = update(w, g[k], state, tensor, t)
            if t % FLUSH_INTERVAL == 0 and optimizer in AVERAGES:
                state = flush_subnormals(state)
        new.append((w, state))
    parameters = [w for w, _ in new]
    return found.loss, Model(
        parameters[:n_layers],
        parameters[n_layers : 2 * n_layers],
        [state for _, state in new],
        parameters[2 * n_layers : n_layered],
        found.means,
        found.variances,
        parameters[n_layered:],
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
    method: Method = PLAIN,
    mix: Array | None = None,
    dropout_factors: Array | None = None,
    decay_factors: Array | None = None,
) -> tuple[float, Model]:
    """One pass over the rows ``order`` (all, in order, if None), one step per batch.

    ``t`` counts the steps before this epoch; step k of the epoch is number t + k + 1 and takes
    ``learning_rates[k]`` and ``mix[k]``, and ``dropout_factors[k]`` of the rates of dropout and ``decay_factors[k]`` of
    the weight decay. Returns the mean of the batch losses weighted by the batches' numbers of ROWS, as scikit-learn
    reports it, and the new model.
    """
    rows = np.arange(len(X)) if order is None else order
    total = 0.0
    for k, batch in enumerate(batches(len(rows), batch_size)):
        i = rows[batch]
        batch_weight = None if sample_weight is None else sample_weight[i]
        rate, own = hyper._replace(learning_rate=float(learning_rates[k])), method
        if decay_factors is not None:
            rate = rate._replace(weight_decay=hyper.weight_decay * float(decay_factors[k]))
        if dropout_factors is not None:
            own = method._replace(dropout=tuple(p * float(dropout_factors[k]) for p in method.dropout))
        mixed = None if mix is None else float(mix[k])
        batch_loss, model = step(
            model, activations, loss, optimizer, X[i], y[i], batch_weight, rate, t + k + 1, own, mixed,
            len(i) / batch_size
        )  # fmt: skip
        total += batch_loss * len(i)
    return total / len(rows), model
