"""Codes of tables: those of the dense encoding, one copy for all networks, read in parts, in little memory."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers import SANITIZED, output_of, tolerance
from sklearn.base import clone

from fastmlp import PiecewiseLinearEncoder, TabularClassifier, TabularRegressor, reference
from fastmlp.estimators.validation.held_out import RowSplit
from fastmlp.network.network import SelectedRows
from fastmlp.tabular import coding
from fastmlp.tabular.coding import Coder
from fastmlp.tabular.columns import learn_columns
from fastmlp.tabular.frames import Table
from fastmlp.tabular.training import deal

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N = 230
RNG = np.random.RandomState(0)
FRAME = pd.DataFrame(
    {
        "text": RNG.choice(["a", "b", "c"], N),
        "number": RNG.standard_normal(N),
        "gaps": np.where(RNG.uniform(size=N) < 0.2, np.nan, RNG.standard_normal(N)),
        "constant": 3.0,
        "one value and gaps": np.where(RNG.uniform(size=N) < 0.2, np.nan, 7.0),
        "categories and gaps": pd.Categorical(RNG.choice(["x", "y", None], N)),
        "truth": RNG.uniform(size=N) < 0.5,
    }
)
Y = FRAME["number"].to_numpy() + (FRAME["text"] == "a")
SMALL = {"hidden_layer_sizes": (8,), "max_iter": 2, "n_folds": 2, "n_bins": 9, "random_state": 0}


def dense(codes) -> np.ndarray:
    """The dense encoding of codes."""
    layout = codes.layout
    return reference.encode(codes.bins, codes.fractions, codes.categories, layout.bin_counts, layout.category_counts)


def test_codes_stand_for_the_encoders_columns_and_indicators():
    """Numbers first; each has its bins and a column for missing ones, which no row has if there were none in fit."""
    fitted = TabularRegressor(**SMALL).fit(FRAME, Y)
    encoded = dense(Coder(fitted.columns_).codes(Table(FRAME)))
    assert encoded.shape == (N, fitted.columns_.n_inputs) == (N, fitted.networks_[0].layer_sizes[0])
    numbers = PiecewiseLinearEncoder(n_bins=9).fit_transform(FRAME[["number", "gaps", "one value and gaps"]])
    only_mark = encoded[:, 20:22]
    np.testing.assert_allclose(encoded[:, :9], numbers[:, :9], rtol=0, atol=tolerance("float32", 1))
    np.testing.assert_array_equal(encoded[:, 9], 0)
    np.testing.assert_allclose(encoded[:, 10:20], numbers[:, 9:19], rtol=0, atol=tolerance("float32", 1))
    np.testing.assert_array_equal(only_mark, np.c_[np.zeros(N), numbers[:, 19]])
    words = [FRAME["text"] == "a", FRAME["text"] == "b", FRAME["text"] == "c"]
    marks = FRAME["categories and gaps"]
    words += [marks == "x", marks == "y", marks.isna(), ~FRAME["truth"], FRAME["truth"]]
    np.testing.assert_array_equal(encoded[:, 22:], np.column_stack(words))


def test_unknown_and_missing_values_of_columns_without_gaps():
    """A missing number has the median's code, an unknown category none."""
    fitted = TabularRegressor(**SMALL).fit(FRAME[["text", "number"]], Y)
    later = pd.DataFrame({"text": ["other", None, "b"], "number": [np.nan, FRAME["number"].median(), 1e9]})
    codes = Coder(fitted.columns_).codes(Table(later))
    assert codes.categories[:, 0].tolist() == [3, 3, 1]
    assert codes.bins[0, 0] == codes.bins[1, 0] < 9
    assert codes.fractions[0, 0] == codes.fractions[1, 0]
    assert codes.fractions[2, 0] == 1e6


def test_more_categories_than_two_bytes_hold():
    """Their codes are uint32."""
    n = 70_000
    frame = pd.DataFrame({"key": np.arange(n).astype(str), "number": np.arange(n) % 5})
    columns = learn_columns(Table(frame), np.array([True, False]), None, 9, 100_000)
    codes = Coder(columns).codes(Table(frame))
    assert codes.categories.dtype == np.uint32
    assert len(np.unique(codes.categories)) == n


