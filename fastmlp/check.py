"""Every kernel of this machine against the reference: the cases of `python -m fastmlp check`, the tests and the
benchmarks.

The cases are made from the tables of the C code: a new row is checked without a change here. Each error has the unit
that suits the operation:

    ulp      units in the last place of the exact result, which is computed in extended precision
    n eps    the rounding of a sum of n products: n eps |A| |B| (Higham 2002, section 3.1), or of n operations on
             numbers of that size
    exact    0: data is moved only
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fastmlp.core as core
from fastmlp import reference
from fastmlp.core._testing import MATH, Kernels

Array = np.ndarray
Shape = tuple[int, int, int]  # (B, I, O)

# Largest errors in ulps that vmath.h documents, rounded up.
ULPS = {"exp": 2.0, "log": 2.0, "tanh": 2.0, "logistic": 4.0, "expm1": 2.0, "log1p": 2.0}
# An activation combines a few such functions and roundings.
ACTIVATION_ULPS = 8.0


class Outcome(NamedTuple):
    """Result of a case: the largest error, its bound, and their unit."""

    error: float
    bound: float
    unit: str

    @property
    def passed(self) -> bool:
        return self.error <= self.bound


class Case(NamedTuple):
    """An operation; run(kernels, (B, I, O), draws) compares the kernel with the reference."""

    operation: str
    run: Callable[[Kernels, Shape, np.random.RandomState], Outcome]


def largest(error: Array | float, unit: Array | float) -> float:
    """max |error| / unit; 0 for empty arrays, infinity for a NaN."""
    ratio = np.abs(np.asarray(error, dtype=np.float64)) / np.maximum(
        np.asarray(unit, dtype=np.float64), np.finfo(np.float64).tiny
    )
    return float(np.max(np.where(np.isnan(ratio), np.inf, ratio), initial=0.0))


def in_ulps(got: Array, want: Array, floor: float = 0.0) -> float:
    """Largest difference in ulps of the exact values `want` (extended precision), or of `floor` if that is larger."""
    with np.errstate(over="ignore"):
        rounded = want.astype(got.dtype)
    finite = np.isfinite(rounded) | ~np.isinf(got)  # where the exact value overflows, infinity is correct
    spacing = np.spacing(np.maximum(np.abs(rounded[finite]), got.dtype.type(floor))).astype(np.float64)
    return largest(got[finite].astype(want.dtype) - want[finite], spacing)


def numbers(K: Kernels, draws: np.random.RandomState, *shape: int) -> Array:
    """Normal numbers in the kernel's element type."""
    x = draws.standard_normal(shape).astype(K.dtype)
    assert x.size < 2 or np.ptp(x) > 0
    return x


def spread(K: Kernels, draws: np.random.RandomState, n: int) -> Array:
    """Numbers in every range that the functions distinguish: tiny, around the changes of formula, large."""
    scale = np.array([1e-20, 1e-3, 0.5, 1.0, 5.0, 30.0, 90.0])
    x: Array = (draws.standard_normal(n) * scale[np.arange(n) % len(scale)]).astype(K.dtype)
    return x


def exactly(got: Array, want: Array) -> float:
    """The error of a result that must have the same bits."""
    return 0.0 if np.array_equal(got, want) else np.inf


def eps_of(K: Kernels) -> float:
    return float(np.finfo(K.dtype).eps)


# ---- Functions of single numbers -------------------------------------------------------------------------------------


EXACT: dict[str, Callable[[Array], Array]] = {name: getattr(np, name, reference.logistic) for name in MATH}
# Functions with a smaller domain: maps of any number into it.
DOMAINS: dict[str, Callable[[Array], Array]] = {
    "log": lambda x: np.abs(x) + np.finfo(x.dtype).tiny,
    "expm1": lambda x: -np.abs(x),
    "log1p": lambda x: np.exp(-np.abs(x)),
}


