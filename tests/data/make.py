"""Makes the models of this folder with the fastmlp that is installed: python tests/data/make.py VERSION.

One of each kind of file and the same models as pickles, named by the version that made them. They are made once, when a
version is released, and never again: tests/estimators/test_pickles.py loads all of them with the version under test.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np

import fastmlp

HERE = Path(__file__).parent


def rows() -> np.ndarray:
    """What the models are trained on, and asked about: nothing random, so that it is the same with any NumPy."""
    grid = np.arange(40 * 5, dtype=np.float64).reshape(40, 5)
    return np.sin(grid * 0.7) + np.cos(grid**2 * 0.03)


def models() -> dict[str, object]:
    """Fitted models: labels of each kind, most of what parameters may hold, the optimizer's memory."""
    X = rows()
    number = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
    common = {"hidden_layer_sizes": (6, 6), "max_iter": 3, "random_state": 1}
    classifier = fastmlp.MLPClassifier(
        **common, batch_norm=True, residual=True, dropout=0.1, solver="adamw", weight_decay=0.01,
        learning_rate=fastmlp.StepDecay(at=(0.3, 0.6)), class_weight={"low": 1.0, "mid": 2.0, "top": 1.0},
    )  # fmt: skip
    labels = np.array(["low", "mid", "top"], dtype=object)[number]
    for _ in range(3):
        classifier.partial_fit(X, labels, classes=["low", "mid", "top"])
    regressor = fastmlp.MLPRegressor(**common, dtype="float32", early_stopping=True).fit(
        X, X[:, :2] @ [[1.0, 2.0], [0.5, -1.0]]
    )
    ensemble = fastmlp.MLPEnsembleClassifier(fastmlp.MLPClassifier(**common), n_estimators=2, random_state=0).fit(
        X, number > 0
    )
    small = {"n_folds": 2, "n_bins": 4, "categorical_features": [4], "max_categories": 5}
    tabular = fastmlp.TabularRegressor(**{**common, "hidden_layer_sizes": (6,)}, **small).fit(X, 1000 * X[:, 0])
    return {
        "classifier": classifier,
        "regressor": regressor,
        "ensemble": ensemble,
        "tabular": tabular,
        "network": classifier.network_.copy(),
    }


def answer(model: object) -> np.ndarray:
    """What a model says of the rows."""
    if isinstance(model, fastmlp.Network):
        return model.forward(rows())
    return model.predict_proba(rows()) if hasattr(model, "predict_proba") else model.predict(rows())


def main(version: str) -> None:
    """Write the models, and what each says of the rows."""
    if version != fastmlp.__version__:
        sys.exit(f"The installed fastmlp is {fastmlp.__version__}.")
    answers = {}
    for name, model in models().items():
        state = {"optimizer_state": True} if name == "classifier" else {}
        model.save(HERE / f"{name}-{version}.safetensors", **state)
        (HERE / f"{name}-{version}.pickle").write_bytes(pickle.dumps(model, protocol=4))
        answers[name] = answer(model)
    np.savez(HERE / f"answers-{version}.npz", **answers)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
