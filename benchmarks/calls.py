"""The kernel call inside a case of fastmlp.check, on its own: to be timed, and to be set beside NumPy's way to the
result.

A case computes an operation both ways and compares; Recorder stands in for its Kernels and keeps the first call that
the case makes. That call is what a benchmark repeats, so no kernel is called here by hand and a new row of a .def file
is timed without a word. NumPy's side is reference.py, on the call's own arrays and in their element type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastmlp import core, reference
from fastmlp.core._testing import Kernels

Array = np.ndarray


@dataclass(frozen=True)
class Call:
    """A method of Kernels with its arguments; calling it runs the kernel again, on fresh outputs."""

    kernels: Kernels
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return getattr(self.kernels, self.method)(*self.args, **self.kwargs)

    def counterpart(self) -> Callable[[], Any]:
        """What NumPy does for the same result; what the kernel finds prepared is prepared here too."""
        return COUNTERPARTS[self.method](self.kernels.dtype, *self.args, **self.kwargs)

    @property
    def flops(self) -> int | None:
        """2 B I O where the call is a matrix product; None where memory or functions set the time."""
        if self.method in ("forward", "backward"):
            left, W = self.args[:2]
            return int(2 * left.shape[0] * W.size)
        if self.method == "update":
            _, x, dz = self.args[:3]
            return int(2 * x.size * dz.shape[1]) if len(x) > 1 else None  # one row: the update rule's own case
        return None


class Recorder:
    """Kernels whose first call is kept."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels
        self.recorded: Call | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.kernels, name)
        if not callable(value):
            return value

        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.recorded = self.recorded or Call(self.kernels, name, args, kwargs)
            return value(*args, **kwargs)

        return recorded


# ---- NumPy's side: method of Kernels -> closure over prepared arguments ----------------------------------------------


def math(dtype: str, name: str, x: Array, **_: Any) -> Callable[[], Any]:
    f = getattr(np, name, None) or getattr(reference, name)
    return lambda: f(x)


def activation(dtype: str, name: str, x: Array, **_: Any) -> Callable[[], Any]:
    f = reference.ACTIVATIONS[name][0]
    return lambda: f(x)


def derivative(dtype: str, name: str, d: Array, x: Array, **_: Any) -> Callable[[], Any]:
    f, slope = reference.ACTIVATIONS[name]
    y = f(x)
    return lambda: d * slope(x, y)


def output(dtype: str, name: str, z: Array) -> Callable[[], Any]:
    f = reference.OUTPUTS[name]
    return lambda: f(z)


def loss(
    dtype: str, name: str, z: Array, y: Array, weights: Array, order: Array, parameter: float = 1.0
) -> Callable[[], Any]:
    out, value, slope = reference.LOSSES[name]
    f, weights, eps = reference.OUTPUTS[out], weights.astype(dtype), float(np.finfo(dtype).eps)

    def both() -> tuple[Array, Array]:
        a, picked = f(z), y[order]
        return weights[order, np.newaxis] * slope(picked, a, parameter), value(picked, a, eps, parameter)

    return both


def gather(dtype: str, X: Any, order: Array) -> Callable[[], Any]:
    if isinstance(X, np.ndarray):
        return lambda: X[order].astype(dtype, copy=False)
    return lambda: X[order].astype(dtype, copy=False).toarray()


def forward(dtype: str, x: Array, W: Array, b: Array, name: str, **_: Any) -> Callable[[], Any]:
    return lambda: reference.predict(reference.Model([W], [b]), [], name, x)


def forward_csr(dtype: str, X: Any, order: Array, W: Array, b: Array, name: str, **_: Any) -> Callable[[], Any]:
    f = reference.ACTIVATIONS[name][0]
    return lambda: f(X[order] @ W + b)


def gradient_csr(dtype: str, X: Any, order: Array, dz: Array) -> Callable[[], Any]:
    return lambda: X[order].T @ dz


def encoded(dtype: str, X: core.Codes) -> Array:
    """The dense encoding of all rows."""
    nothing = np.zeros((len(X), 0), np.uint16)
    rows = [nothing if array is None else array for array in (X.bins, X.fractions, X.categories)]
    return reference.encode(*rows, X.layout.bin_counts, X.layout.category_counts).astype(dtype)


