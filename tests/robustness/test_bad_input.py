"""Bad input: an error that names what was wrong, and a fitted estimator that is as it was."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import classification, counts, output_of_fork, regression
from scipy import sparse
from sklearn.exceptions import NotFittedError

from fastmlp import MLPClassifier, MLPRegressor, Network

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")

SMALL = {"hidden_layer_sizes": (9,), "max_iter": 3, "random_state": 0}
X, Y = classification(3)
REAL = regression()[1]


def with_value(value, row=5, column=2):
    """X with one element replaced."""
    bad = X.copy()
    bad[row, column] = value
    return bad


def snapshot(estimator):
    """Attributes of a fitted estimator, and copies of its arrays."""
    return dict(vars(estimator)), estimator.network_.parameters.copy(), estimator.predict(X).copy()


def assert_unchanged(estimator, before):
    """Same attributes, same objects, same arrays, same predictions."""
    attributes, parameters, predicted = before
    parameters_set = estimator.get_params()
    now = {name: value for name, value in vars(estimator).items() if name not in parameters_set}
    assert now.keys() == {name for name in attributes if name not in parameters_set}
    assert all(now[name] is attributes[name] for name in now)
    assert np.array_equal(estimator.network_.parameters, parameters)
    assert np.array_equal(estimator.predict(X), predicted)


BAD_DATA = {
    "nan": (with_value(np.nan), Y, None, "contains NaN"),
    "infinity": (with_value(-np.inf), Y, None, "contains infinity"),
    "sparse nan": (sparse.csr_matrix(with_value(np.nan)), Y, None, "contains NaN"),
    "1-D X": (X[:, 0], Y, None, "Expected 2D array"),
    "3-D X": (X[np.newaxis], Y, None, "dim 3"),
    "no rows": (X[:0], Y[:0], None, "0 sample"),
    "no columns": (X[:, :0], Y, None, "0 feature"),
    "short y": (X, Y[:-1], None, "inconsistent numbers of samples"),
    "y None": (X, None, None, "requires y to be passed"),
    "y of NaN": (X, np.where(Y == 1, np.nan, Y), None, "contains NaN"),
    "continuous y": (X, REAL, None, "Unknown label type"),
    "multioutput classes": (X, np.stack([Y, Y], axis=1) + 1, None, "Multioutput target data is not supported"),
    "short weights": (X, Y, np.ones(3), "sample_weight.shape"),
    "NaN weight": (X, Y, np.full(len(X), np.nan), "contains NaN"),
    "zero weights": (X, Y, np.zeros(len(X)), "at least one non-zero"),
    "strings": (X.astype(str).astype(object) + "a", Y, None, "could not convert"),
    "complex": (X + 1j, Y, None, "Complex data not supported"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused(case, method):
    """The error says what was wrong; the estimator is as before, trained or not."""
    bad_X, bad_y, weight, message = BAD_DATA[case]
    if method == "partial_fit" and case in ("continuous y", "multioutput classes", "no columns"):
        message = None  # an error of partial_fit's own
    fresh, fitted = MLPClassifier(**SMALL), MLPClassifier(**SMALL).fit(X, Y)
    before = snapshot(fitted)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(fitted, method)(bad_X, bad_y, weight)
    assert_unchanged(fitted, before)
    with pytest.raises((ValueError, TypeError), match=message):
        fresh.fit(bad_X, bad_y, weight)
    assert vars(fresh) == vars(MLPClassifier(**SMALL))


BAD_PARAMETERS = {
    "hidden_layer_sizes": [0, -3, (5, 0), (5, -1), (5, 2.5), "many", None, (True,)],
    "activation": ["rleu", None, 3, ("relu", "relu"), ["rleu"], []],
    "solver": ["adma", "gradient", "sgd_nesterov", None],
    "alpha": [-1e-9, "big", None],
    "batch_size": [0, -5, 2.5, "all"],
    "learning_rate": ["falling", None, lambda step, n_steps: -1.0, lambda step, n_steps: np.nan],
    "learning_rate_init": [0, -1e-3],
    "power_t": [-0.1],
    "max_iter": [0, -1, 2.5],
    "shuffle": ["yes"],
    "random_state": ["seed", -1],
    "tol": [-1e-3],
    "verbose": [-1],
    "warm_start": ["no"],
    "momentum": [-0.1, 1.1],
    "nesterovs_momentum": ["no"],
    "early_stopping": ["no"],
    "validation_fraction": [-0.1, 1.0],
    "beta_1": [-0.1, 1.0],
    "beta_2": [-0.1, 1.0],
    "epsilon": [0.0, -1.0],
    "n_iter_no_change": [0, 2.5],
    "max_fun": [0],
    "dtype": ["float16", "double", None, np.float16, int, np.dtype("int32")],
    "n_jobs": [0, -2, 1.5, "all"],
    "l1_ratio": [-0.1, 1.1],
    "rho": [-0.1, 1.0],
    "class_weight": ["even", 3],
    "dropout": [-0.1, 1.0, (0.5,), (0.1, 0.2, 0.3), (0.1, 1.0), ("a", "b"), np.nan],
    "batch_norm": ["yes", None],
    "residual": ["yes", None],
    "label_smoothing": [-0.1, 1.0],
    "weight_init": ["he", ("normal",), ("normal", -1.0), 5, None, lambda fan_in, fan_out, rng: np.zeros(3)],
    "bias_init": ["orthogonal", ("uniform", "wide"), 5, None, lambda fan_in, fan_out, rng: np.full(fan_out, np.nan)],
    "weight_decay": [-0.1, 0.1],
    "max_grad_norm": [0.0, -1.0, "big"],
    "validation_metric": ["acuracy", 3],
    "input_noise": [-0.1, "loud"],
    "input_mask": [-0.1, 1.0],
    "mixup": [-0.1, None],
    "pretrained": ["resnet", 3, MLPClassifier(**SMALL), Network((13, 8, 3)), Network((13, 9, 3), "tanh")],
    "pretrained_rate": [-0.1, None],
    "loss_reduction": ["sum", None],
    "quantile": [0.0, 1.0],
    "huber_delta": [0.0, -1.0],
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameter_is_refused(name):
    """The error names the parameter; the estimator is as before."""
    for value in BAD_PARAMETERS[name]:
        for estimator, y in ((MLPClassifier(**SMALL), Y), (MLPRegressor(**SMALL), REAL)):
            if name not in estimator.get_params():
                continue
            estimator.fit(X, y)
            before = snapshot(estimator)
            estimator.set_params(**{name: value})
            with pytest.raises(ValueError, match=name):
                estimator.fit(X, y)
            if name != "n_jobs":
                assert_unchanged(estimator, before)


def test_parameters_have_a_bad_value_each():
    """A new parameter needs a row above."""
    assert set(BAD_PARAMETERS) == set(MLPClassifier().get_params()) | set(MLPRegressor().get_params()) - {"loss"}


@pytest.mark.parametrize(("bad_X", "message"), [
    (X[:, :-1], "expecting 13 features"), (X[0], "Expected 2D array"), (X[:0], "minimum of 1 is required"),
    (with_value(np.nan), "contains NaN"), (with_value(np.inf), "contains infinity"),
    (X.astype(object) * 1j, "complex"), ("text", "'text'"),
], ids=["columns", "one row", "no row", "nan", "inf", "complex", "text"])  # fmt: skip
def test_bad_data_is_refused_in_prediction(bad_X, message):
    """predict, predict_proba: checked like fit."""
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    for predict in (estimator.predict, estimator.predict_proba, estimator.predict_log_proba):
        with pytest.raises((ValueError, TypeError), match=message):
            predict(bad_X)
    estimator.predict(X)


def test_bad_loss_and_its_targets():
    """The regressor's own: unknown losses, classification's losses, negative counts."""
    for loss in ("poison", "log_loss", "binary_log_loss", None):
        with pytest.raises(ValueError, match="loss"):
            MLPRegressor(loss, **SMALL).fit(X, REAL)
    with pytest.raises(ValueError, match="y must be >= 0 for loss='poisson'"):
        MLPRegressor("poisson", **SMALL).fit(X, -counts()[1])
    with pytest.raises(TypeError, match="y must be numbers"):
        MLPRegressor(**SMALL).fit(X, np.char.add(REAL.astype(str), "a"))
    with pytest.raises(TypeError, match="y must be dense"):
        MLPRegressor(**SMALL).fit(X, sparse.csr_matrix(np.stack([REAL, REAL], axis=1)))


def test_bad_continuation():
    """warm_start and partial_fit on something else than before."""
    estimator = MLPClassifier(**SMALL, warm_start=True).fit(X, Y)
    before = snapshot(estimator)
    with pytest.raises(ValueError, match="same classes as in the previous call"):
        estimator.fit(X, Y + 1)
    with pytest.raises(ValueError, match="X has 12 features, but MLPClassifier is expecting 13"):
        estimator.fit(X[:, :-1], Y)
    estimator.set_params(hidden_layer_sizes=(4,))
    with pytest.raises(ValueError, match=r"The fitted network has layers \(13, 9, 3\)"):
        estimator.fit(X, Y)
    estimator.set_params(hidden_layer_sizes=(9,), warm_start=False)
    with pytest.raises(ValueError, match="classes not in"):
        estimator.partial_fit(X, Y + 1)
    with pytest.raises(ValueError, match="same type as before"):
        estimator.partial_fit(X, np.eye(3, dtype=int)[Y])
    with pytest.raises(ValueError, match=r"classes=.* is not the same"):
        estimator.partial_fit(X, Y, classes=[0, 1])
    estimator.set_params(early_stopping=True)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        estimator.partial_fit(X, Y)
    estimator.set_params(early_stopping=False)
    assert_unchanged(estimator, before)
    with pytest.raises(ValueError, match="classes must be passed"):
        MLPClassifier(**SMALL).partial_fit(X, Y)


BAD_EVAL_SETS = {
    "a list of one": ([(X, Y)], "got list of 1"),
    "two of them": ([(X, Y), (X, Y)], "got list of 2"),
    "X alone": (X, "got ndarray of 203"),
    "no y": ((X,), "got tuple of 1"),
    "three parts": ((X, Y, Y), "got tuple of 3"),
    "a word": ("both", "got str of 4"),
    "a pair and nothing": (((X, Y), None), "got tuple of 2"),
    "narrow": ((X[:, :-1], Y), "12 features"),
    "no rows": ((X[:0], Y[:0]), "0 sample"),
    "short y": ((X, Y[:-1]), "inconsistent numbers of samples"),
    "NaN": ((with_value(np.nan), Y), "contains NaN"),
    "unknown label": ((X, Y + 1), r"not among classes_: \[3\]"),
    "other labels": ((X, Y.astype(str)), "not among classes_"),
    "indicators": ((X, np.eye(3, dtype=int)[Y]), "same type as before"),
}


@pytest.mark.parametrize("case", BAD_EVAL_SETS)
def test_bad_eval_set_is_refused(case):
    """The error names eval_set and what was wrong with it."""
    eval_set, message = BAD_EVAL_SETS[case]
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    before = snapshot(estimator)
    with pytest.raises(ValueError, match=rf"eval_set must be one pair \(X, y\).*{message}"):
        estimator.fit(X, Y, eval_set=eval_set)
    assert_unchanged(estimator, before)


def test_error_of_many_unknown_labels_is_short():
    with pytest.raises(ValueError, match="not among classes_") as caught:
        MLPClassifier(**SMALL).fit(X, Y, eval_set=(X, np.linspace(3, 4, len(X))))
    assert len(str(caught.value)) < 400


def test_bad_weights_of_an_eval_set_are_refused():
    estimator = MLPClassifier(**SMALL)
    with pytest.raises(ValueError, match="sample_weight_eval needs an eval_set"):
        estimator.fit(X, Y, sample_weight_eval=np.ones(len(X)))
    for weight in (np.zeros(len(X)), np.ones(3), np.full(len(X), np.nan)):
        with pytest.raises(ValueError, match="eval_set must be"):
            estimator.fit(X, Y, eval_set=(X, Y), sample_weight_eval=weight)
    with pytest.raises(ValueError, match="without eval_set"):
        MLPClassifier(**{**SMALL, "solver": "lbfgs"}).fit(X, Y, eval_set=(X, Y))


def test_bad_changes_of_a_network_are_refused():
    """grow, freeze and unfreeze raise before fit and for layers that do not exist; the estimator does not change."""
    for change in ("grow", "freeze", "unfreeze"):
        with pytest.raises(NotFittedError):
            getattr(MLPClassifier(**SMALL), change)((9,))
    with pytest.raises(NotFittedError):
        MLPClassifier(**SMALL).freeze()
    estimator = MLPClassifier(**SMALL).fit(X, Y)
    before = snapshot(estimator)
    for sizes in (8, (8,), (), (9, 0), (9.5,), "99", (True,), (9, 8)):
        with pytest.raises(ValueError, match=r"hidden_layer_sizes|cannot grow"):
            estimator.grow(sizes)
    for layers in (2, -3, [0, 2], "0", [True], 0.0, [0.0]):
        with pytest.raises(ValueError, match="layers must be indices of the 2 layers"):
            estimator.freeze(layers)
    assert_unchanged(estimator, before)
    estimator.freeze([0, 1])
    with pytest.raises(ValueError, match="All layers are frozen"):
        estimator.partial_fit(X, Y)
    estimator.unfreeze(0).partial_fit(X, Y)
    assert estimator.grow(11).hidden_layer_sizes == (11,)


def test_batch_of_one_row_is_refused_by_batch_norm():
    """It would train to nothing without a word. Layers that do not learn go by their running averages, and take it."""
    settings = {**SMALL, "batch_norm": True}
    with pytest.raises(ValueError, match=r"batch_norm needs batches of at least 2 rows.*batch_size=1 for 203 rows"):
        MLPClassifier(**settings, batch_size=1).fit(X, Y)
    estimator = MLPClassifier(**settings).fit(X, Y)
    before = snapshot(estimator)
    with pytest.raises(ValueError, match=r"batch_norm needs batches of at least 2 rows.*for 1 rows"):
        estimator.partial_fit(X[:1], Y[:1])
    assert_unchanged(estimator, before)
    estimator.freeze().partial_fit(X[:1], Y[:1])


def test_bad_split():
    """Early stopping on too few rows."""
    with pytest.raises(ValueError, match="validation set is too small"):
        MLPRegressor(**SMALL, early_stopping=True).fit(X[:5], REAL[:5])
    with pytest.raises(ValueError, match="only 1 member"):
        MLPClassifier(**SMALL, early_stopping=True).fit(X, np.arange(len(X)) == 0)


def test_partial_fit_is_not_for_lbfgs():
    """Neither estimator offers it."""
    for estimator in (MLPClassifier(solver="lbfgs"), MLPRegressor(solver="lbfgs")):
        assert not hasattr(estimator, "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit"):
            _ = estimator.partial_fit


def test_lbfgs_names_what_it_does_not_take():
    """L-BFGS needs exact losses of all rows: methods that draw at random or take batches raise."""
    for name, value in {
        "dropout": 0.1, "batch_norm": True, "input_noise": 0.1, "input_mask": 0.1, "mixup": 0.1, "max_grad_norm": 1.0,
        "learning_rate": "cosine",
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"solver='lbfgs' takes all rows at once, without .*{name}"):
            MLPClassifier(**SMALL, solver="lbfgs", **{name: value}).fit(X, Y)
    MLPClassifier(**SMALL, solver="lbfgs", dropout=(0.0, 0.0), label_smoothing=0.1, learning_rate="adaptive").fit(X, Y)
    frozen = MLPClassifier(**SMALL).fit(X, Y).freeze().set_params(solver="lbfgs", warm_start=True)
    with pytest.raises(ValueError, match=r"unfreeze\(\) first"):
        frozen.fit(X, Y)


# Sparse matrices whose indices were changed after SciPy had checked them, as in a file that `load_npz` has read.
CORRUPT = """
import numpy as np
from scipy import sparse
from fastmlp import MLPClassifier, MLPEnsembleClassifier

