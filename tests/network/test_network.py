"""Network: its array and views, what survives copying, forward and gradient."""

from __future__ import annotations

import copy
import pickle
import sys

import numpy as np
import pytest
from helpers import DIFFERENCE_STEP, classification, difference_tolerance, tolerance, varied
from scipy import sparse
from scipy.sparse import csr_array

from fastmlp import Network, core, reference

ALIGNMENT = 64
LOSSES = sorted(core.LOSSES)
SIZES = (7, 13, 5, 3)


def make(activation="tanh", output="softmax", dtype="float64", sizes=SIZES, seed=0):
    """A small network with all parameters drawn."""
    return Network(sizes, activation, output, dtype, random_state=seed)


def targets_for(loss, rng, n, n_out):
    """Targets of the form that the loss reads."""
    if core.LOSSES[loss] == "softmax":
        return varied(rng.randint(0, n_out, n))
    return varied(rng.randint(0, 2, (n, n_out)).astype(np.float64))


def assert_views(net):
    """coefs and intercepts are views of parameters, in the documented order, on a cache line."""
    assert net.parameters.ctypes.data % ALIGNMENT == 0
    flat = np.concatenate([w.ravel() for w in net.coefs + net.intercepts])
    assert np.array_equal(flat, net.parameters)
    assert all(np.shares_memory(w, net.parameters) for w in net.coefs + net.intercepts)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), Network.copy],
    ids=["copy", "deepcopy", "pickle", "Network.copy"],
)
def test_network_copies_keep_views(duplicate, rng):
    """A copy computes the same bits, and its views are views."""
    net, X = make(), varied(rng.standard_normal((4, 7)))
    expected = net.forward(X)  # makes the plan, which must not be in the way
    other = duplicate(net)
    assert_views(other)
    assert np.array_equal(other.forward(X), expected)
    other.coefs[0][0, 0] += 1
    assert not np.array_equal(other.forward(X), expected)


def test_network_draws_as_the_reference():
    """Same generator, same parameters, bit for bit."""
    mixed = [(first, second) for first in core.ACTIVATIONS for second in core.ACTIVATIONS]
    for activation in (*core.ACTIVATIONS, *mixed):
        coefs, intercepts = reference.initialise(SIZES, activation, np.random.RandomState(3))
        net = make(activation, seed=3)
        assert_views(net)
        assert all(map(np.array_equal, net.coefs + net.intercepts, coefs + intercepts))


def test_network_parameters_assignable():
    """Parameters given, assigned, and arrays put in place of views."""
    net = make()
    other = Network(SIZES, "tanh", dtype="float64", parameters=net.parameters * 2)
    assert np.array_equal(other.coefs[1], net.coefs[1] * 2)
    net.parameters = other.parameters
    assert_views(net)
    assert np.array_equal(net.coefs[1], other.coefs[1])
    net.coefs[1] = np.ones((13, 5))
    net.adopt()
    assert_views(net)
    assert (net.coefs[1] == 1).all()
    net.intercepts[0] = np.ones(4)
    with pytest.raises(ValueError, match=r"intercepts\[0\] must have shape \(13,\)"):
        net.adopt()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("output", [*core.OUTPUTS, "tanh"])
@pytest.mark.parametrize("activation", core.ACTIVATIONS)
def test_network_forward_is_the_references(activation, output, dtype, rng):
    """Forward against the reference, for every pair of activations."""
    net = make(activation, output, dtype)
    X = varied(rng.standard_normal((17, 7)).astype(dtype))
    wide = [w.astype(np.float64) for w in net.coefs + net.intercepts]
    expected = reference.predict(reference.Model(wide[:3], wide[3:]), net.activations, output, X.astype(np.float64))
    got = net.forward(X)
    assert got.dtype == dtype
    scale = np.abs(expected).max() * sum(np.abs(w).sum(axis=0).max() for w in wide[:3])
    assert np.abs(got - expected).max() <= tolerance(dtype, sum(SIZES), scale)


