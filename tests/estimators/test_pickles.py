"""Pickles and joblib: small, memory-mapped, and read across versions; files of earlier versions, too."""

from __future__ import annotations

import importlib.util
import pickle
import re
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
from helpers import classification, tolerance

import fastmlp
from fastmlp import MLPClassifier, MLPEnsembleClassifier

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DATA = Path(__file__).parents[1] / "data"
VERSIONS = sorted(re.sub(r"answers-(.*)\.npz", r"\1", path.name) for path in DATA.glob("answers-*.npz"))
MODELS = ("classifier", "regressor", "ensemble", "tabular", "network")
X, Y = classification(3)
WIDE = {"hidden_layer_sizes": (300, 200), "max_iter": 2, "random_state": 0}
# Beside the weights: parameters, history, the random state.
ROOM = 10_000

spec = importlib.util.spec_from_file_location("make", DATA / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def test_pickle_holds_weights_once():
    """And the optimizer's memory only where partial_fit goes on from it."""
    estimator = MLPClassifier(**WIDE, early_stopping=True).fit(X, Y)
    size = estimator.network_.parameters.nbytes
    assert size > 10 * ROOM
    assert size < len(pickle.dumps(estimator)) < size + ROOM
    continued = MLPClassifier(**WIDE).partial_fit(X, Y, classes=[0, 1, 2])
    assert 3 * size < len(pickle.dumps(continued)) < 3 * size + ROOM
    assert len(pickle.dumps(continued.fit(X, Y))) < size + ROOM
    ensemble = MLPEnsembleClassifier(MLPClassifier(**WIDE), n_estimators=2, members="snapshots").fit(X, Y)
    assert len(pickle.dumps(ensemble)) < 2 * (size + ROOM)


def test_file_holds_weights_once(tmp_path):
    """And the optimizer's memory on request."""
    path = tmp_path / "model"
    estimator = MLPClassifier(**WIDE).fit(X, Y)
    size = estimator.network_.parameters.nbytes
    estimator.save(path)
    assert size < path.stat().st_size < size + ROOM
    estimator.save(path, optimizer_state=True)
    assert 3 * size < path.stat().st_size < 3 * size + ROOM


def test_pickle_of_a_fit_trains_on_with_an_empty_memory():
    """From the same parameters, and the same draws."""
    estimator = MLPClassifier(**WIDE).fit(X, Y)
    other = pickle.loads(pickle.dumps(estimator))
    assert hasattr(estimator, "_optimizer_state")
    assert not hasattr(other, "_optimizer_state")
    del estimator._optimizer_state
    assert np.array_equal(other.partial_fit(X, Y).network_.parameters, estimator.partial_fit(X, Y).network_.parameters)


def test_loaded_file_is_pickled_whole(tmp_path):
    """Who asked for the optimizer's memory is not deprived of it by a pickle."""
    estimator = MLPClassifier(**WIDE).fit(X, Y)
    estimator.save(tmp_path / "model", optimizer_state=True)
    other = pickle.loads(pickle.dumps(fastmlp.load(tmp_path / "model")))
    assert np.array_equal(other.partial_fit(X, Y).network_.parameters, estimator.partial_fit(X, Y).network_.parameters)


def test_memory_mapped_ensembles_predict(tmp_path):
    """Weights stay in the file, read-only."""
    ensemble = MLPEnsembleClassifier(MLPClassifier(**WIDE), n_estimators=2, random_state=0).fit(X, Y)
    joblib.dump(ensemble, tmp_path / "model")
    other = joblib.load(tmp_path / "model", mmap_mode="r")
    assert all(isinstance(member.network_.parameters, np.memmap) for member in other.estimators_)
    assert np.array_equal(other.predict_proba(X), ensemble.predict_proba(X))
    refitted = other.estimators_[0].set_params(warm_start=True).fit(X, Y)  # on a copy of its own
    assert not isinstance(refitted.network_.parameters, np.memmap)


def test_pickle_of_another_version_warns_and_gets_new_parameters():
    """As scikit-learn's do; one that says no version is older still."""
    estimator = MLPClassifier(**WIDE).fit(X, Y)
    state = estimator.__getstate__()
    assert state.pop("_fastmlp_version") == fastmlp.__version__
    del state["mixup"]
    for version in ({"_fastmlp_version": "0.0.9"}, {}):
        other = MLPClassifier.__new__(MLPClassifier)
        with pytest.warns(fastmlp.InconsistentVersionWarning, match=version.get("_fastmlp_version", "older")) as caught:
            other.__setstate__({**state, **version})
        assert caught[0].message.estimator_name == "MLPClassifier"
        assert other.mixup == 0.0
        assert np.array_equal(other.predict(X), estimator.predict(X))
        assert str(pickle.loads(pickle.dumps(caught[0].message))) == str(caught[0].message)


def test_pickle_of_this_version_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(MLPClassifier()))


def test_this_version_is_kept():
    """Its files are made when it is released: python tests/data/make.py VERSION."""
    assert fastmlp.__version__ in VERSIONS


@pytest.mark.filterwarnings("ignore::fastmlp.InconsistentVersionWarning")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MODELS)
def test_models_of_each_version_load(name, version):
    """Files and pickles say of the same rows what they said then; and trained models train on."""
    expected = np.load(DATA / f"answers-{version}.npz")[name]
    assert np.ptp(expected) > 0
    for model in (
        fastmlp.load(DATA / f"{name}-{version}.safetensors"),
        pickle.loads((DATA / f"{name}-{version}.pickle").read_bytes()),
    ):
        atol = tolerance(expected.dtype, 100, np.abs(expected).max())
        np.testing.assert_allclose(make.answer(model), expected, rtol=0, atol=atol)
        if name == "classifier":
            before = model.network_.copy()
            model.partial_fit(make.rows(), model.classes_[np.arange(40) % 3])
            assert not np.array_equal(before.parameters, model.network_.parameters)
            assert model.t_ == 4 * 40


@pytest.mark.filterwarnings("ignore::fastmlp.InconsistentVersionWarning")
@pytest.mark.parametrize("version", VERSIONS)
def test_file_and_pickle_of_a_version_train_on_alike(version):
    """The optimizer's memory and the random state are in both."""
    models = [
        fastmlp.load(DATA / f"classifier-{version}.safetensors"),
        pickle.loads((DATA / f"classifier-{version}.pickle").read_bytes()),
    ]
    y = models[0].classes_[np.arange(40) % 3]
    first, second = (model.partial_fit(make.rows(), y).network_.parameters for model in models)
    assert np.array_equal(first, second)