def sum_bins(dtype: str, W: Array, layout: core.CodeLayout) -> Callable[[], Any]:
    return lambda: reference.sum_bins(W, layout.bin_counts)


def forward_codes(
    dtype: str, X: core.Codes, order: Array, W: Array, b: Array, name: str, **_: Any
) -> Callable[[], Any]:
    x, f = encoded(dtype, X)[order], reference.ACTIVATIONS[name][0]
    return lambda: f(x @ W + b)


def gradient_codes(dtype: str, X: core.Codes, order: Array, dz: Array) -> Callable[[], Any]:
    x = encoded(dtype, X)[order]
    return lambda: x.T @ dz


def forward_members(dtype: str, x: Array, W: Array, b: Array, scalings: Array, name: str) -> Callable[[], Any]:
    f = reference.ACTIVATIONS[name][0]
    return lambda: f(reference.member_products(x, W, b, scalings))


def scaling_gradient(dtype: str, G: Array, W: Array, s: Array) -> Callable[[], Any]:
    scale = s[:, np.newaxis]
    return lambda: ((G * W).sum(axis=1), scale * G, scale * W)


def backward(dtype: str, dz: Array, W: Array, x: Array, name: str, **_: Any) -> Callable[[], Any]:
    f, slope = reference.ACTIVATIONS[name]
    y = f(x)
    return lambda: (dz @ W.T) * slope(x, y)


def update(
    dtype: str,
    name: str,
    x: Array,
    dz: Array,
    W: Array,
    b: Array,
    state_W: list[Array],
    state_b: list[Array],
    **options: Any,
) -> Callable[[], Any]:
    t, total = options.pop("t", 1), options.pop("weight_sum")
    l1, l2 = options.pop("l1", 0.0), options.pop("l2", 0.0)
    rule = reference.OPTIMIZERS[name][1]
    hyper = reference.Hyper(**{"learning_rate": 0.1, **options})

    def updated() -> tuple[Any, Any]:
        g = x.T @ dz
        if l1 or l2:
            g += reference.penalty_gradient(W, reference.Method(alpha=l1 + l2, l1_ratio=l1 / (l1 + l2)))
        return rule(W, g / total, tuple(state_W), hyper, t), rule(b, dz.sum(axis=0) / total, tuple(state_b), hyper, t)

    return updated


def layer_output(dtype: str, x: Array, W: Array, b: Array, name: str, **options: Any) -> Callable[[], Any]:
    f, rate, scale, shift = reference.ACTIVATIONS[name][0], options["rate"], options["scale"], options["shift"]

    def out() -> Array:
        y = f(x @ W * scale + shift if scale is not None else x @ W + b)
        y = y + x if options["residual"] else y
        draws = options["seed"], options["stream"], options["step"]
        return y * reference.keep(*draws, len(y), y.shape[1], rate).astype(dtype) if rate else y

    return out


def batch_norm(dtype: str, z: Array, scale: Array, b: Array, dy: Array, name: str) -> Callable[[], Any]:
    f, slope_of = reference.ACTIVATIONS[name]

    def both() -> tuple[Array, Any]:
        u, xhat, slope = reference.normalise(z, scale, b)
        y = f(u)
        return y, reference.normalise_gradient(dy * slope_of(u, y), xhat, slope, scale)

    return both


def augment(dtype: str, x: Array, partner: Array, **options: Any) -> Callable[[], Any]:
    method = reference.Method(
        dropout=(options["rate"],), input_noise=options["noise"], input_mask=options["mask"], seed=options["seed"]
    )
    mix = options["mix"]
    return lambda: reference.augment(mix * x + (1 - mix) * partner, method, options["step"])


COUNTERPARTS: dict[str, Callable[..., Callable[[], Any]]] = {
    f.__name__: f
    for f in (
        math,
        activation,
        derivative,
        output,
        loss,
        gather,
        forward,
        forward_csr,
        gradient_csr,
        sum_bins,
        forward_codes,
        gradient_codes,
        forward_members,
        scaling_gradient,
        backward,
        update,
        layer_output,
        batch_norm,
        augment,
    )
}
