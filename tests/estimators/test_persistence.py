"""save and load: a saved model comes back whole, training continues from it, and values that are not data raise."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from helpers import classification, multilabel, name_of, regression
from safetensors import safe_open
from scipy.sparse import csr_matrix
from sklearn.exceptions import NotFittedError

import fastmlp
from fastmlp import (
    CosineDecay,
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    OneCycle,
    StepDecay,
    core,
)
from fastmlp.estimators.parameters import plain
from fastmlp.training.solvers import STOCHASTIC_SOLVERS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:lbfgs failed")

X, Y = classification(3)
REAL = regression(n_outputs=2)[1]
SMALL = {"hidden_layer_sizes": (9, 7), "max_iter": 3, "random_state": 5}
# Kinds of labels, each for the same three classes; the last is for two.
LABELS = {
    "int64": Y, "int8": Y.astype(np.int8), "uint64": Y.astype(np.uint64) + 2**63, "float": Y.astype(float),
    "str": np.array(["a", "bß", "c\U0001f600c"])[Y],
    "wide str": np.array(["a", "b", "c"], dtype="U20")[Y],
    "object": np.array(["low", "mid", "top\ud800"], dtype=object)[Y], "bool": Y > 0,
}  # fmt: skip


def saved(model, tmp_path, **options):
    """The model, written and read."""
    model.save(tmp_path / "model.safetensors", **options)
    return fastmlp.load(tmp_path / "model.safetensors")


def same(a, b):
    """Whether two values are equal, and of one type all the way down."""
    a, b = (np.asarray(value) if isinstance(value, core.OptimizerPanels) else value for value in (a, b))
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, Network):
        return all(same(a.__getstate__()[name], value) for name, value in b.__getstate__().items())
    if isinstance(a, np.random.RandomState):
        return same(a.get_state()[1], b.get_state()[1]) and a.get_state()[2:] == b.get_state()[2:]
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (MLPClassifier, MLPRegressor)):
        return same(vars(a), {name: vars(b)[name] for name in vars(a)})
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_come_back(labels, tmp_path):
    """Of each type: the same predictions, in the same type."""
    estimator = MLPClassifier(**SMALL).fit(X, labels)
    other = saved(estimator, tmp_path)
    assert same(other.classes_, estimator.classes_)
    assert same(other.predict(X), estimator.predict(X))
    assert same(other.predict_proba(X), estimator.predict_proba(X))
    assert other.score(X, labels) == estimator.score(X, labels)


def test_unusual_labels_are_refused(tmp_path):
    """Not data that the format has a place for."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    estimator.classes_ = np.array([(1,), (2,), (3,), None], dtype=object)[:3]
    with pytest.raises(TypeError, match="classes_ cannot be saved"):
        estimator.save(tmp_path / "model")


@pytest.mark.parametrize("sparse", [False, True])
def test_multilabel_comes_back(sparse, tmp_path):
    """Sparse predictions for sparse targets."""
    _, indicators = multilabel()
    estimator = MLPClassifier(**SMALL).fit(X, csr_matrix(indicators) if sparse else indicators)
    got, expected = saved(estimator, tmp_path).predict(X), estimator.predict(X)
    assert type(got) is type(expected)
    assert np.array_equal(got.toarray() if sparse else got, expected.toarray() if sparse else expected)


@pytest.mark.parametrize("settings", [
    {}, {"dtype": "float32", "early_stopping": True}, {"solver": "lbfgs", "max_iter": 20},
    {"batch_norm": True, "residual": True, "hidden_layer_sizes": (9, 9)},
    {"hidden_layer_sizes": ()}, {"activation": ["gelu", "tanh"]}, {"loss": "huber"},
    {"learning_rate": "adaptive", "solver": "sgd", "tol": 10.0, "n_iter_no_change": 1},
], ids=str)  # fmt: skip
def test_all_attributes_come_back(settings, tmp_path):
    """With optimizer_state, everything that fit has left in the estimator."""
    estimator = MLPRegressor(**{**SMALL, **settings}).fit(X, REAL)
    other = saved(estimator, tmp_path, optimizer_state=True)
    parameters = estimator.get_params()
    changed = {
        name
        for name, value in vars(estimator).items()
        if not same(plain(value) if name in parameters else value, vars(other).get(name))
    }
    assert changed <= {"_by_partial_fit"}  # a pickle of what was loaded keeps the optimizer's memory
    assert set(vars(other)) == set(vars(estimator))
    assert same(other.predict(X), estimator.predict(X))
    assert other.network_.parameters.ctypes.data % 64 == 0


