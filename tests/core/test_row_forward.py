"""One row at a time: the bits of forward, whatever holds the row."""

from __future__ import annotations

import copy
import pickle
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastmlp.core as core
from fastmlp import MLPClassifier, MLPEnsembleClassifier, MLPEnsembleRegressor, MLPRegressor, Network, RowPredictor

# The last is larger than the memory on the stack; a few have no hidden layer, or one.
SHAPES = [(5, 3), (1, 1), (7, 9, 2), (13, 17, 17, 20), (3, 40, 40, 40, 1), (2100, 30, 2500, 4)]


def made(sizes: tuple[int, ...], dtype: str, batch_norm: bool, output: str = "softmax") -> Network:
    network = Network(sizes, "tanh", output, dtype, random_state=0, batch_norm=batch_norm, residual=True)
    rng = np.random.default_rng(len(sizes))
    network.statistics[:] = rng.uniform(0.5, 2, network.statistics.shape)
    return network


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_bits_of_forward(sizes: tuple[int, ...], dtype: str, batch_norm: bool):
    network = made(sizes, dtype, batch_norm)
    predict = network.predictor()
    X = np.random.default_rng(1).standard_normal((4, sizes[0]))
    X[1] *= 1e3
    for row in X:
        expected = network.forward(row[np.newaxis])[0]
        wide, narrow = np.repeat(row, 3), row.astype(np.float32)
        out = np.empty(sizes[-1], dtype)
        assert predict(row, out) is out
        for given in (row, row[np.newaxis], wide[::3], wide[::-3][::-1], list(row), tuple(row.tolist())):
            np.testing.assert_array_equal(predict(given), expected)
            assert predict.values(given) == expected.tolist()
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(predict(narrow), network.forward(narrow[np.newaxis])[0])
        for other in (pickle.loads(pickle.dumps(predict)), copy.deepcopy(predict)):
            np.testing.assert_array_equal(other(row), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [(4, 2), (4, 6, 3), (4, 8, 8, 8, 3)], ids=str)
def test_mean_of_networks(sizes: tuple[int, ...], dtype: str):
    networks = [Network(sizes, "relu", "softmax", dtype, random_state=seed) for seed in range(3)]
    predict = core.RowForward(networks[0].plan, [(network.parameters, network.statistics) for network in networks])
    x = np.linspace(-1, 2, 4).astype(dtype)
    total = sum(network.forward(x[np.newaxis]) for network in networks) / 3
    np.testing.assert_array_equal(predict(x), total[0])
    assert predict.values(x) == total[0].tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_behind_relu_are_left_out_where_weights_are_finite(dtype: str):
    """An infinite weight of a unit that is 0 makes NaN, as in forward."""
    network = Network((5, 200, 150, 3), "relu", "identity", dtype, random_state=0)
    X = np.random.default_rng(0).standard_normal((5, 5)).astype(dtype)
    np.testing.assert_array_equal([network.predictor()(row) for row in X], network.forward(X))
    unit = np.flatnonzero(X[0] @ network.coefs[0] + network.intercepts[0] < -0.1)[0]
    network.coefs[1][unit] = np.inf
    assert np.isnan(network.predictor()(X[0])).all()
    assert np.isnan(network.forward(X[:1])).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coded_rows_through_several_networks(dtype: str):
    """Networks with and without embedding and members, whose outputs are those of forward."""
    rng = np.random.RandomState(0)
    layout = core.CodeLayout((9, 3), (4,))
    kinds = [((40,), 0, 1), ((96, 20), 32, 1), ((48, 150, 140), 16, 3), ((), 0, 1)]
    networks = [
        Network((layout.width, *hidden, 2), "relu", "softmax", dtype, random_state=rng, embedding=d, n_members=k)
        for hidden, d, k in kinds
    ]
    given = [(each.plan, each.parameters, core.bin_sums(each.plan, each.parameters, layout)) for each in networks]
    predict = core.CodedRowForward(layout, given)
    bins, fractions = rng.randint((9, 3), size=(6, 2)), rng.uniform(size=(6, 2))
    X = core.Codes(
        layout, bins.astype(np.uint16), fractions.astype(np.float32), rng.randint(5, size=(6, 1)).astype(np.uint16)
    )
    out = np.empty((len(networks), 2), dtype)
    for i in range(6):
        expected = np.vstack([each.forward(X[i : i + 1]) for each in networks])
        assert predict(X[i : i + 1], out) is out
        np.testing.assert_array_equal(out, expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(predict))(X[i : i + 1], out), expected)
    with ThreadPoolExecutor(4) as executor:
        found = list(executor.map(lambda i: predict(X[i : i + 1], np.empty_like(out)), [5] * 40))
    assert all(np.array_equal(each, expected) for each in found)


def test_coded_rows_that_do_not_fit_are_refused():
    layout, other = core.CodeLayout((3, 2), ()), core.CodeLayout((2, 3), ())
    network = Network((layout.width, 4, 2), random_state=0)
    given = (network.plan, network.parameters, core.bin_sums(network.plan, network.parameters, layout))
    predict, out = core.CodedRowForward(layout, [given]), np.empty((1, 2), network.dtype)
    bins, fractions = np.zeros((2, 2), np.uint16), np.zeros((2, 2), np.float32)
    for rows in (core.Codes(layout, bins, fractions), core.Codes(other, bins[:1], fractions[:1])):
        with pytest.raises(ValueError, match="one row of the networks' layout"):
            predict(rows, out)
    with pytest.raises(ValueError, match="out must be an aligned array of 2"):
        predict(core.Codes(layout, bins[:1], fractions[:1]), np.empty((2, 2), network.dtype))
    with pytest.raises(ValueError, match="at least one network"):
        core.CodedRowForward(layout, [])
    for changed in ({"batch_norm": True}, {"dtype": "float64"}):
        another = Network((layout.width, 4, 2), random_state=0, **changed)
        sums = core.bin_sums(another.plan, another.parameters, layout)
        with pytest.raises(ValueError, match=r"without batch normalisation|same dtype"):
            core.CodedRowForward(layout, [given, (another.plan, another.parameters, sums)])