def check_math(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    exact = EXACT[name]
    x = spread(K, draws, shape[0] * shape[1])
    x = DOMAINS[name](x) if name in DOMAINS else x
    with np.errstate(over="ignore", under="ignore"):
        return Outcome(in_ulps(K.math(name, x, offset=K.offset), exact(x.astype(np.longdouble))), ULPS[name], "ulp")


def check_activation(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    x = spread(K, draws, shape[0] * shape[1])
    exact = np.asarray(reference.ACTIVATIONS[name][0](x.astype(np.longdouble)))
    floor = 1e3 * float(np.finfo(K.dtype).tiny)  # an intermediate result, as in x logistic(x), may be subnormal
    return Outcome(in_ulps(K.activation(name, x, offset=K.offset), exact, floor), ACTIVATION_ULPS, "ulp")


def check_derivative(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    x, d = spread(K, draws, shape[0] * shape[1]), numbers(K, draws, shape[0] * shape[1])
    f, slope = reference.ACTIVATIONS[name]
    wide = x.astype(np.longdouble)
    want = d * slope(wide, f(wide))
    error = largest(K.derivative(name, d, x, offset=K.offset) - want, eps_of(K) * np.abs(d))
    return Outcome(error, ACTIVATION_ULPS, "n eps")


def check_output(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    z = 4 * numbers(K, draws, shape[0], max(shape[2], 1))
    want = reference.OUTPUTS[name](z.astype(np.longdouble))
    # softmax: exp turns the rounding of z - max into a relative error, then a row is summed
    bound = ACTIVATION_ULPS + 2 * float(np.abs(z).max(initial=0)) + z.shape[1]
    floor = 1e3 * float(np.finfo(K.dtype).tiny) if name.startswith("log_") else 0.0  # the logarithm of 1 - 1e-60
    return Outcome(in_ulps(K.output(name, z), want, floor), bound, "ulp")


def targets_for(loss: str, shape: tuple[int, int], draws: np.random.RandomState) -> Array:
    """Targets that the loss accepts: class indices, zeros and ones, counts, or numbers."""
    output = core.LOSSES[loss]
    if output == "softmax":
        return draws.randint(shape[1], size=shape[0])
    if output == "logistic":
        return draws.randint(2, size=shape).astype(np.float64)
    return draws.poisson(1.5, size=shape).astype(np.float64) if output == "exp" else draws.standard_normal(shape)


def check_loss(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    rows, outputs = shape[0], max(shape[2], 1)
    z, weights = numbers(K, draws, rows, outputs), draws.uniform(0, 2, rows + 3)
    order, partner = draws.permutation(rows + 3)[:rows], draws.randint(rows + 3, size=rows)
    y = targets_for(name, (rows + 3, outputs), draws)
    y = y if y.ndim == 1 else y.astype(K.dtype)
    k, mix, smoothing = 0.7, 0.6, 0.1
    output, value_of, slope = reference.LOSSES[name]
    a, wide = reference.OUTPUTS[output](z.astype(np.float64)), y if y.ndim == 1 else y.astype(np.float64)
    # The clipped probability 1 - p of a confident prediction has error eps, so its logarithm has eps / (1 - p).
    largest_y = np.abs(wide).max(initial=0) * (outputs if y.ndim == 2 else 1)
    unit = 4.0 * (outputs + 4) * eps_of(K) * (np.exp(np.abs(z).max(axis=1, initial=1.0)) + largest_y)
    dz, value, plain = K.loss(name, z, y, weights, order, parameter=k)
    errors = [
        largest(value - value_of(wide[order], a, eps_of(K), k), unit),
        largest(dz - weights[order, np.newaxis] * slope(wide[order], a, k), unit[:, np.newaxis]),
        largest(plain - value_of(wide[:rows], a, eps_of(K), k), unit),
    ]
    smoothing = smoothing if output in ("softmax", "logistic") else 0.0
    soft = reference.soft_targets(wide, outputs, smoothing) if smoothing else wide
    soft = mix * soft[order] + (1 - mix) * soft[partner]
    total = mix * weights[order] + (1 - mix) * weights[partner]
    dz, value, _ = K.loss(name, z, y, weights, order, parameter=k, smoothing=smoothing, partner=partner, mix=mix)
    away = np.abs(a - soft) > 8 * eps_of(K) * (1 + np.abs(soft))  # from a kink, where rounding decides the slope
    errors.append(largest(value - value_of(soft, a, eps_of(K), k), unit))
    errors.append(largest(np.where(away, dz - total[:, np.newaxis] * slope(soft, a, k), 0), unit[:, np.newaxis]))
    if y.ndim == 2:
        wide[draws.uniform(size=wide.shape) < 0.3] = np.nan
        each = np.where(np.isnan(wide), 0, draws.uniform(0.1, 2, wide.shape))
        dz, value, plain = K.loss(name, z, wide.astype(K.dtype), each, order, parameter=k)
        method = reference.Method(loss_parameter=k, eps=eps_of(K))
        known = np.nan_to_num(wide)
        want = each[order] * slope(known[order], a, k)
        errors.append(largest(dz - want, unit[:, np.newaxis]))
        for got, at in ((value, order), (plain, np.arange(rows))):
            want = (each[at] * reference.output_losses(known[at], a, name, method)).sum(axis=1)
            errors.append(largest(got - want, unit))
    return Outcome(max(errors), 1.0, "n eps")


# ---- Layers ----------------------------------------------------------------------------------------------------------


def of_either_index(X: Any, draws: np.random.RandomState) -> Any:
    """CSR X with indices of 32 or of 64 bits."""
    index = draws.choice(["int32", "int64"])
    X.indices, X.indptr = X.indices.astype(index), X.indptr.astype(index)
    return X


def check_gather(source: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    rows, columns = shape[0], max(shape[1], 1)
    kind, layout = source.split()
    across, down = draws.randint(1, 4), draws.choice([-3, -1, 1, 2])
    X = draws.standard_normal(((rows + 2) * abs(down), columns * across)).astype(kind)
    X = X[::down, ::across] if layout == "strided" else X[: rows + 2, :columns]
    X = np.asfortranarray(X) if layout == "F" else X
    order = draws.randint(rows + 2, size=rows)
    if layout == "CSR":
        from scipy.sparse import csr_array

        X = np.where(X > 0, X, 0)
        got = K.gather(of_either_index(csr_array(X), draws), order)
    else:
        got = K.gather(X, order)
    return Outcome(largest(got - X[order].astype(K.dtype), 1.0), 0.0, "exact")


def product_error(K: Kernels, got: Array, want: Array, A: Array, B: Array, slope: Array | float = 1.0) -> float:
    """Error in units of (n + 2) eps |A| |B|, n the number of products in a sum."""
    bound = (A.shape[1] + 2) * eps_of(K) * (np.abs(A).astype(np.float64) @ np.abs(B).astype(np.float64) + 1e-30)
    return largest(got - want, bound * slope)


def check_forward(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = shape
    x, W, b = numbers(K, draws, B, I), numbers(K, draws, I, O), numbers(K, draws, O)
    augmented, Wb = np.hstack([x, np.ones((B, 1))]), np.vstack([W, b])
    y, z = K.forward(x, W, b, name, first=K.first)
    wide = z.astype(np.float64)
    errors = [
        product_error(K, z, augmented @ Wb.astype(np.float64), augmented, Wb),
        largest(y - reference.ACTIVATIONS[name][0](wide), ACTIVATION_ULPS * eps_of(K) * (1 + np.abs(wide))),
    ]
    for r in range(min(B, 2)):  # a single row has the same bits
        errors.append(exactly(K.forward_row(x[r], W, b, name, offset=K.offset), y[r]))
    errors.append(exactly(K.forward_unpacked(x, W, b, name), y))
    return Outcome(max(errors), 1.0, "n eps")


def sparse_rows(K: Kernels, draws: np.random.RandomState, rows: int, columns: int) -> tuple[Any, Array, Array]:
    """(canonical CSR matrix, an order of its rows with repetitions, those rows as a dense array); some rows are
    empty."""
    from scipy.sparse import csr_array

    X = np.where(draws.uniform(size=(rows + 2, columns)) < draws.choice([0, 0.1, 0.5], size=(rows + 2, 1)), 1.0, 0.0)
    X *= numbers(K, draws, rows + 2, columns)
    order = draws.randint(rows + 2, size=rows)
    return of_either_index(csr_array(X.astype(K.dtype)), draws), order, X.astype(K.dtype)[order]


def check_forward_csr(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = shape[0], max(shape[1], 1), shape[2]
    X, order, x = sparse_rows(K, draws, B, I)
    W, b = numbers(K, draws, I, O), numbers(K, draws, O)
    y = K.forward_csr(X, order, W, b, "relu", first=K.first)
    augmented, Wb = np.hstack([x, np.ones((B, 1))]), np.vstack([W, b])
    error = product_error(K, y, np.maximum(augmented @ Wb.astype(np.float64), 0), augmented, Wb)
    same = exactly(y, K.forward(x, W, b, "relu")[0])  # skipping zeros does not change the bits
    unpacked = exactly(
        K.forward_csr_unpacked(X, 1, B, W, b, "relu"), K.forward_csr(X, np.arange(1, B + 1), W, b, "relu")
    )
    return Outcome(max(error, same, unpacked), 1.0, "n eps")


def check_gradient_csr(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = max(shape[0], 1), max(shape[1], 1), shape[2]
    X, order, x = sparse_rows(K, draws, B, I)
    dz = numbers(K, draws, B, O)
    got = K.gradient_csr(X, order, dz)
    zeros = np.zeros((I, O)), np.zeros(O), [np.zeros((I, O))], [np.zeros(O)]
    same = exactly(got, K.update("gradient", x, dz, *zeros)[2][0])
    error = product_error(K, got, x.T.astype(np.float64) @ dz.astype(np.float64), x.T, dz)
    return Outcome(max(error, same), 1.0, "n eps")


def coded_rows(draws: np.random.RandomState, rows: int, width: int, exact: bool) -> tuple[core.Codes, Array, Array]:
    """(codes of this width, an order of their rows with repetitions, those rows' encoding); some numbers and categories
    are missing.

    exact: fractions are multiples of 1/8.
    """
    n, numbers, categories, left = rows + 2, [], [], width
    while left > width // 2 and left >= 2:
        numbers.append(int(draws.randint(1, min(left, 70))))
        left -= numbers[-1] + 1
    while left:
        categories.append(int(draws.randint(1, min(left, 300) + 1)))
        left -= categories[-1]
    bins = draws.randint(np.array([[m + 1 for m in numbers]] * n, int).reshape(n, -1)).astype(np.uint16)
    codes = draws.randint(np.array([[c + 1 for c in categories]] * n, int).reshape(n, -1))
    codes = codes.astype(draws.choice(["uint16", "uint32"]))
    fractions = np.where(bins == np.array(numbers), 1, draws.uniform(-0.5, 1.5, bins.shape))
    fractions = (np.round(8 * fractions) / 8 if exact else fractions).astype(np.float32)
    arrays = bins if numbers else None, fractions if numbers else None, codes if categories else None
    X, order = core.Codes(core.CodeLayout(numbers, categories), *arrays), draws.randint(n, size=rows)
    return X, order, reference.encode(bins, fractions, codes, numbers, categories)[order]


def given(X: core.Codes, order: Array) -> tuple[Any, ...]:
    """The rows of codes as the reference takes them."""
    nothing = np.zeros((len(order), 0), np.uint16)
    rows = [nothing if array is None else array[order] for array in (X.bins, X.fractions, X.categories)]
    return (*rows, X.layout.bin_counts, X.layout.category_counts)


def exact_numbers(draws: np.random.RandomState, *shape: int) -> Array:
    """Numbers with so few digits that their products and sums are exact in any order."""
    return draws.randint(-4, 5, size=shape) / 4.0


def check_bin_sums(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    X, _, _ = coded_rows(draws, shape[0], max(shape[1], 1), exact=False)
    W = numbers(K, draws, X.layout.width, shape[2])
    packed, plain = K.sum_bins(W, X.layout)
    want, size = (reference.sum_bins(w.astype(np.float64), X.layout.bin_counts) for w in (W, np.abs(W)))
    error = largest(packed - want, eps_of(K) * (size * max(X.layout.bin_counts, default=1) + 1e-30))
    return Outcome(max(error, exactly(packed, plain)), 1.0, "n eps")


def check_forward_codes(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = shape[0], max(shape[1], 1), shape[2]
    X, order, x = coded_rows(draws, B, I, exact=False)
    W, b = numbers(K, draws, I, O), numbers(K, draws, O)
    y = K.forward_codes(X, order, W, b, "relu", first=K.first)
    augmented, Wb = np.hstack([x, np.ones((B, 1))]), np.vstack([W, b])
    want = reference.code_product(W.astype(np.float64), b, *given(X, order))
    errors = [product_error(K, y, np.maximum(z, 0), augmented, Wb) for z in (want, augmented @ Wb.astype(np.float64))]
    some = K.forward_codes(X, np.arange(1, B + 1), W, b, "relu")
    sums = K.sum_bins(W, X.layout)[1]
    errors += [exactly(K.forward_codes_unpacked(X, 1, B, W, b, "relu", C), some) for C in (None, sums)]
    X, order, x = coded_rows(draws, B, I, exact=True)
    W, b = exact_numbers(draws, I, O).astype(K.dtype), exact_numbers(draws, O).astype(K.dtype)
    errors.append(exactly(K.forward_codes(X, order, W, b, "relu"), K.forward(x, W, b, "relu")[0]))
    return Outcome(max(errors), 1.0, "n eps")


def check_embedding(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    """The embedding of codes, packed and not, and its gradient."""
    B, I, d = max(shape[0], 1), max(shape[1], 1), 16 * (1 + shape[2] % 3)
    X, order, x = coded_rows(draws, B, I, exact=False)
    counts = X.layout.bin_counts, X.layout.category_counts
    W, b = numbers(K, draws, I, d), numbers(K, draws, sum(map(len, counts)) * d)
    dense = reference.dense_embedding(W.astype(np.float64), *counts)
    augmented, Wb = np.hstack([x, np.ones((B, 1))]), np.vstack([dense, b])
    y = K.forward_codes(X, order, W, b, "relu", first=K.first)
    errors = [product_error(K, y, np.maximum(augmented @ Wb, 0), augmented, Wb)]
    some = K.forward_codes(X, np.arange(1, B + 1), W, b, "relu")
    sums = K.sum_bins(W, X.layout)[1]
    errors += [exactly(K.forward_codes_unpacked(X, 1, B, W, b, "relu", C), some) for C in (None, sums)]
    dz = numbers(K, draws, B, len(b))
    blocks = [dz[:, at : at + d] for at in range(0, len(b), d)]
    want = reference.embedding_gradient(x.T @ dz.astype(np.float64), d, *counts)
    size = np.abs(x.T) @ np.max(np.abs(blocks), axis=0)
    errors.append(largest(K.gradient_codes(X, order, dz, d) - want, eps_of(K) * ((B + 2) * size + 1e-30)))
    return Outcome(max(errors), 1.0, "n eps")


def check_members(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    """The product that members share, of many rows and of one; the sums of their dz, and the gradients from these."""
    B, d, O = max(shape[0], 1), 16 * (1 + shape[1] % 3), max(shape[2], 1)
    F, k = 1 + shape[1] % 7, 1 + shape[0] % 7
    x, W, b = numbers(K, draws, B, F * d), numbers(K, draws, F * d, O), numbers(K, draws, O)
    s = numbers(K, draws, k, F)[:, draws.randint(F, size=F)]
    wide, size = s.astype(np.float64), np.abs(s).astype(np.float64)
    y = K.forward_members(x, W, b, s, "relu")
    pattern, grouped = K.group_features(s)
    errors = [exactly(pattern, reference.patterns(s)), exactly(grouped[:, pattern], s)]
    terms, unit = F * d + k + F + 3, eps_of(K)
    want = reference.member_products(x.astype(np.float64), W.astype(np.float64), b, wide)
    sizes = reference.member_products(np.abs(x).astype(np.float64), np.abs(W).astype(np.float64), np.abs(b), size)
    errors.append(largest(y - np.maximum(want, 0), terms * unit * (sizes + 1e-30)))
    errors.append(exactly(K.forward_row_members(x[-1], W, b, s, "relu"), y[:, -1]))
    dz = numbers(K, draws, k, B, O)
    sums, dW, dx = K.backward_members(dz, W, x, s, "relu")
    wanted, bounds = reference.sum_members(dz.astype(np.float64), wide), reference.sum_members(np.abs(dz), size)
    errors.append(largest(sums[pattern] - wanted, terms * unit * (bounds + 1e-30)))
    for f in range(F):
        own = slice(f * d, (f + 1) * d)
        relu, slope = np.maximum(x[:, own], 0).astype(np.float64), (x[:, own] > 0).astype(np.float64)
        weights = W[own].T.astype(np.float64)
        bound = (B + terms) * unit * (relu.T @ bounds[f] + 1e-30)
        errors.append(largest(dW[own] - relu.T @ wanted[f], bound))
        bound = (O + terms) * unit * (bounds[f] @ np.abs(weights) + 1e-30)
        errors.append(largest(dx[:, own] - slope * (wanted[f] @ weights), bound))
    return Outcome(max(errors), 1.0, "n eps")


def check_input_scaling(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    """The gradients of s and W from that of diag(s) W, and the product."""
    I, O = max(shape[1], 1), max(shape[2], 1)
    G, W, s = numbers(K, draws, I, O), numbers(K, draws, I, O), numbers(K, draws, I)
    ds, dW, V = K.scaling_gradient(G, W, s)
    terms = G.astype(np.float64) * W
    error = largest(ds - terms.sum(axis=1), eps_of(K) * ((O + 1) * np.abs(terms).sum(axis=1) + 1e-30))
    scale = s[:, np.newaxis]
    return Outcome(max(error, exactly(dW, scale * G), exactly(V, scale * W)), 1.0, "n eps")


def check_gradient_codes(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = max(shape[0], 1), max(shape[1], 1), shape[2]
    X, order, x = coded_rows(draws, B, I, exact=False)
    dz = numbers(K, draws, B, O)
    got, wide = K.gradient_codes(X, order, dz), dz.astype(np.float64)
    want = reference.code_gradient(wide, *given(X, order))
    errors = [product_error(K, got, dW, x.T, dz) for dW in (want, x.T @ wide)]
    X, order, x = coded_rows(draws, B, I, exact=True)
    dz = exact_numbers(draws, B, O).astype(K.dtype)
    zeros = np.zeros((I, O)), np.zeros(O), [np.zeros((I, O))], [np.zeros(O)]
    errors.append(exactly(K.gradient_codes(X, order, dz), K.update("gradient", x, dz, *zeros)[2][0]))
    return Outcome(max(errors), 1.0, "n eps")


def check_backward(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = shape
    dz, W, x = numbers(K, draws, B, O), numbers(K, draws, I, O), numbers(K, draws, B, I)
    f, slope = reference.ACTIVATIONS[name]
    wide = x.astype(np.float64)
    want = (dz.astype(np.float64) @ W.astype(np.float64).T) * slope(wide, f(wide))
    got = K.backward(dz, W, x, name, first=K.first)
    return Outcome(product_error(K, got, want, dz, W.T, ACTIVATION_ULPS), 1.0, "n eps")


def check_gradient(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, O = max(shape[0], 1), shape[1], shape[2]
    x, dz, W, b = numbers(K, draws, B, I), numbers(K, draws, B, O), numbers(K, draws, I, O), numbers(K, draws, O)
    zeros = [np.zeros((I, O))], [np.zeros(O)]
    l1, l2, total = 0.3, 0.2, 7.0
    kept, _, dW, db, paid = K.update("gradient", x, dz, W, b, *zeros, weight_sum=total, l1=l1, l2=l2)
    again = K.update("gradient", x, dz, W, b, *zeros, weight_sum=total, l1=l1, l2=l2, micro_batches=3)
    wide = W.astype(np.float64)
    want = (x.T.astype(np.float64) @ dz.astype(np.float64) + l1 * np.sign(wide) + l2 * wide) / total
    penalty = l1 * np.abs(wide) + 0.5 * l2 * wide**2
    left = np.hstack([x.T, np.ones((I, 2))])
    right = np.vstack([dz, np.full((2, O), l1 + l2 * np.abs(wide).max(initial=0))])
    want_db = dz.sum(axis=0, dtype=np.float64, keepdims=True) / total
    errors = [
        product_error(K, dW[0], want, left / total, right),
        product_error(K, db[0][np.newaxis], want_db, np.full((1, B), 1 / total), dz),
        largest(paid - penalty.sum(axis=0), (I + 2) * eps_of(K) * penalty.sum(axis=0)),
        exactly(kept, W),
        exactly(again[2][0], dW[0]),
        exactly(again[3][0], db[0]),
    ]
    return Outcome(max(errors), 1.0, "n eps")


def check_optimizer(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    _, I, O = shape  # one row: each gradient is a single product, so the error is the update rule's own
    x, dz, W, b = numbers(K, draws, 1, I), numbers(K, draws, 1, O), numbers(K, draws, I, O), numbers(K, draws, O)
    n_state, rule = reference.OPTIMIZERS[name]
    state_W = [np.abs(numbers(K, draws, I, O)) for _ in range(n_state)]
    state_b = [np.abs(numbers(K, draws, O)) for _ in range(n_state)]
    t = 3
    hyper = reference.Hyper(0.05, momentum=0.8, beta_1=0.85, beta_2=0.95, epsilon=1e-3, rho=0.7, weight_decay=0.3)
    options = {**hyper._asdict(), "t": t, "weight_sum": 2.0}
    new_W, new_b, new_sW, new_sb, _ = K.update(name, x, dz, W, b, state_W, state_b, **options)
    wide = [a.astype(np.float64) for a in (x, dz, W, b)]
    of_bias = hyper._replace(weight_decay=0.0)
    parts = [
        (wide[2], wide[0].T @ wide[1] / 2, state_W, hyper, new_W, new_sW),
        (wide[3], wide[1][0] / 2, state_b, of_bias, new_b, new_sb),
    ]
    errors = []
    for w, g, state, of_part, new_w, new_state in parts:
        old_state = tuple(s.astype(np.float64) for s in state)
        want_w, want_state = rule(w, g, old_state, of_part, t)
        # A step is a sum of gradients, which may cancel: its rounding error scales with its terms. The state is
        # positive, so with one of the two signs of g no terms cancel.
        step = sum(np.abs(rule(np.zeros_like(w), sign * np.abs(g), old_state, of_part, t)[0]) for sign in (1, -1))
        errors.append(largest(new_w - want_w, eps_of(K) * (np.abs(w) + np.abs(want_w) + step)))
        for got, want, old in zip(new_state, want_state, old_state, strict=True):
            errors.append(largest(got - want, eps_of(K) * (np.abs(old) + np.abs(want))))
    return Outcome(max(errors), 16.0, "n eps")


# ---- Options of training ---------------------------------------------------------------------------------------------

SEED = 0x9E3779B97F4A7C15


def check_layer_output(kind: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    """Residual connections, dropout, normalisation by running averages: in each of the three kernels that compute a
    layer."""
    residual, rate, affine = "residual" in kind, 0.4 * ("dropout" in kind), "affine" in kind
    B, I, O = shape[0], shape[1], shape[1] if residual else shape[2]
    x, W, b = numbers(K, draws, B, I), numbers(K, draws, I, O), numbers(K, draws, O)
    scale, shift = (numbers(K, draws, O), numbers(K, draws, O)) if affine else (np.ones(O), b)
    options: dict[str, Any] = {
        "residual": residual,
        "scale": scale if affine else None,
        "shift": shift if affine else None,
    }
    dropout = {"rate": rate, "seed": SEED, "stream": 3, "step": 7, "row": 5}
    got, keep = K.layer_output(x, W, b, "tanh", first=K.first, **dropout, **options)
    few = K.forward_unpacked(x, W, b, "tanh", **options)
    wide, left, right = x.astype(np.float64), np.hstack([x, np.ones((B, 2))]), np.vstack([W, b, np.ones(O)])
    want = np.tanh((wide @ W.astype(np.float64)) * scale + shift) + (wide if residual else 0)
    row = 5 + K.first
    factors = reference.keep(SEED, 3, 7, row + B, O, rate)[row:] if rate else np.ones((B, O))
    errors = [
        product_error(K, few, want, left, right, 1 + np.abs(scale) + np.abs(shift)),
        largest(got - few * factors, eps_of(K) * 4 * np.abs(few)),
        *(exactly(K.forward_row(x[r], W, b, "tanh", **options), few[r]) for r in range(B)),
        0.0 if keep is None else exactly(keep > 0, factors > 0),
    ]
    return Outcome(max(errors), 1.0, "n eps")


def check_normalised(name: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, O = max(shape[0], 1), shape[2]
    z, scale, b, dy = numbers(K, draws, B, O), numbers(K, draws, O), numbers(K, draws, O), numbers(K, draws, B, O)
    y, mean, variance, dz, d_scale, d_b = K.batch_norm(z, scale, b, dy, name)
    wide = [v.astype(np.float64) for v in (z, scale, b, dy)]
    u, xhat, slope = reference.normalise(*wide[:3])
    f, derivative = reference.ACTIVATIONS[name]
    du = wide[3] * derivative(u, f(u))
    want_dz, want_scale, want_b = reference.normalise_gradient(du, xhat, slope, wide[1])
    # An error in z's mean or variance affects every row; with one or two rows, 1 / sqrt(variance) may reach 300.
    size = (1 + slope) * (1 + np.abs(scale) + np.abs(b)) * (1 + np.abs(xhat).max(axis=0, initial=0)) ** 2
    unit = 0.1 * (B + 8) * eps_of(K) * size
    reach = 1 + np.abs(dy).sum(axis=0)
    errors = [
        largest(y - f(u), unit),
        largest(mean - reference.running(0.0, wide[0].mean(axis=0)), unit),
        largest(variance - reference.running(1.0, reference.unbiased_variance(wide[0])), unit),
        largest(d_scale - want_scale, unit * reach),
        largest(d_b - want_b, unit * reach),
        largest(dz - want_dz, unit * reach * (1 + slope) * (1 + np.abs(scale))),
    ]
    return Outcome(max(errors), 1.0, "n eps")


def check_augment(K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    B, I, row = shape[0], shape[1], 3
    x, partner = numbers(K, draws, B, I), numbers(K, draws, B, I)
    how = {"noise": 0.5, "mask": 0.2, "rate": 0.3}
    got = K.augment(x, partner, mix=0.7, **how, seed=SEED, step=9, row=row)
    method = reference.Method(dropout=(how["rate"],), input_noise=how["noise"], input_mask=how["mask"], seed=SEED)
    mixed = 0.7 * x.astype(np.float64) + 0.3 * partner.astype(np.float64)
    want = reference.augment(np.vstack([np.zeros((row, I)), mixed]), method, 9)[row:]
    size = (np.abs(mixed) + 6.0) / (1 - how["rate"])
    error = max(largest(got - want, eps_of(K) * size), exactly(got == 0, want == 0))
    return Outcome(error, ACTIVATION_ULPS, "n eps")


def check_training(loss: str, optimizer: str, K: Kernels, shape: Shape, draws: np.random.RandomState) -> Outcome:
    """Three steps of a small network: all kernels together, with the instruction set that was chosen at import."""
    rows, sizes = 50, (11, 17, 9, 5)
    hidden = [core.ACTIVATIONS[i % len(core.ACTIVATIONS)] for i in (2, 1)]
    X, weights = draws.standard_normal((rows, sizes[0])), draws.uniform(0.5, 2, rows)
    y = targets_for(loss, (rows, sizes[-1]), draws)
    coefs, intercepts = reference.initialise(sizes, "relu", draws)
    plan = core.Plan(sizes, hidden, core.LOSSES[loss], "float64")
    trainer = core.Trainer(plan, loss, optimizer, 19, 2)
    method = reference.Method(alpha=0.1, l1_ratio=0.3)
    flat = np.concatenate([w.ravel() for w in coefs + intercepts])
    trainer.load(flat)
    order, rates = draws.permutation(rows), np.full(3, 0.01)
    got = trainer.epoch(X, y, weights, order, rates, 0, alpha=0.1, l1_ratio=0.3, weight_decay=0.7)
    trainer.store(flat)
    model = reference.new_model(coefs, intercepts, optimizer)
    hyper = reference.Hyper(0.01, weight_decay=0.7)
    want, model = reference.epoch(model, hidden, loss, optimizer, 19, X, y, weights, order, rates, 0, hyper, method)
    want_flat = np.concatenate([w.ravel() for w in model.coefs + model.intercepts])
    error = max(largest(flat - want_flat, eps_of(K)), largest(got - want, abs(want) * eps_of(K)))
    return Outcome(error, 1e4, "n eps")


def cases() -> Iterator[Case]:
    """One case per name in the C tables and per way of moving data."""
    sources = [f"{kind} {layout}" for kind in ("float32", "float64") for layout in ("C", "F", "strided", "CSR")]
    checks: list[tuple[str, Callable[..., Outcome], Iterable[str]]] = [
        ("math", check_math, MATH),
        ("activation", check_activation, core.ACTIVATIONS),
        ("derivative", check_derivative, core.ACTIVATIONS),
        ("output", check_output, core.OUTPUTS),
        ("loss", check_loss, core.LOSSES),
        ("gather", check_gather, sources),
        ("forward", check_forward, core.ACTIVATIONS),
        ("backward", check_backward, core.ACTIVATIONS),
        ("update", check_optimizer, core.OPTIMIZERS),
        ("layer output", check_layer_output, ("residual", "dropout", "affine", "residual dropout affine")),
        ("batch_norm", check_normalised, core.ACTIVATIONS),
    ]
    for operation, check, names in checks:
        yield from (Case(f"{operation} {name}", partial(check, name)) for name in names)
    yield Case("weight gradient", check_gradient)
    yield Case("forward CSR", check_forward_csr)
    yield Case("weight gradient CSR", check_gradient_csr)
    yield Case("input scaling", check_input_scaling)
    yield Case("bin sums", check_bin_sums)
    yield Case("forward codes", check_forward_codes)
    yield Case("weight gradient codes", check_gradient_codes)
    yield Case("embedding", check_embedding)
    yield Case("members", check_members)
    yield Case("augment", check_augment)


def training_cases() -> Iterator[Case]:
    """One case per loss with one optimizer, and per optimizer with one loss."""
    pairs = [(loss, "sgd_nesterov") for loss in core.LOSSES] + [("log_loss", rule) for rule in core.OPTIMIZERS]
    for loss, optimizer in pairs:
        yield Case(f"training {loss} {optimizer}", partial(check_training, loss, optimizer))


# More than a chunk of k, more than a block of rows, and edges in every dimension.
CHECK_SHAPE = (67, 301, 45)


def run_all() -> Iterator[tuple[str, str, str, Outcome]]:
    """(operation, instruction set, element type, outcome) for every case on every instruction set of this machine."""
    for isa in core.info()["available"]:
        for dtype in core.info()["dtypes"]:
            for case in cases():
                yield case.operation, isa, dtype, case.run(Kernels(isa, dtype), CHECK_SHAPE, np.random.RandomState(0))
    chosen = Kernels(core.info()["isa"], "float64")
    for case in training_cases():
        yield case.operation, chosen.isa, chosen.dtype, case.run(chosen, CHECK_SHAPE, np.random.RandomState(0))