def changed(form, container=sparse.csr_matrix, **parts):
    matrix = container(sparse.random(300, 40, 0.1, random_state=0)).asformat(form)
    for name, (position, value) in parts.items():
        getattr(matrix, name)[position] = value
    return matrix

def lil():
    matrix = changed("lil")
    matrix.rows[7] = [3, 2**30]
    matrix.data[7] = [1.0, 1.0]
    return matrix

bad_X = {
    "csr": changed("csr", indices=(5, 2**30)),
    "csr_array": changed("csr", sparse.csr_array, indices=(5, -(2**30))),
    "csr indptr": changed("csr", indptr=(7, 2**30)),
    "csr indptr falls": changed("csr", indptr=(7, -(2**30))),
    "csr indptr begins late": changed("csr", indptr=(0, 3)),
    "csc": changed("csc", indices=(5, 2**30)),
    "csc_array": changed("csc", sparse.csr_array, indices=(5, 40_000_000)),
    "csc indptr": changed("csc", indptr=(7, 2**30)),
    "bsr": changed("bsr", indices=(5, 2**30)),
    "coo": changed("coo", row=(5, 2**30)),
    "coo column": changed("coo", col=(5, -(2**30))),
    "lil": lil(),
}
bad_Y = {"csr y": changed("csr", indices=(5, 2**30)), "csc y": changed("csc", indices=(5, 2**30))}
X, y = sparse.random(300, 40, 0.1, format="csr", random_state=1), np.arange(300) % 2
weight = np.ones(300)
weight[::5] = 0
settings = {"max_iter": 2, "random_state": 0}
fitted = MLPClassifier((5,), **settings).fit(X, y)
ensemble = MLPEnsembleClassifier(MLPClassifier((5,), **settings), 2)
labels = MLPClassifier((5,), **settings).fit(X, changed("csr") > 0)
label_ensemble = MLPEnsembleClassifier(MLPClassifier((5,), **settings), 2).fit(X, changed("csr") > 0)
works = {
    "fit": lambda bad: MLPClassifier((5,), **settings).fit(bad, y),
    "lbfgs": lambda bad: MLPClassifier((5,), solver="lbfgs", **settings).fit(bad, y, weight),
    "partial_fit": lambda bad: MLPClassifier((5,)).partial_fit(bad, y, classes=[0, 1]),
    "eval_set": lambda bad: MLPClassifier((5,), **settings).fit(X, y, eval_set=(bad, y)),
    "predict": lambda bad: fitted.predict(bad),
    "transform": lambda bad: fitted.transform(bad),
    "ensemble": lambda bad: ensemble.fit(bad, y),
}
target_works = {
    "fit": lambda bad: MLPClassifier((5,), **settings).fit(X, bad),
    "partial_fit": lambda bad: MLPClassifier((5,)).partial_fit(X, bad, classes=range(40)),
    "eval_set": lambda bad: MLPClassifier((5,), **settings).fit(X, changed("csr") > 0, eval_set=(X, bad)),
    "ensemble": lambda bad: ensemble.fit(X, bad),
    "score": lambda bad: labels.score(X, bad),
    "score of an ensemble": lambda bad: label_ensemble.score(X, bad),
}
for cases, kinds, argument in ((bad_X, works, "X"), (bad_Y, target_works, "y")):
    for case, bad in cases.items():
        for name, work in kinds.items():
            try:
                work(bad)
            except ValueError as error:
                known = f"Input {argument} is a corrupt sparse matrix" in str(error) or case == "lil"
                assert known, (case, name, error)
            else:
                raise AssertionError((case, name))
print("refused")
"""


def test_corrupt_sparse_matrices_are_refused():
    """Whoever converts them reads outside of their arrays. In a process of its own, which that may end."""
    assert output_of_fork(CORRUPT) == "refused"