@pytest.mark.parametrize("X_dtype", ["float32", "float64"])
def test_network_forward_reads_any_layout(X_dtype, rng):
    """C, Fortran, strided, reversed, read-only, sparse: the same bits; one row as many."""
    net = make(dtype="float32", output="identity")
    X = varied(rng.standard_normal((11, 7)).astype(X_dtype))
    X[rng.uniform(size=X.shape) < 0.5] = 0
    expected = net.forward(X)
    wide = np.zeros((22, 14), dtype=X_dtype)
    wide[::2, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    for other in (np.asfortranarray(X), wide[::2, ::2], X[::-1].copy()[::-1], read_only, sparse.csr_matrix(X)):
        assert np.array_equal(net.forward(other), expected)
    assert all(np.array_equal(net.forward(X[i : i + 1])[0], expected[i]) for i in range(11))
    out = np.full((11, 3), np.nan, dtype=np.float32)
    assert net.forward(X, out=out) is out
    assert np.array_equal(out, expected)
    assert net.forward(X[:0]).shape == (0, 3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("activation", core.ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_network_gradient_is_the_slope(loss, activation, weighted, rng):
    """The gradient against central differences along random directions, penalty and weights included."""
    net = make(activation, core.LOSSES[loss])
    X = varied(rng.standard_normal((11, 7)))
    y = targets_for(loss, rng, 11, 3)
    settings = {"sample_weight": rng.uniform(0.1, 2, 11) if weighted else None, "alpha": 0.3, "l1_ratio": 0.4}
    start = net.parameters.copy()
    _, gradient = net.loss_gradient(X, y, loss=loss, **settings)
    h = DIFFERENCE_STEP
    for _ in range(5):
        direction = rng.standard_normal(start.size)
        direction /= np.linalg.norm(direction)
        values = []
        for step in (h, -h):
            net.parameters = start + step * direction
            values.append(net.loss_gradient(X, y, loss=loss, **settings)[0])
        net.parameters = start
        slope = (values[0] - values[1]) / (2 * h)
        assert abs(slope - gradient @ direction) < difference_tolerance(100.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
def test_network_gradient_is_the_references(loss, dtype, rng):
    """Loss and gradient against the reference, on a batch longer than any tile."""
    net = make("relu", core.LOSSES[loss], dtype)
    X = varied(rng.standard_normal((301, 7)).astype(dtype))
    y = targets_for(loss, rng, 301, 3)
    weight = rng.uniform(0, 2, 301)
    wide = [w.astype(np.float64) for w in net.coefs + net.intercepts]
    method = reference.Method(alpha=0.3, l1_ratio=0.4, eps=float(np.finfo(dtype).eps))
    value, expected, *_ = reference.gradients(
        reference.Model(wide[:3], wide[3:]), net.activations, loss, X.astype(np.float64), y, weight, method
    )
    got_value, got = net.loss_gradient(X, y, weight, loss, alpha=0.3, l1_ratio=0.4)
    expected = np.concatenate([g.ravel() for g in expected])
    assert got.dtype == dtype
    assert abs(got_value - value) <= tolerance(dtype, sum(SIZES), max(1.0, abs(value)))
    assert np.abs(got - expected).max() <= tolerance(dtype, 301, max(1.0, np.abs(expected).max()))


def test_network_gradient_has_the_output_for_loss():
    """Without a loss, the one that belongs to the output; another is refused."""
    net = make(output="identity")
    X, y = np.eye(7), np.ones((7, 3))
    assert net.loss_gradient(X, y)[0] == net.loss_gradient(X, y, loss="squared_error")[0]
    with pytest.raises(ValueError, match="loss must be one of"):
        net.loss_gradient(X, y, loss="log_loss")
    with pytest.raises(ValueError, match="No loss belongs to"):
        make(output="tanh").loss_gradient(X, y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer_sizes": (3,)}, "layer_sizes must be at least two"),
        ({"layer_sizes": (3, 0, 2)}, "layer_sizes must be at least two"),
        ({"activation": "rleu"}, "activation must be one of"),
        ({"activation": ("relu", "tanh")}, "activation must name one activation for each of 1"),
        ({"out_activation": "max"}, "out_activation must be one of"),
        ({"dtype": "int64"}, "dtype must be one of"),
        ({"parameters": np.zeros(3)}, r"parameters must have shape \(26,\)"),
    ],
)
def test_network_refuses(arguments, message):
    """Wrong architecture: an error that names the argument."""
    with pytest.raises(ValueError, match=message):
        Network(**{"layer_sizes": (3, 4, 2), **arguments})


def test_network_refuses_input(rng):
    """Wrong shapes and types in forward and loss_gradient."""
    net, X = make(), rng.standard_normal((4, 7))
    for bad in (X[0], X[:, :6], X[np.newaxis]):
        with pytest.raises(ValueError, match=r"dimensions|columns"):
            net.forward(bad)
    with pytest.raises(ValueError, match="X must be float32 or float64"):
        net.forward(X.astype(int))
    for y in ([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, -1], [0.0, 1.0, 2.0, 0.0], np.eye(4)):
        with pytest.raises(ValueError, match="y must"):
            net.loss_gradient(X, y)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        net.loss_gradient(X, [0, 1, 2, 0], [1.0])
    with pytest.raises(ValueError, match="X must have at least one row"):
        net.loss_gradient(X[:0], np.zeros(0, int))


@pytest.mark.parametrize("n_threads", [0, -1, -9])
def test_forward_refuses_no_threads(n_threads):
    with pytest.raises(ValueError, match="n_threads must be positive"):
        Network((4, 3), random_state=0).forward(np.zeros((9, 4), "f"), n_threads=n_threads)


def test_forward_takes_more_threads_than_there_are():
    network, X = Network((4, 3), random_state=0), np.random.RandomState(0).rand(999, 4)
    np.testing.assert_array_equal(network.forward(X, n_threads=50_000), network.forward(X))


SWAPPED = ">" if sys.byteorder == "little" else "<"


@pytest.mark.parametrize("dtype", [SWAPPED + "f8", SWAPPED + "f4", "c16", "i8", "f2"])
def test_core_refuses_what_it_cannot_read(dtype):
    network = Network((4, 3), dtype="float64", random_state=0)
    X = np.ones((6, 4)).astype(dtype)
    with pytest.raises(ValueError, match="X must be float32 or float64"):
        network.forward(X)
    with pytest.raises(ValueError, match="out must be"):
        network.forward(np.ones((6, 4)), out=np.zeros((6, 3), dtype))


def test_core_reads_mixed_csr_indices():
    X = csr_array(np.random.RandomState(0).rand(20, 4) * (np.arange(4) % 2))
    network = Network((4, 3), random_state=0)
    want = network.forward(X)
    X.indptr = X.indptr.astype(np.int64)
    np.testing.assert_array_equal(network.forward(X), want)
    X.indices = X.indices.astype(np.float64)
    with pytest.raises(ValueError, match="indices"):
        network.forward(X)


def test_network_takes_any_byte_order_as_a_type():
    assert Network((4, 3), dtype=SWAPPED + "f4").parameters.dtype == np.dtype("float32")


def test_network_names_may_be_numpys():
    X, y = classification(3)
    network = Network((13, 3), np.str_("tanh"), np.str_("softmax"), np.str_("float64"), random_state=0)
    assert network.loss_gradient(X, y, loss=np.str_("log_loss"))[0] == network.loss_gradient(X, y)[0]


@pytest.mark.parametrize("name", ["coefs", "intercepts", "scales", "means", "variances"])
def test_replaced_arrays_are_adopted_alike(name):
    """``folded`` went by scales and averages that were put in place of views, ``forward`` by those that had been
    there."""
    X = np.random.RandomState(0).standard_normal((20, 4))
    network = Network((4, 6, 5, 3), "tanh", dtype="float64", random_state=0, batch_norm=True)
    written = network.copy()
    getattr(written, name)[1][...] *= 3
    getattr(written, name)[1][...] += 1
    getattr(network, name)[1] = getattr(network, name)[1] * 3 + 1
    folded = network.folded()
    np.testing.assert_array_equal(network.forward(X), written.forward(X))
    np.testing.assert_array_equal(folded.forward(X), written.folded().forward(X))
    assert getattr(network, name)[1].base is not None
    before = network.forward(X)
    for bad in (np.zeros(2), getattr(network, name)[1] * 1j):
        getattr(network, name)[1] = bad
        with pytest.raises(ValueError, match=rf"{name}\[1\] must have shape"):
            network.adopt()
    np.testing.assert_array_equal(network.forward(X), before)


def test_rows_may_be_any_array_like():
    """A list of rows becomes an array of the network's type."""
    network = Network((2, 3, 1), out_activation="identity", random_state=0)
    X = np.array([[1, 2], [3, 4]], dtype=np.float32)
    assert np.array_equal(network.forward([[1, 2], [3, 4]]), network.forward(X))
    value, gradient = network.loss_gradient([[1, 2], [3, 4]], [0.0, 1.0])
    expected, expected_gradient = network.loss_gradient(X, [0.0, 1.0])
    assert value == expected
    assert np.array_equal(gradient, expected_gradient)
    with pytest.raises(ValueError, match="X has 3 columns"):
        network.forward([[1, 2, 3]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("out_activation", "loss"), [("logistic", "binary_log_loss"), ("identity", "squared_error")])
def test_targets_of_a_byte_are_those_of_numbers(out_activation, loss, dtype, rng):
    """The same bits, with smoothing and with weights of outputs too; outputs of less than a vector and more."""
    for n_outputs in (1, 3, 37):
        network = Network((5, 7, n_outputs), "tanh", out_activation, dtype, random_state=0)
        X, y = rng.standard_normal((30, 5)), rng.randint(0, 2, (30, n_outputs))
        smoothing = 0.1 if loss == "binary_log_loss" else 0.0
        weights = [None, rng.uniform(size=30)] + ([rng.randint(0, 3, y.shape).astype(float)] if n_outputs > 1 else [])
        for weight in weights:
            ours, theirs = (
                network.loss_gradient(X, target, weight, loss, label_smoothing=smoothing)
                for target in (y.astype(np.uint8), y)
            )
            assert ours[0] == theirs[0]
            np.testing.assert_array_equal(ours[1], theirs[1])
        output = network.forward(X)
        values = [
            core.row_losses(network.plan, loss, output.copy(), target)
            for target in (y.astype(np.uint8), y.astype(dtype))
        ]
        np.testing.assert_array_equal(*values)