VALUES = {
    "hidden_layer_sizes": [9, [9, np.int64(7)], np.array([9, 7]), (9, 7)],
    "activation": ["gelu", ["relu", "tanh"], np.array(["relu", "tanh"]), np.str_("selu")],
    "alpha": [0, 1e-7, np.float64(0.1), np.float32(0.1)],
    "learning_rate": ["cosine", CosineDecay(final=0.5), StepDecay(at=(0.1, 0.2)), OneCycle()],
    "max_iter": [2, np.int32(2)], "shuffle": [False, np.bool_(False)],
    "random_state": [None, 7, np.random.RandomState(3)], "verbose": [False, 0],
    "n_iter_no_change": [5, np.inf], "dropout": [0.5, [0.0, 0.1, 0.2], np.array([0.0, 0.1, 0.2])],
    "weight_init": ["orthogonal", ("normal", 0.1)],
    "bias_init": [("constant", -1.0)], "max_grad_norm": [None, 1.5], "validation_metric": [None, "neg_log_loss"],
    "n_jobs": [-1, 1],
    "class_weight": [None, "balanced", {0: 1.0, 1: 2, 2: 0.5}],
    "pretrained": [None, Network((13, 9, 7, 2), dtype="float64", random_state=1)],
    "warm_start": [True], "dtype": ["float32"], "batch_size": [10, "auto"],
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_parameters_come_back(name, tmp_path):
    """Equal in meaning: NumPy's numbers as Python's, sequences as tuples."""
    for value in VALUES[name]:
        estimator = MLPClassifier(**{**SMALL, name: value}).fit(X, Y)
        other = saved(estimator, tmp_path)
        assert same(getattr(other, name), plain(getattr(estimator, name))), value
        assert same(other.network_.parameters, estimator.network_.parameters)
        assert same(other.predict_proba(X), estimator.predict_proba(X))


@pytest.mark.parametrize(("name", "value", "words"), [
    ("learning_rate", lambda step, n_steps: 1.0, "function"),
    ("weight_init", lambda a, b, rng: np.ones((a, b)), "function"),
    ("bias_init", lambda a, b, rng: np.ones(b), "function"), ("validation_metric", lambda e, X, y: 1.0, "function"),
    ("random_state", np.random.RandomState(np.random.PCG64(1)), "RandomState"),
])  # fmt: skip
def test_what_is_no_data_is_refused_by_name(name, value, words, tmp_path):
    """And the file that was there stays."""
    path = tmp_path / "model.safetensors"
    MLPClassifier(**SMALL).fit(X, Y).save(path)
    before = path.read_bytes()
    estimator = MLPClassifier(**{**SMALL, name: value}).fit(X, Y)
    with pytest.raises(TypeError, match=f"{name}=.*{words} cannot be saved.*pickle"):
        estimator.save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_numbers_that_are_not_finite_come_back(tmp_path):
    """In a record, as those of a metric that is undefined or of a run that diverges."""
    estimator = MLPRegressor(**SMALL, early_stopping=True).fit(X, REAL)
    estimator.validation_scores_[0] = estimator.history_[0]["validation_score"] = np.nan
    estimator.best_validation_score_, estimator.loss_curve_[0] = -np.inf, np.inf
    other = saved(estimator, tmp_path)
    for name in ("history_", "validation_scores_", "best_validation_score_", "loss_curve_"):
        assert same(getattr(other, name), getattr(estimator, name))


def test_normalised_parameters_are_no_change(tmp_path):
    """A loaded estimator compares its terms with those of the fit: a list that is a tuple now, and NumPy's numbers, are
    equal."""
    settings = {
        "hidden_layer_sizes": [9, np.int64(7)],
        "alpha": np.float32(0.1),
        "class_weight": {np.int64(k): 1.0 for k in range(3)},
    }
    estimator = MLPClassifier(**{**SMALL, **settings}).fit(X, Y)
    other = saved(estimator, tmp_path)
    assert other._terms() == estimator._terms() == other._run_terms


def test_function_of_old_is_left_out(tmp_path):
    """One that set_params has replaced since: file and pickle hold what is there now, and the next fit takes that for a
    change."""
    estimator = (
        MLPClassifier(**SMALL, warm_start=True, learning_rate=lambda step, n_steps: 1.0)
        .fit(X, Y)
        .set_params(learning_rate="cosine")
    )
    for other in (saved(estimator, tmp_path), pickle.loads(pickle.dumps(estimator))):
        assert other._run_terms["rate"]["learning_rate"] is None
        assert same(other.fit(X, Y).network_, copy.deepcopy(estimator).fit(X, Y).network_)


def test_models_that_cannot_be_loaded_are_not_saved(tmp_path):
    """Whatever would not come back: unfitted, of another class, with what is not ours or not valid."""
    path = tmp_path / "model.safetensors"
    estimator = MLPClassifier(**SMALL)
    with pytest.raises(NotFittedError):
        estimator.save(path)
    estimator.fit(X, Y)

    class Mine(MLPClassifier):
        pass

    with pytest.raises(TypeError, match="Mine cannot be saved"):
        Mine(**SMALL).fit(X, Y).save(path)
    estimator.note = "mine"
    with pytest.raises(TypeError, match="attribute 'note'"):
        estimator.save(path)
    del estimator.note
    for changes in (
        {"alpha": -1.0},
        {"weight_init": "best"},
        {"dropout": [0.1]},
        {"hidden_layer_sizes": (0,)},
        {"activation": ["best"]},
    ):
        before = {name: getattr(estimator, name) for name in changes}
        with pytest.raises(fastmlp.FileFormatError, match=next(iter(changes))):
            estimator.set_params(**changes).save(path)
        estimator.set_params(**before)
    estimator.coefs_[0][0, 0] = np.nan
    with pytest.raises(fastmlp.FileFormatError, match=r"coefs\.0.*finite"):
        estimator.save(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("Ensemble", [MLPEnsembleClassifier, MLPEnsembleRegressor])
@pytest.mark.parametrize("members", ["seeds", "bootstrap", "snapshots"])
def test_ensembles_come_back(Ensemble, members, tmp_path):
    """Members and all."""
    y = Y if Ensemble is MLPEnsembleClassifier else REAL
    ensemble = Ensemble(Ensemble._member_class(**SMALL), n_estimators=3, members=members, random_state=0).fit(X, y)
    other = saved(ensemble, tmp_path, optimizer_state=True)
    assert same(other.predict(X), ensemble.predict(X))
    assert all(same(a.network_, b.network_) for a, b in zip(ensemble.estimators_, other.estimators_, strict=True))
    assert str(other.get_params()) == str(ensemble.get_params())


def test_feature_names_come_back(tmp_path):
    """And are asked for."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"ä{i}" for i in range(X.shape[1])])
    other = saved(MLPClassifier(**SMALL).fit(frame, Y), tmp_path)
    assert list(other.feature_names_in_) == list(frame.columns)
    with pytest.warns(UserWarning, match="feature names"):
        other.predict(X)


# --- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [
    *({"solver": solver,
        "momentum": momentum} for solver in STOCHASTIC_SOLVERS for momentum in ([0.9,
            0.0] if solver == "sgd" else [0.9])),
    {"solver": "sgd", "learning_rate": "invscaling"},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 1},
    {"learning_rate": "one_cycle", "max_iter": 6},
    {"dropout": 0.2, "input_noise": 0.1, "input_mask": 0.1, "mixup": 0.3}, {"batch_norm": True},
    {"random_state": 12}, {"random_state": np.random.RandomState(12)}, {"dtype": "float32"},
], ids=name_of)  # fmt: skip
def test_partial_fit_goes_on_as_if_uninterrupted(settings, tmp_path):
    """The same bits as the original, which is trained on only after the copy was: nothing is shared."""
    estimator = MLPClassifier(**{**SMALL, "batch_size": 50, **settings})
    for _ in range(3):
        estimator.partial_fit(X, Y, classes=[0, 1, 2])
    start = estimator.network_.copy()
    other, fresh = saved(estimator, tmp_path, optimizer_state=True), saved(estimator, tmp_path)
    for each in (other, estimator, fresh):
        for _ in range(3):
            each.partial_fit(X, Y)
    assert same(other.network_, estimator.network_)
    assert other.loss_curve_ == estimator.loss_curve_
    assert not same(start, estimator.network_)
    # Without the memory and the order of rows, it is another run.
    assert not same(fresh.network_, estimator.network_) or settings.get("random_state") is not None


@pytest.mark.parametrize("settings", [
    {}, {"early_stopping": True}, {"solver": "lbfgs"}, {"learning_rate": "cosine", "dropout": 0.2},
    {"random_state": np.random.RandomState(12)},
    {"learning_rate": CosineDecay(final=0.3)}, {"alpha": np.float64(0.1), "hidden_layer_sizes": np.array([9, 7])},
], ids=name_of)  # fmt: skip
def test_warm_start_goes_on_as_if_uninterrupted(settings, tmp_path):
    """Without optimizer_state: a fit begins with an empty memory."""
    estimator = MLPClassifier(**{**SMALL, "warm_start": True, **settings}).fit(X, Y)
    other = saved(estimator, tmp_path)
    for _ in range(2):
        other.fit(X, Y)
        estimator.fit(X, Y)
    assert same(other.network_, estimator.network_)
    assert [e["loss"] for e in other.history_] == [e["loss"] for e in estimator.history_]
    for name in ("loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "_no_improvement_count"):
        assert same(getattr(other, name, None), getattr(estimator, name, None))


def test_frozen_layers_stay_frozen(tmp_path):
    """The layers' rates are in the file."""
    estimator = MLPClassifier(**SMALL).fit(X, Y).freeze()
    other = saved(estimator, tmp_path)
    assert other.layer_rates_ == estimator.layer_rates_
    assert same(other.partial_fit(X, Y).coefs_[0], estimator.coefs_[0])


# --- the file -----------------------------------------------------------------------------------------------------


def test_file_is_what_the_documentation_says(tmp_path):
    """Any reader of safetensors finds weights by layer, and the description as JSON."""
    estimator = MLPClassifier(**SMALL, batch_norm=True).fit(X, Y)
    estimator.save(tmp_path / "model.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for name in ("coefs", "intercepts"):
        for layer, array in enumerate(getattr(estimator.network_, name)):
            assert same(tensors[f"{name}.{layer}"], np.array(array))
    for name in ("scales", "means", "variances"):
        assert same(tensors[f"{name}.1"], np.array(getattr(estimator.network_, name)[1]))
    with safe_open(tmp_path / "model.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert set(metadata) == {"fastmlp_format", "fastmlp_version", "model"}
    assert metadata["fastmlp_format"] == "1"
    model = json.loads(metadata["model"])
    assert model["class"] == "MLPClassifier"
    assert model["fitted"]["network"]["layer_sizes"] == [13, 9, 7, 3]
    page = (Path(__file__).parents[2] / "docs" / "saving.md").read_text()
    words = {
        *model,
        *model["fitted"],
        *model["fitted"]["network"],
        *model["fitted"]["record"],
        *model["fitted"]["target"],
    }
    assert [word for word in words if f"`{word}`" not in page] == []


def test_network_file_needs_no_sklearn(tmp_path):
    """A service reads and predicts with NumPy and safetensors."""
    network = Network((4, 8, 3), random_state=0, batch_norm=True)
    network.save(tmp_path / "network")
    assert same(Network.load(tmp_path / "network"), network)
    assert same(fastmlp.load(tmp_path / "network"), network)
    code = (
        "import sys, numpy\nfrom fastmlp import Network\nn = Network.load(sys.argv[1])\nn.forward(numpy.ones((1, 4), "
        "'float32'))\n"
        "assert not {'sklearn', 'scipy'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-P", "-c", code, str(tmp_path / "network")], check=True)
    MLPClassifier(**SMALL).fit(X, Y).save(tmp_path / "estimator")
    with pytest.raises(fastmlp.FileFormatError, match="'MLPClassifier', not 'Network'"):
        Network.load(tmp_path / "estimator")


def test_permissions_and_links_stay(tmp_path):
    """A new file's are the umask's, an existing file keeps its own; what a link points at is replaced, not the link."""
    network = Network((2, 3, 2), random_state=0)
    old = os.umask(0o027)
    try:
        network.save(tmp_path / "model")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o640
    (tmp_path / "model").chmod(0o604)
    (tmp_path / "link").symlink_to("model")
    before = (tmp_path / "model").stat().st_ino
    network.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o604
    assert (tmp_path / "model").stat().st_ino != before
    assert same(Network.load(tmp_path / "model"), network)
