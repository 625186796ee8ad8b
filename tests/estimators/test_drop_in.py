"""What users of scikit-learn's MLPs rely on beside the numbers: errors, warnings, names, copies, pickles, the
diagram."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import classification, needs_sklearn, regression
from sklearn import neural_network as sklearn_mlp
from sklearn.base import clone
from sklearn.utils import estimator_html_repr

import fastmlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore::RuntimeWarning")

SMALL = {"hidden_layer_sizes": (9,), "max_iter": 3, "random_state": 0}
X, Y = classification(3)
REAL = regression()[1]


def with_value(value):
    """X with one element replaced."""
    bad = X.copy()
    bad[5, 2] = value
    return bad


def classifier(module, **settings):
    return module.MLPClassifier(**{**SMALL, **settings})


def regressor(module, **settings):
    return module.MLPRegressor(**{**SMALL, **settings})


def weighted(module):
    needs_sklearn("1.7", "sample_weight in MLPs")
    return classifier(module)


def few_rows(module):
    needs_sklearn("1.7", "lower limit for validation sets in MLPs")
    return regressor(module, early_stopping=True).fit(X[:6], REAL[:6])


def first_chunk(module, **settings):
    return classifier(module, **settings).partial_fit(X, Y, classes=[0, 1, 2])


# name -> what users may do wrong. The error must be scikit-learn's, type and text.
SAME_ERRORS = {
    "alpha": lambda m: classifier(m, alpha=-1).fit(X, Y),
    "batch_size": lambda m: classifier(m, batch_size=0).fit(X, Y),
    "max_iter": lambda m: regressor(m, max_iter=0).fit(X, REAL),
    "momentum": lambda m: classifier(m, momentum=2).fit(X, Y),
    "shuffle": lambda m: classifier(m, shuffle="a").fit(X, Y),
    "random_state": lambda m: regressor(m, random_state="a").fit(X, REAL),
    "empty layer": lambda m: classifier(m, hidden_layer_sizes=(5, 0)).fit(X, Y),
    "negative layer": lambda m: classifier(m, hidden_layer_sizes=-1).fit(X, Y),
    "misspelt": lambda m: m.MLPClassifier(alhpa=1),
    "positional": lambda m: m.MLPClassifier((5,), "relu", "adam"),
    "1-D X": lambda m: classifier(m).fit(X[:, 0], Y),
    "short y": lambda m: classifier(m).fit(X, Y[:-1]),
    "no rows": lambda m: classifier(m).fit(X[:0], Y[:0]),
    "no features": lambda m: classifier(m).fit(X[:, :0], Y),
    "no y": lambda m: classifier(m).fit(X, None),
    "short weights": lambda m: weighted(m).fit(X, Y, np.ones(3)),
    "NaN weights": lambda m: weighted(m).fit(X, Y, np.full(len(X), np.nan)),
    "not fitted": lambda m: classifier(m).predict(X),
    "not fitted, probabilities": lambda m: classifier(m).predict_proba(X),
    "not fitted, score": lambda m: regressor(m).score(X, REAL),
    "fewer features": lambda m: classifier(m).fit(X, Y).predict(X[:, :3]),
    "one row flat": lambda m: classifier(m).fit(X, Y).predict(X[0]),
    "short y in score": lambda m: classifier(m).fit(X, Y).score(X, Y[:-1]),
    "partial_fit without classes": lambda m: classifier(m).partial_fit(X, Y),
    "partial_fit with other classes": lambda m: first_chunk(m).partial_fit(X, Y, classes=[0, 1, 3]),
    "partial_fit with a new label": lambda m: first_chunk(m).partial_fit(X, Y + 1),
    "partial_fit with fewer features": lambda m: first_chunk(m).partial_fit(X[:, :2], Y),
    "partial_fit and early stopping": lambda m: first_chunk(m, early_stopping=True),
    "partial_fit of lbfgs": lambda m: classifier(m, solver="lbfgs").partial_fit,
    "warm start with other classes": lambda m: classifier(m, warm_start=True).fit(X, Y).fit(X, Y % 2),
    "warm start with fewer features": lambda m: regressor(m, warm_start=True).fit(X, REAL).fit(X[:, :3], REAL),
    "few rows to validate on": lambda m: few_rows(m),
    "no decision_function": lambda m: m.MLPClassifier().decision_function,
    "no predict_proba": lambda m: m.MLPRegressor().predict_proba,
}


def error(case, module):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (which one is what the test compares)
        case(module)
    return caught.value


@pytest.mark.parametrize("name", SAME_ERRORS)
def test_error_is_sklearns(name):
    """Type and text."""
    theirs, ours = (error(SAME_ERRORS[name], module) for module in (sklearn_mlp, fastmlp))
    assert type(ours) is type(theirs)
    assert str(ours) == str(theirs)


# What is wrong stands in columns: ours names them behind scikit-learn's text.
ERRORS_IN_COLUMNS = {
    "NaN": lambda m: classifier(m).fit(with_value(np.nan), Y),
    "infinity": lambda m: regressor(m).fit(with_value(np.inf), REAL),
    "strings": lambda m: classifier(m).fit(np.full(X.shape, "a", dtype=object), Y),
    "complex": lambda m: classifier(m).fit(X + 1j, Y),
    "NaN in prediction": lambda m: regressor(m).fit(X, REAL).predict(with_value(np.nan)),
}


@pytest.mark.parametrize("name", ERRORS_IN_COLUMNS)
def test_error_is_sklearns_and_names_columns(name):
    """Type and text, and where."""
    theirs, ours = (error(ERRORS_IN_COLUMNS[name], module) for module in (sklearn_mlp, fastmlp))
    assert type(ours) is type(theirs)
    if "NaN" in name:  # what follows in scikit-learn sends the reader to other estimators
        theirs = str(theirs).splitlines()[0]
    assert str(ours).startswith(str(theirs))
    assert re.match(r"\s*Column \d+ holds ", str(ours).removeprefix(str(theirs)))


# name -> a call, the words that scikit-learn's error and ours share.
LONGER_ERRORS = {
    "activation": (
        lambda m: classifier(m, activation="rleu").fit(X, Y),
        "The 'activation' parameter of MLPClassifier must be a str among",
    ),
    "solver": (
        lambda m: classifier(m, solver="adma").fit(X, Y),
        "The 'solver' parameter of MLPClassifier must be a str among",
    ),
    "learning_rate": (
        lambda m: classifier(m, learning_rate="x").fit(X, Y),
        "The 'learning_rate' parameter of MLPClassifier must be",
    ),
    "set_params": (
        lambda m: m.MLPClassifier().set_params(alhpa=1),
        "Invalid parameter 'alhpa' for estimator MLPClassifier()",
    ),
    "continuous labels": (lambda m: classifier(m).fit(X, REAL), "Unknown label type"),
    "NaN in y": (lambda m: regressor(m).fit(X, np.where(REAL > 0.5, np.nan, REAL)), "Input y contains NaN."),
    "multioutput classes": (
        lambda m: classifier(m).fit(X, np.c_[Y, Y] + 1),
        "Multioutput target data is not supported with label binarization",
    ),
    "rare class": (
        lambda m: classifier(m, early_stopping=True).fit(X, np.arange(len(X)) == 0),
        "The least populated class",
    ),
    "divergence": (
        lambda m: regressor(m, solver="sgd", learning_rate_init=1e30, activation="identity").fit(X, REAL),
        "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
        "preprocessed.",
    ),
}


@pytest.mark.parametrize("name", LONGER_ERRORS)
def test_error_begins_as_sklearns(name):
    """The same type, or one derived from it; the same words, and more."""
    case, words = LONGER_ERRORS[name]
    theirs, ours = (error(case, module) for module in (sklearn_mlp, fastmlp))
    assert isinstance(ours, type(theirs))
    assert str(theirs).startswith(words)
    assert str(ours).startswith(words)


def named(columns, library="pandas"):
    """X as a DataFrame."""
    frames = pytest.importorskip(library)
    return frames.DataFrame(X, columns=columns) if library == "pandas" else frames.DataFrame(X, schema=columns)


NAMES = [f"x{column}" for column in range(X.shape[1])]
# name -> what makes scikit-learn warn, or complain, of names of features and shapes of y.
WARNINGS = {
    "column of labels": lambda m: classifier(m).fit(X, Y[:, np.newaxis]),
    "column of numbers": lambda m: regressor(m).fit(X, REAL[:, np.newaxis]),
    "fitted without names": lambda m: classifier(m).fit(X, Y).predict(named(NAMES)),
    "fitted with names": lambda m: classifier(m).fit(named(NAMES), Y).predict(X),
    "names and numbers": lambda m: classifier(m).fit(named([*NAMES[1:], 5]), Y),
    "other names": lambda m: regressor(m).fit(named(NAMES), REAL).predict(named(["y", *NAMES[1:]])),
    "names in another order": lambda m: regressor(m).fit(named(NAMES), REAL).predict(named(NAMES[::-1])),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warning_or_error_is_sklearns(name):
    seen = []
    for module in (sklearn_mlp, fastmlp):
        raised = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                WARNINGS[name](module)
            except Exception as problem:
                raised = (type(problem), str(problem))
        seen.append((raised, {(w.category, str(w.message)) for w in caught if "converged" not in str(w.message)}))
    assert seen[0][0] or seen[0][1]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_feature_names_are_learnt(library):
    """As scikit-learn learns them, and forgotten by a fit without."""
    if library == "polars":
        needs_sklearn("1.9", "names of a current polars.DataFrame's columns")
    for Estimator, y in ((classifier, Y), (regressor, REAL)):
        theirs, ours = (Estimator(module).fit(named(NAMES, library), y) for module in (sklearn_mlp, fastmlp))
        assert np.array_equal(ours.feature_names_in_, theirs.feature_names_in_)
        assert ours.feature_names_in_.dtype == theirs.feature_names_in_.dtype
        assert not hasattr(ours.fit(X, y), "feature_names_in_")


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_parameters_print_and_clone_as_sklearns(name):
    """get_params in the same order; a repr that only tells what was changed; clones equal, and unfitted."""
    changed = {"alpha": 0.5, "hidden_layer_sizes": (3, 2), "solver": "sgd", "early_stopping": True}
    theirs, ours = (getattr(module, name)(**changed) for module in (sklearn_mlp, fastmlp))
    shared = [parameter for parameter in ours.get_params() if parameter in theirs.get_params()]
    assert shared == list(theirs.get_params())
    assert {parameter: ours.get_params()[parameter] for parameter in shared} == theirs.get_params()
    assert repr(ours) == repr(theirs)
    copy = clone(ours.fit(X, Y))
    assert copy.get_params() == ours.get_params()
    assert set(vars(copy)) == set(copy.get_params())


@pytest.mark.slow
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_read_by_a_fresh_process(protocol, tmp_path):
    """By whoever has not imported fastmlp: same predictions, to the bit, and able to go on."""
    fitted = classifier(fastmlp, early_stopping=True).fit(X, Y)
    (tmp_path / "estimator").write_bytes(pickle.dumps((fitted, X, fitted.predict_proba(X)), protocol))
    code = (
        "import pickle, sys, numpy\n"
        f"sys.path.insert(0, {str(Path(fastmlp.__file__).parents[1])!r})\n"
        f"estimator, X, expected = pickle.load(open({str(tmp_path / 'estimator')!r}, 'rb'))\n"
        "assert numpy.array_equal(estimator.predict_proba(X), expected)\n"
        "estimator.set_params(early_stopping=False).partial_fit(X, estimator.predict(X))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# --- the diagram ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor", "MLPEnsembleClassifier", "MLPEnsembleRegressor"])
def test_diagram_has_no_link(name):
    """scikit-learn's pages do not describe these estimators."""
    page = estimator_html_repr(getattr(fastmlp, name)())
    assert name in page
    assert "generated/" not in page


def test_methods_take_sklearns_arguments():
    """Every public method takes what scikit-learn's takes, in the same order; what we add comes after."""
    needs_sklearn("1.7", "sample_weight in MLPs")
    for name in ("MLPClassifier", "MLPRegressor"):
        theirs, ours = (getattr(module, name) for module in (sklearn_mlp, fastmlp))
        methods = [method for method in dir(theirs) if not method.startswith("_") and callable(getattr(theirs, method))]
        assert {"fit", "predict", "partial_fit", "score", "set_score_request"} <= set(methods)
        for method in methods:
            expected, got = (list(inspect.signature(getattr(cls, method)).parameters) for cls in (theirs, ours))
            if not method.endswith("_request"):  # whose arguments are keywords, one for each argument of the method
                assert got[: len(expected)] == expected, method
            assert set(expected) <= set(got), method