def test_a_copy_is_kept():
    network = Network((3, 4, 2), random_state=0)
    predict, x = network.predictor(), np.ones(3, np.float32)
    before = predict(x)
    network.parameters[:] = 0
    np.testing.assert_array_equal(predict(x), before)
    network.coefs[0] = np.ones((3, 4))  # a replaced view counts
    np.testing.assert_array_equal(network.predictor()(x), network.copy().forward(x[np.newaxis])[0])


class Unusual:
    """A number that shortens the list that it is in."""

    def __init__(self, row: list) -> None:
        self.row = row

    def __float__(self) -> float:
        self.row.clear()
        return 1.0


@pytest.mark.parametrize(
    "row",
    [
        np.ones(3), np.ones(5), np.ones((2, 4)), np.ones((4, 1)), np.ones(4, int), np.ones(4, np.float16),
        np.ones(4, ">f8"),
        np.array(1.0), [1.0] * 3, (1.0,) * 5, [], "1234", None, 4.0, {1: 1}, np.ones((1, 1, 4)), [[1.0] * 4],
        np.array([None] * 4), np.ones(4, complex),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_row(row):
    predict = Network((4, 3), random_state=0).predictor()
    assert predict.values(row) is None
    with pytest.raises((ValueError, TypeError)):
        predict(row)


def test_masked_values_are_not_read():
    predict = Network((3, 2), random_state=0).predictor()
    with pytest.raises(ValueError, match="masked values"):
        predict(np.ma.masked_array([1.0, 2.0, 3.0], mask=[0, 1, 0]))
    np.testing.assert_array_equal(predict(np.ma.masked_array([1.0, 2.0, 3.0])), predict([1.0, 2.0, 3.0]))


def test_what_needs_a_closer_look():
    predict = Network((2, 3), random_state=0).predictor()
    for row in ([np.nan, 1.0], [1e300, 1.0], np.array([np.inf, 1.0]), [True, 1.0], ["1", 1.0], [None, 1.0]):
        assert predict.values(row) is None
    assert predict.values([1, 2.0]) == predict([1.0, 2.0]).tolist()
    assert np.isnan(predict([np.nan, 1.0])).all()
    for value in ("1", None, 1j, [2]):
        with pytest.raises(TypeError, match=re.escape(f"row[1] must be a real number, got {value!r}")):
            predict([1, value])
    assert predict.values([1, 10**400]) is None
    with pytest.raises(ValueError, match=r"row\[1\] = 1000.* is too large for float64"):
        predict([1, 10**400])
    row: list = [1.0, 2.0]
    row[0] = Unusual(row)
    with pytest.raises(ValueError, match="array or list of 2 numbers"):
        predict(row)
    with pytest.raises(ValueError, match="out must be"):
        predict([1.0, 2.0], np.empty(3))
    with pytest.raises(ValueError, match="at least one"):
        core.RowForward(Network((2, 3)).plan, [])
    with pytest.raises(ValueError, match="embeds coded rows"):
        Network((10, 32, 1), out_activation="identity", embedding=16).predictor()


def test_threads_share_it():
    network = Network((20, 300, 300, 300, 5), random_state=0)  # large enough to let go of the lock
    predict, X = network.predictor(), np.random.default_rng(0).standard_normal((200, 20)).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(predict, X))
    np.testing.assert_array_equal(found, network.forward(X))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kind", ["classes", "two", "labels", "one", "value", "values", "several", "pairs", "mean", "words"]
)
def test_row_predictor_is_the_model(kind: str):
    """Labels, values and probabilities of a RowPredictor, for each kind of row."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = (X[:, 0] * 2).round().astype(int)
    settings = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    one, several = MLPClassifier(**settings), MLPEnsembleClassifier(MLPClassifier(**settings), 3, random_state=0)
    model = {
        "classes": lambda: one.fit(X, y),
        "words": lambda: one.fit(X, y.astype(str)),
        "two": lambda: one.fit(X, y > 0),
        "labels": lambda: one.fit(X, np.c_[y > 0, y < 1].astype(int)),
        "one": lambda: one.fit(X, np.zeros(60, int)),
        "several": lambda: several.fit(X, y),
        "pairs": lambda: several.fit(X, y > 0),
        "value": lambda: MLPRegressor(**settings).fit(X, X[:, 0]),
        "values": lambda: MLPRegressor(dtype="float64", **settings).fit(X, X[:, :2]),
        "mean": lambda: MLPEnsembleRegressor(MLPRegressor(**settings), 3, random_state=0).fit(X, X[:, 0]),
    }[kind]()
    predictor = pickle.loads(pickle.dumps(RowPredictor(model)))
    for row in X[:10]:
        expected = model.predict(row[np.newaxis])[0]
        for given in (row, row[np.newaxis], row.tolist(), tuple(row.tolist()), list(row)):
            found = predictor.predict(given)
            np.testing.assert_array_equal(found, expected)
            assert isinstance(found, (np.ndarray, int, float, str))
            assert not isinstance(found, np.generic)
            if hasattr(model, "classes_"):
                probabilities = predictor.predict_proba(given)
                np.testing.assert_array_equal(probabilities, model.predict_proba(row[np.newaxis])[0])
                assert probabilities.dtype == model.predict_proba(row[np.newaxis]).dtype