def test_parts_have_the_codes_of_the_whole(monkeypatch):
    """Of every library's frames, however they are cut."""
    pyarrow = pytest.importorskip("pyarrow")
    fitted = TabularRegressor(**SMALL).fit(FRAME, Y)
    coder = Coder(fitted.columns_)
    whole = dense(coder.codes(Table(FRAME)))
    table = pyarrow.Table.from_pandas(FRAME)
    chunks = pyarrow.concat_tables([table.slice(0, 100), table.slice(100)])
    for frame in (FRAME, pl.from_pandas(FRAME), table, chunks, FRAME.astype(object).to_numpy()):
        parts = [Table(frame).rows(first, min(first + 31, N)) for first in range(0, N, 31)]
        np.testing.assert_array_equal(dense(coder.codes(*parts)), whole)
    monkeypatch.setattr(coding, "_PIECE", 1)
    monkeypatch.setattr(coding, "_LEAST_ROWS", 17)
    np.testing.assert_array_equal(dense(Coder(fitted.columns_).codes(Table(FRAME))), whole)


@pytest.mark.parametrize("Estimator", [TabularClassifier, TabularRegressor])
def test_selected_rows_are_predicted_as_their_copy(Estimator, monkeypatch):
    """In blocks, without a copy of all of them."""
    fitted = Estimator(**SMALL).fit(FRAME, Y > 0)
    codes, rows = Coder(fitted.columns_).codes(Table(FRAME)), RNG.permutation(N)[:90]
    member, selected = fitted.estimators_[0], SelectedRows(codes, rows)
    expected = member.predict(codes)[rows]
    monkeypatch.setattr("fastmlp.network.network._BLOCK", 7)
    np.testing.assert_array_equal(member.predict(selected), expected)
    out = np.empty((90, 1), np.float32)
    np.testing.assert_array_equal(member.network_.forward(selected, out), member.network_.forward(codes[rows]))
    with pytest.raises(ValueError, match=r"out must have shape \(90, 1\)"):
        member.network_.forward(selected, out[:9])


@pytest.mark.parametrize("Estimator", [TabularClassifier, TabularRegressor])
def test_networks_learn_as_on_the_dense_encoding(Estimator):
    """The same losses, on training and validation rows, to the rounding of sums in another order."""
    y = Y > 0.3 if Estimator is TabularClassifier else Y
    fitted = Estimator("plain", **{**SMALL, "n_folds": 3, "max_iter": 4}, dtype="float64").fit(FRAME, y)
    fold = deal(fitted._strata(y), N, 3, np.random.RandomState(0))
    encoded = dense(Coder(fitted.columns_).codes(Table(FRAME)))
    for number, member in enumerate(fitted.estimators_):
        again = clone(member)
        again.n_features_in_ = encoded.shape[1]
        fitted._share_target(again, fitted)
        split = RowSplit(np.flatnonzero(fold != number), np.flatnonzero(fold == number))
        again._fit_member(encoded, fitted._network_target(y), None, "", split)
        np.testing.assert_allclose(again.loss_curve_, member.loss_curve_, rtol=1e-9)
        np.testing.assert_allclose(again.validation_loss_curve_, member.validation_loss_curve_, rtol=1e-9)


SCRIPT = """
import warnings
from pathlib import Path
import numpy as np, pandas as pd
from fastmlp import TabularRegressor

def status(name):
    return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[0])

warnings.simplefilter("ignore")
draws = np.random.default_rng(0)
X = pd.DataFrame({f"x{i}": draws.standard_normal(300_000) for i in range(30)})
X["word"] = draws.choice(np.array(["a", "b", "c"], dtype=object), 300_000)
y = X["x0"].to_numpy() ** 2
model = TabularRegressor(hidden_layer_sizes=(16,), max_iter=1, n_folds=3, n_jobs=2, random_state=0)
model.fit(X[:500], y[:500]).predict(X[:500])
for call in (lambda: model.fit(X, y), lambda: model.predict(X)):
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS:")
    call()
    print(status("VmHWM:") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or SANITIZED, reason="reads Linux's /proc, and sanitizers keep what is freed"
)
def test_memory_of_a_fit_is_six_bytes_a_number():
    """And some for each row, however many columns it has: order, target, outputs. The dense encoding had 1,800 MB."""
    fit, predict = map(int, output_of(SCRIPT).split())
    codes = 300_000 * (30 * 6 + 2)
    assert codes * 0.9 < fit < codes + 300_000 * 100 + 2**24
    assert predict < 2**25
