"""PiecewiseLinearEncoder: its codes against the reference, missing numbers, data frames, names, extreme numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import tolerance
from sklearn.pipeline import make_pipeline

from fastmlp import MLPRegressor, PiecewiseLinearEncoder
from fastmlp.reference import encodings

RNG = np.random.RandomState(0)
COLUMNS = {
    "normal": RNG.standard_normal(203),
    "few values": RNG.randint(5, size=203).astype(float),
    "two values": RNG.randint(2, size=203).astype(float),
    "heavy tails": np.exp(3 * RNG.standard_normal(203)),
    "mostly zero": np.where(RNG.uniform(size=203) < 0.9, 0.0, RNG.standard_normal(203)),
    "constant": np.full(203, 7.0),
    "with gaps": np.where(RNG.uniform(size=203) < 0.3, np.nan, RNG.standard_normal(203)),
    "no values": np.full(203, np.nan),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("n_bins", [1, 2, 7, 48])
def test_codes_are_the_references(name, n_bins):
    """Edges and codes, for the rows of fit and for others, far ones among them."""
    x = COLUMNS[name]
    edges = encodings.quantile_edges(x.tolist(), n_bins)
    encoder = PiecewiseLinearEncoder(n_bins).fit(x[:, np.newaxis])
    largest = np.abs(edges).max(initial=0.0)
    np.testing.assert_allclose(encoder.edges_[0], edges, rtol=0, atol=tolerance(np.float64, 4, largest))
    assert len(encoder.edges_[0]) == len(edges)
    others = np.concatenate([x, [-1e3, 0.5, 1e3]])
    codes = encoder.transform(others[:, np.newaxis])
    marked = bool(np.isnan(x).any())
    expected = np.array([encodings.piecewise_linear(value, encoder.edges_[0].tolist()) for value in others])
    size = np.nanmax(np.abs(others)) / np.diff(edges).min(initial=1.0)  # a difference of numbers, by a bin's width
    np.testing.assert_allclose(codes[:, : expected.shape[1]], expected, rtol=0, atol=tolerance(np.float64, 4, size))
    assert codes.shape[1] == expected.shape[1] + marked
    if marked:
        np.testing.assert_array_equal(codes[:, -1], np.isnan(others))


def test_outer_components_go_on_and_inner_ones_do_not():
    """At most 1 in the first, at least 0 in the last, in [0, 1] between; a single bin without limits."""
    encoder = PiecewiseLinearEncoder(3).fit([[0.0], [1.0], [2.0], [3.0]])
    np.testing.assert_allclose(
        encoder.transform([[-2.0], [1.5], [9.0]]),
        [[-2, 0, 0], [1, 0.5, 0], [1, 1, 7]],
        rtol=0,
        atol=tolerance(np.float64, 1, 9),
    )
    single = PiecewiseLinearEncoder(1).fit([[0.0], [4.0]])
    np.testing.assert_array_equal(single.transform([[-4.0], [8.0]]), [[-1.0], [2.0]])


def test_missing_numbers_without_some_in_fit_count_as_the_median():
    """There is no mark that nobody could have learnt."""
    encoder = PiecewiseLinearEncoder().fit([[1.0], [2.0], [10.0]])
    np.testing.assert_array_equal(encoder.transform([[np.nan]]), encoder.transform([[2.0]]))
    assert encoder.missing_.tolist() == [False]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_and_names(library):
    """Columns with gaps of frames are read, and the output has names."""
    columns = {"a": [1.0, None, 3.0, 4.0], "b": [1, 2, 2, 1]}
    frame = pd.DataFrame(columns).astype({"b": "Int64"}) if library == "pandas" else pl.DataFrame(columns)
    encoder = PiecewiseLinearEncoder(2).set_output(transform=library)
    out = encoder.fit_transform(frame)
    assert list(out.columns) == ["a_bin0", "a_bin1", "a_missing", "b_bin0", "b_bin1"]
    assert out["a_missing"].to_list() == [0, 1, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_element_type(dtype):
    """That of X, unless another is asked for."""
    X = RNG.standard_normal((20, 3)).astype(dtype)
    assert PiecewiseLinearEncoder().fit_transform(X).dtype == dtype
    assert PiecewiseLinearEncoder(dtype="float32").fit_transform(X).dtype == np.float32


def test_extreme_numbers_stay_finite():
    """The largest numbers there are, the smallest differences, and codes that float32 could not hold."""
    X = np.array([[-1.7e308, 0.0], [0.0, 5e-324], [1.7e308, 1.0]])
    for dtype in ("float32", "float64"):
        encoder = PiecewiseLinearEncoder(dtype=dtype).fit(X)
        assert np.isfinite(encoder.transform(X)).all()
        assert np.isfinite(encoder.transform(-X[::-1] * 0.9)).all()


def test_infinity_is_an_error():
    """No bin holds it."""
    with pytest.raises(ValueError, match="infinity"):
        PiecewiseLinearEncoder().fit([[1.0], [np.inf]])


def test_dates_are_an_error():
    """Their numbers depend on the unit, which need not be that of fit."""
    frame = pd.DataFrame({"day": pd.date_range("2024", periods=5)})
    with pytest.raises(TypeError, match="must be numbers, got datetime64"):
        PiecewiseLinearEncoder().fit(frame)
    encoder = PiecewiseLinearEncoder().fit(frame.astype("int64"))
    with pytest.raises(TypeError, match="must be numbers, got datetime64"):
        encoder.transform(frame)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_network_learns_a_step_better_from_codes():
    """What it is for: the same network, on the number and on its code."""
    x = RNG.uniform(-1, 1, (400, 1))
    y = np.floor(4 * x[:, 0])
    network = MLPRegressor(
        hidden_layer_sizes=(32,), learning_rate_init=0.01, max_iter=100, n_iter_no_change=100, random_state=0
    )
    plain = network.fit(x, y).score(x, y)
    coded = make_pipeline(PiecewiseLinearEncoder(), network).fit(x, y).score(x, y)
    assert coded > plain
