"""method='realmlp': the draws, losses and predictions of the authors' code, its inputs, and what becomes of odd columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fastmlp.training.loop as loop
from fastmlp import TabularClassifier, TabularRegressor
from fastmlp.tabular.coding import Scaler
from fastmlp.tabular.frames import Table
from fastmlp.tabular.recipes import RealMLPNetwork
from fastmlp.training.run import Method

# Made by data/make_realmlp.py with pytabkit 1.7.3.
THEIRS = np.load(Path(__file__).parent.parent / "data" / "realmlp.npz")


def their_table():
    """The columns and the signal that the authors' models were trained on."""
    X = pd.DataFrame({name.removeprefix("table."): THEIRS[name] for name in THEIRS if name.startswith("table.")})
    X["gaps"] = X["gaps"].where(X["gaps"] != "", None)
    return X, X.pop("signal").to_numpy()


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_agrees_with_the_authors(kind, monkeypatch):
    """The inputs; and from the same parameters and the same rows, 20 losses and the best epoch's predictions."""
    X, signal = their_table()
    y = {"binary": np.digitize(signal, [0.0]), "multiclass": np.digitize(signal, [-0.5, 1.0])}.get(kind, signal)
    given = {name.removeprefix(f"{kind}."): THEIRS[name] for name in THEIRS if name.startswith(kind)}
    train, batches, losses = given["train"], iter(given["batches"].reshape(5, 100)), []
    place = np.empty(len(X), np.intp)
    place[train] = np.arange(len(train))

    def draw_theirs(maker, *args, **options):
        network = draw_ours(maker, *args, **options)
        for layer in range(len(network.coefs) - 1):
            W = given[f"{layer}.weight"]
            network.coefs[layer][...] = W / np.sqrt(len(W))
            network.intercepts[layer][...] = given[f"{layer}.bias"][0]
        assert not np.any(given["3.weight"])
        assert not network.coefs[-1].any()
        assert not network.intercepts[-1].any()
        return network

    def shuffle_theirs(order, *_):
        order[:100] = place[next(batches)]

    def note_losses(method, t, n_steps):
        losses.append(np.empty(n_steps))
        return {"step_losses": losses[-1]}

    draw_ours = RealMLPNetwork.__call__
    monkeypatch.setattr(RealMLPNetwork, "__call__", draw_theirs)
    monkeypatch.setattr(loop, "shuffle", shuffle_theirs)
    monkeypatch.setattr(Method, "schedules", note_losses)
    Model = TabularRegressor if kind == "regression" else TabularClassifier
    model = Model(
        "realmlp", n_folds=1, max_iter=5, batch_size=25, hidden_layer_sizes=(16,) * 3, dtype="float64", random_state=0
    )
    rows = given["validation"]
    model.fit(X.iloc[train], y[train], eval_set=(X.iloc[rows], y[rows]))

    inputs = Scaler(model.columns_, "float64").codes(Table(X))
    np.testing.assert_allclose(inputs, given["inputs"], rtol=1e-6, atol=1e-6)
    factor = 2.0 if kind == "regression" else 1.0  # ours is half of the squared error
    np.testing.assert_allclose(factor * np.concatenate(losses), given["losses"], rtol=0, atol=1e-6)
    prediction = model.predict(X) if kind == "regression" else model.predict_proba(X)
    low, high = y[train].min(), y[train].max()
    expected = np.clip(given["prediction"], low, high) if kind == "regression" else given["prediction"]
    np.testing.assert_allclose(prediction, expected, rtol=1e-5, atol=1e-6)
