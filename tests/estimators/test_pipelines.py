"""scikit-learn's tools around our estimators: the numbers that they give with scikit-learn's own MLPs, in every kind of
process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.neural_network
from helpers import SKLEARN_LBFGS_RTOL, classification, multilabel, regression
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import BaggingClassifier, BaggingRegressor
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.model_selection import (
    KFold,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

import fastmlp

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"hidden_layer_sizes": (11,), "max_iter": 12, "random_state": 0, "batch_size": 64, "learning_rate_init": 0.01}
X, Y = classification(3)
REAL, REALS = regression()[1], regression(n_outputs=3)[1]
LABELS = multilabel()[1]
FOLDS = KFold(3)


def classifier(module, **settings):
    return module.MLPClassifier(**{**SMALL, **settings})


def regressor(module, **settings):
    return module.MLPRegressor(**{**SMALL, **settings})


def scores(found):
    """Training and test scores of a curve."""
    return np.stack(found[1:3])


def mixed_columns(module):
    """Numbers to scale and words to encode, by name, in front of the network."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(50 * X[:, :5] + 7, columns=list("abcde")).assign(word=np.array(["no", "maybe", "yes"])[Y])
    columns = ColumnTransformer([("numbers", StandardScaler(), list("abcde")), ("words", OneHotEncoder(), ["word"])])
    pipeline = make_pipeline(columns, regressor(module)).fit(frame, REAL)
    return pipeline.predict(frame.iloc[::-1])


def importances(module):
    """Of the features for the score; a network that saw only the first feature must find the others useless."""
    fitted = regressor(module, max_iter=60).fit(X, np.tanh(X[:, 0]))
    found = permutation_importance(fitted, X, np.tanh(X[:, 0]), n_repeats=3, random_state=0).importances
    assert found[0].mean() > 5 * np.abs(found[1:]).max()
    return found


def dependence(module):
    """On two features, of probabilities and of numbers."""
    probabilities = partial_dependence(classifier(module).fit(X, Y), X, [0, 3], grid_resolution=5)["average"]
    numbers = partial_dependence(regressor(module).fit(X, REAL), X, [1], grid_resolution=7, kind="both")
    return np.concatenate([probabilities.ravel(), numbers["average"].ravel(), numbers["individual"].ravel()])


def half_labelled(module):
    """A third of the labels missing, learnt from the network's own confident guesses."""
    labels = np.where(np.arange(len(Y)) % 3 == 0, -1, Y)
    # Its parameter was called base_estimator in scikit-learn 1.5; by position it is the first in all.
    return SelfTrainingClassifier(classifier(module, max_iter=40), threshold=0.6).fit(X, labels).predict_proba(X)


# name -> what it gives with the MLPs of a module.
TOOLS = {
    "cross_val_predict": lambda m: cross_val_predict(classifier(m), X, Y, cv=FOLDS, method="predict_proba"),
    "cross_val_predict, numbers": lambda m: cross_val_predict(regressor(m), X, REAL, cv=FOLDS),
    "cross_validate": lambda m: cross_validate(classifier(m), X, Y, cv=FOLDS, scoring="neg_log_loss")["test_score"],
    "permutation_test_score": lambda m: permutation_test_score(
        regressor(m), X, REAL, cv=FOLDS, n_permutations=3, random_state=0
    )[1],
    "learning_curve": lambda m: scores(learning_curve(regressor(m), X, REAL, cv=FOLDS, train_sizes=[0.3, 1.0])),
    "learning_curve, in chunks": lambda m: scores(
        learning_curve(
            regressor(m, shuffle=False),
            X,
            REAL,
            cv=FOLDS,
            train_sizes=[0.3, 0.6, 1.0],
            exploit_incremental_learning=True,
        )
    ),
    "validation_curve": lambda m: np.stack(
        validation_curve(regressor(m), X, REAL, cv=FOLDS, param_name="alpha", param_range=[1e-4, 1.0, 100.0])
    ),
    "calibrated": lambda m: CalibratedClassifierCV(classifier(m), cv=3).fit(X, Y).predict_proba(X),
    "calibrated, isotonic": lambda m: (
        CalibratedClassifierCV(classifier(m), cv=3, method="isotonic", ensemble=False).fit(X, Y).predict_proba(X)
    ),
    "calibrated, frozen": lambda m: (
        CalibratedClassifierCV(FrozenEstimator(classifier(m).fit(X[:100], Y[:100])))
        .fit(X[100:], Y[100:])
        .predict_proba(X)
    ),
    "bagged features": lambda m: (
        BaggingClassifier(classifier(m), 3, bootstrap=False, max_features=0.5, random_state=0)
        .fit(X, Y)
        .predict_proba(X)
    ),
    "bagged features, numbers": lambda m: (
        BaggingRegressor(regressor(m), 3, bootstrap=False, max_features=0.5, random_state=0).fit(X, REAL).predict(X)
    ),
    "multioutput classes": lambda m: np.stack(
        MultiOutputClassifier(classifier(m)).fit(X, np.c_[Y, (Y + 1) % 3]).predict_proba(X)
    ),
    "multioutput numbers": lambda m: MultiOutputRegressor(regressor(m)).fit(X, REALS).predict(X),
    "chain of labels": lambda m: ClassifierChain(classifier(m), cv=2).fit(X, LABELS).predict_proba(X),
    "chain of numbers": lambda m: RegressorChain(regressor(m)).fit(X, REALS).predict(X),
    "one against the rest": lambda m: OneVsRestClassifier(classifier(m)).fit(X, Y).predict_proba(X),
    "one against one": lambda m: OneVsOneClassifier(classifier(m)).fit(X, Y).decision_function(X),
    "one against the rest, in chunks": lambda m: (
        OneVsRestClassifier(classifier(m, shuffle=False))
        .partial_fit(X[:100], Y[:100], classes=[0, 1, 2])
        .partial_fit(X[100:], Y[100:])
        .predict_proba(X)
    ),
    "transformed target": lambda m: (
        TransformedTargetRegressor(regressor(m), func=np.log, inverse_func=np.exp).fit(X, np.exp(REAL)).predict(X)
    ),
    "scaled target": lambda m: (
        TransformedTargetRegressor(regressor(m), transformer=MinMaxScaler()).fit(X, 100 * REAL).predict(X)
    ),
    "columns": mixed_columns,
    "permutation importance": importances,
    "partial dependence": dependence,
    "feature selection": lambda m: (
        SequentialFeatureSelector(regressor(m), n_features_to_select=2, cv=2)
        .fit(X[:, :5], X[:, 1] - X[:, 3])
        .get_support()
        .astype(float)
    ),
    "self-training": half_labelled,
}


@pytest.mark.parametrize("name", TOOLS)
def test_tool_gives_what_it_gives_with_sklearns_mlp(name):
    """Same draws, same numbers: whatever a tool passes, copies, slices or asks for reaches the network as it should."""
    theirs, ours = (np.asarray(TOOLS[name](module)) for module in (sklearn.neural_network, fastmlp))
    assert np.isfinite(theirs).all()
    assert len(np.unique(theirs)) > 1
    np.testing.assert_allclose(ours, theirs, rtol=SKLEARN_LBFGS_RTOL, atol=SKLEARN_LBFGS_RTOL)


def test_feature_selection_finds_the_features():
    """The answer that is compared above is the right one."""
    assert TOOLS["feature selection"](fastmlp).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("tool", [OneVsRestClassifier, MultiOutputRegressor])
def test_clones_of_tools_fit_to_the_same_bits(tool):
    """Fitting in a tool leaves the estimator it was given unfitted, and a second fit gives the same."""
    estimator, y = (classifier(fastmlp), Y) if tool is OneVsRestClassifier else (regressor(fastmlp), REALS)
    whole = tool(estimator).fit(X, y)
    assert not hasattr(estimator, "network_")
    assert np.array_equal(clone(whole).fit(X, y).predict(X), whole.predict(X))


# --- searches in processes and threads -------------------------------------------------------------------------------

SEARCHES = """
import sys, warnings
import joblib, numpy as np
from sklearn.experimental import enable_halving_search_cv
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV, cross_val_score
from fastmlp import MLPClassifier, MLPEnsembleClassifier

def run(backend):
    warnings.simplefilter("ignore")
    draws = np.random.RandomState(0)
    X = draws.standard_normal((600, 60))
    y = np.argmax(X[:, :3] + draws.standard_normal((600, 3)), axis=1)
    estimator = MLPClassifier((128, 64), max_iter=4, random_state=0)
    grid = {"learning_rate_init": [1e-4, 1e-3, 1e-2]}
    estimator.fit(X, y)  # starts this process's threads: what is forked from now on has lost them
    searches = {
        "grid": lambda n_jobs: GridSearchCV(estimator, grid, cv=3, n_jobs=n_jobs, error_score="raise"),
        "random": lambda n_jobs: RandomizedSearchCV(
            estimator, grid, n_iter=2, cv=3, random_state=0, n_jobs=n_jobs, error_score="raise"
        ),
        "halving": lambda n_jobs: HalvingGridSearchCV(
            estimator, grid, cv=3, random_state=0, factor=3, n_jobs=n_jobs, error_score="raise"
        ),
        "ensemble": lambda n_jobs: GridSearchCV(
            MLPEnsembleClassifier(estimator, 2, random_state=0), {"members": ["seeds", "bootstrap"]}, cv=2,
            n_jobs=n_jobs, error_score="raise",
        ),
    }
    for name, make in searches.items():
        alone = make(None).fit(X, y)
        with joblib.parallel_config(backend):
            both = make(2).fit(X, y)
        for key, values in alone.cv_results_.items():
            if key.endswith("test_score"):
                assert np.array_equal(both.cv_results_[key], values), (name, key)
        assert both.best_params_ == alone.best_params_, name
        assert np.array_equal(both.best_estimator_.predict_proba(X), alone.best_estimator_.predict_proba(X)), name
        assert len(set(alone.cv_results_["mean_test_score"])) > 1, name
    print("done")

if __name__ == "__main__":
    run(sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_searches_agree_in_processes_and_threads(backend, tmp_path):
    """The scores of a single process, to the bit, with two workers of each kind; a hang is a failure, not a wait."""
    script = tmp_path / "searches.py"
    script.write_text(SEARCHES)
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(Path(fastmlp.__file__).parents[1])!r}); sys.argv[1:] = "
        f"[{backend!r}]; "
    )
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
