"""Validation rows: their scores, which end a run and choose its best epoch; the loss on them; where they come from."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from helpers import classification, multilabel, regression, tolerance, varied
from scipy.sparse import random as sparse_random
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import fbeta_score, get_scorer, log_loss, make_scorer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from fastmlp import MLPClassifier, MLPRegressor, Network, core, reference

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

WATCHED = {
    "hidden_layer_sizes": (12, 6), "batch_norm": True, "dropout": 0.2, "random_state": 0, "learning_rate_init": 0.03,
    "max_iter": 60,
    "n_iter_no_change": 4, "tol": 0.001, "batch_size": 32, "early_stopping": True,
}  # fmt: skip


def capturing(scorer, seen):
    """A callable metric that notes the score, the parameters and the running averages that it sees."""

    def metric(estimator, X, y, sample_weight=None):
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        value = scorer(estimator, X, y, **weights)
        seen.append((value, estimator.network_.parameters.copy(), estimator.network_.statistics.copy()))
        return value

    return metric


def epochs_until_patience_ends(scores, tol, patience):
    """scikit-learn's rule, written out: the count rises below best + tol, with the best of the epochs before."""
    best, count = -np.inf, 0
    for epoch, score in enumerate(scores, 1):
        count = count + 1 if score < best + tol else 0
        best = max(best, score)
        if count > patience:
            return epoch
    return None


@pytest.mark.crossed
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["split", "eval_set"])
@pytest.mark.parametrize("metric", [
    "neg_log_loss", "roc_auc_ovr", make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
    None,
], ids=["neg_log_loss", "roc_auc_ovr", "make_scorer", "None"])  # fmt: skip
def test_score_steers(metric, given, weighted):
    """The score is the metric's value after each epoch; it decides when patience ends, and the best epoch's parameters
    and running averages are kept. A name, a scorer and a callable give the same."""
    X, y = classification(3, n=240)
    names = np.array(["a", "b", "c"])[y]
    train, held = slice(None, 160), slice(160, None)
    weight = np.random.RandomState(0).uniform(0.5, 2, len(y)) if weighted else None
    arguments = (
        {"eval_set": (X[held], names[held]), "sample_weight_eval": None if weight is None else weight[held]}
        if given
        else {}
    )
    rows = train if given else slice(None)
    fit = (X[rows], names[rows], None if weight is None else weight[rows])
    seen = []
    by_callable = MLPClassifier(**WATCHED, validation_metric=capturing(get_scorer(metric or "accuracy"), seen)).fit(
        *fit, **arguments
    )
    estimator = MLPClassifier(**WATCHED, validation_metric=metric).fit(*fit, **arguments)
    scores = [score for score, _, _ in seen]
    assert varied(np.array(scores)).size == estimator.n_iter_
    np.testing.assert_allclose(estimator.validation_scores_, scores, rtol=tolerance("float64", 100))
    assert estimator.n_iter_ == epochs_until_patience_ends(scores, 0.001, 4) < 60
    best = int(np.argmax(scores))
    assert best < len(scores) - 1
    assert estimator.best_validation_score_ == pytest.approx(scores[best])
    for each in (estimator, by_callable):
        np.testing.assert_array_equal(each.network_.parameters, seen[best][1])
        np.testing.assert_array_equal(each.network_.statistics, seen[best][2])
    assert [entry["validation_score"] for entry in estimator.history_] == estimator.validation_scores_
    assert [entry["validation_loss"] for entry in estimator.history_] == estimator.validation_loss_curve_
    # The estimator itself scores so on these rows.
    if given:
        score = get_scorer(metric or "accuracy")(
            estimator, X[held], names[held], **({} if weight is None else {"sample_weight": weight[held]})
        )
        assert score == pytest.approx(scores[best])


@pytest.mark.parametrize("loss", core.LOSSES)
def test_validation_loss_is_the_plain_loss(loss):
    """Of the network as it predicts: by running averages, without dropout, smoothing, penalty or mixup, rows by their
    weights."""
    settings = {**WATCHED, "early_stopping": False, "max_iter": 4, "alpha": 1.0, "mixup": 0.3}
    if loss == "log_loss":
        X, y = classification(3)
        estimator, target = MLPClassifier(**settings, label_smoothing=0.2), y
    elif loss == "binary_log_loss":
        X, y = multilabel()
        estimator, target = MLPClassifier(**settings, label_smoothing=0.2), y.astype(float)
    else:
        X, y = regression(n_outputs=2)
        y = np.abs(y)
        estimator, target = MLPRegressor(loss, quantile=0.7, huber_delta=0.7, **settings), y
    weight = np.random.RandomState(0).uniform(0, 2, len(y))
    seen = []
    value = capturing(lambda estimator, X, y, sample_weight: 0.0, seen)
    watched = clone(estimator).set_params(validation_metric=value)
    watched.fit(X[:100], y[:100], eval_set=(X[100:], y[100:]), sample_weight_eval=weight[100:])
    expected = []
    for _, parameters, statistics in seen:
        network = watched.network_.copy()
        network.parameters, network.statistics[:] = parameters, statistics
        output, row_loss, _ = reference.LOSSES[loss]
        model = reference.Model(network.coefs, network.intercepts, [], network.scales, network.means, network.variances)
        a = reference.predict(model, network.activations, output, X[100:])
        expected.append(np.average(row_loss(target[100:], a, np.finfo(float).eps, 0.7), weights=weight[100:]))
    bound = tolerance("float64", 200, max(expected))
    assert np.abs(np.subtract(watched.validation_loss_curve_, varied(np.array(expected)))).max() <= bound
    assert watched.validation_scores_ == [0.0] * 4
    # Without early stopping the score changes nothing: not the end, not the parameters.
    plain = clone(estimator).fit(X[:100], y[:100])
    np.testing.assert_array_equal(plain.network_.parameters, watched.network_.parameters)
    assert plain.validation_loss_curve_ is None


@pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("weighted", [False, True])
def test_eval_set_is_as_good_as_a_split(cls, weighted):
    """The rows that early stopping would set aside, given by hand: the same bits."""
    X, y = classification(2) if cls is MLPClassifier else regression()
    weight = np.random.RandomState(0).uniform(0.5, 2, len(y)) if weighted else None
    settings = {**WATCHED, "dropout": 0.0, "shuffle": False, "validation_fraction": 0.3}
    split = cls(**settings).fit(X, y, weight)
    rng = np.random.RandomState(0)
    Network(split.network_.layer_sizes, random_state=rng)
    train, held = train_test_split(
        np.arange(len(y)), random_state=rng, test_size=0.3, stratify=y if cls is MLPClassifier else None
    )
    given = cls(**settings).fit(
        X[train], y[train], None if weight is None else weight[train], eval_set=(X[held], y[held]),
        sample_weight_eval=None if weight is None else weight[held],
    )  # fmt: skip
    assert given.validation_scores_ == split.validation_scores_
    assert given.validation_loss_curve_ == split.validation_loss_curve_
    np.testing.assert_array_equal(given.network_.parameters, split.network_.parameters)
    np.testing.assert_array_equal(given.network_.statistics, split.network_.statistics)
    assert given.history_[0]["rows"] == len(train)


def test_eval_set_keeps_all_rows_for_training():
    """Nothing is split off when rows to score on are given."""
    X, y = classification(2)
    estimator = MLPClassifier(**WATCHED).fit(X, y, eval_set=(X[:9].tolist(), y[:9].tolist()))
    assert {entry["rows"] for entry in estimator.history_} == {len(X)}


def test_interrupted_run_restores_averages_with_parameters():
    """Ctrl-C in the sixth score: the best of five, all of it."""
    X, y = classification(2)
    seen = []
    score = capturing(get_scorer("neg_log_loss"), seen)

    def metric(estimator, X, y):
        if len(seen) == 5:
            raise KeyboardInterrupt
        return score(estimator, X, y)

    with pytest.warns(UserWarning, match="interrupted by user"):
        estimator = MLPClassifier(
            **{**WATCHED, "n_iter_no_change": np.inf, "learning_rate_init": 0.3}, validation_metric=metric
        ).fit(X, y)
    best = int(np.argmax([each[0] for each in seen]))
    assert best < 4
    np.testing.assert_array_equal(estimator.network_.parameters, seen[best][1])
    np.testing.assert_array_equal(estimator.network_.statistics, seen[best][2])
    assert estimator.predict_proba(X).shape == (len(X), 2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_scores_that_are_not_numbers_do_not_undo_training():
    """R^2 of one row, say: no score was the best one, and the parameters went back to where they began."""
    X, y = regression()
    settings = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0}
    plain = MLPRegressor(**settings).fit(X, y)
    judged = MLPRegressor(**settings, early_stopping=True, validation_metric=lambda estimator, X, y: np.nan)
    judged.fit(X, y, eval_set=(X, y))
    assert np.isnan(judged.validation_scores_).all()
    np.testing.assert_array_equal(judged.network_.parameters, plain.network_.parameters)


def test_early_stopping_goes_by_the_loss_that_was_asked_for():
    """R^2 is least for the mean, not for a quantile: by it, a run that learns the 95 % quantile was ended at its
    beginning."""
    rng = np.random.RandomState(0)
    X = varied(rng.uniform(-1, 1, (2000, 3)))
    y = X @ [1.0, -2.0, 0.5] + rng.exponential(size=2000)
    fitted = MLPRegressor(
        "quantile", (16,), quantile=0.95, early_stopping=True, learning_rate_init=0.01, max_iter=100, random_state=0
    ).fit(X, y)
    assert 0.92 < np.mean(y < fitted.predict(X)) < 0.98
    np.testing.assert_array_equal(fitted.validation_scores_, np.negative(fitted.validation_loss_curve_))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_metric_without_weights_takes_weighted_rows():
    """(estimator, X, y) -> float, as it is documented, and metrics that know no weights: a TypeError after the first
    epoch."""
    X, y = classification(2)
    settings = {"hidden_layer_sizes": (4,), "max_iter": 2, "random_state": 0, "early_stopping": True}
    weight = np.linspace(0.5, 2, len(X))
    plain = MLPClassifier(**settings, validation_metric=lambda estimator, X, y: estimator.score(X, y))
    for arguments in ({"sample_weight": weight}, {"eval_set": (X, y), "sample_weight_eval": weight}):
        assert 0 < plain.fit(X, y, **arguments).best_validation_score_ <= 1
    assert plain.set_params(class_weight="balanced").fit(X, y).best_validation_score_ > 0
    assert MLPRegressor(**settings, validation_metric="neg_max_error").fit(X, y, weight).best_validation_score_ < 0
    got = []

    def weighted(estimator, X, y, sample_weight=None):
        got.append(sample_weight)
        return estimator.score(X, y, sample_weight)

    judged = MLPClassifier(**settings, validation_metric=weighted).fit(X, y, eval_set=(X, y), sample_weight_eval=weight)
    np.testing.assert_array_equal(got, [weight, weight])
    by_default = MLPClassifier(**settings).fit(X, y, eval_set=(X, y), sample_weight_eval=weight)
    assert judged.validation_scores_ == by_default.validation_scores_


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_digits])
def test_validation_rows_that_the_pipeline_does_not_scale(load):
    """They are scored as they are, which a warning says; rows that are scaled alike are no reason for one."""
    X, y = load(return_X_y=True)
    A, B, a, b = train_test_split(X, y, stratify=y, random_state=0)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=2, early_stopping=True, random_state=0))
    with pytest.warns(UserWarning, match=r"far outside .*transform_input=\['X_val'\]"):
        pipeline.fit(A, a, mlpclassifier__eval_set=(B, b))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(A, a, mlpclassifier__eval_set=(pipeline[:-1].fit(A).transform(B), b))
        pipeline.fit(A, a, mlpclassifier__eval_set=(pipeline[:-1].transform(B[:1]), b[:1]))


def test_sparse_validation_rows_that_the_pipeline_does_not_scale(rng):
    X = sparse_random(300, 40, density=0.1, random_state=rng, format="csr") * 1000
    y = rng.randint(0, 2, 300)
    scaler = MaxAbsScaler().fit(X[:200])
    network = MLPClassifier(max_iter=2, random_state=0)
    for held_out in (X[200:], X[200:].toarray()):
        with pytest.warns(UserWarning, match="far outside"):
            network.fit(scaler.transform(X[:200]), y[:200], eval_set=(held_out, y[200:]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(scaler.transform(X[:200]), y[:200], eval_set=(scaler.transform(X[200:]), y[200:]))


@pytest.mark.parametrize("metric", ["neg_log_loss", "roc_auc", "f1", "neg_brier_score", "average_precision"])
def test_rare_class_has_a_held_out_row(rng, metric):
    """Four of 300 rows: a tenth of them rounds to none."""
    X, y = rng.standard_normal((300, 4)), np.zeros(300, int)
    y[:4], X[:4] = 1, 3
    model = MLPClassifier(early_stopping=True, validation_metric=metric, max_iter=30, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    assert np.isfinite(model.validation_scores_).all()
    assert max(model.validation_scores_) == model.best_validation_score_


def test_metrics_are_told_the_classes(rng):
    """Held-out rows of one class: the log-loss is that of the probabilities of all classes."""
    X, y = classification(3)
    X_val, y_val = X[y == 2][:9], y[y == 2][:9]
    model = MLPClassifier(early_stopping=True, validation_metric="neg_log_loss", max_iter=5, random_state=0)
    with pytest.warns(UserWarning, match=r"lack the classes \[0, 1\]"):
        model.fit(X, y, eval_set=(X_val, y_val))
    assert model.best_validation_score_ == -log_loss(y_val, model.predict_proba(X_val), labels=model.classes_)


@pytest.mark.parametrize("labels", [["no", "yes"], [2, 4], [-1.0, 0.0]], ids=str)
@pytest.mark.parametrize("metric", ["f1", "precision", "average_precision", make_scorer(fbeta_score, beta=2)], ids=str)
def test_the_second_class_is_positive_where_there_is_no_class_1(metric, labels):
    X, y = classification(2)
    settings = {"early_stopping": True, "validation_metric": metric, "max_iter": 5, "random_state": 0}
    named = MLPClassifier(**settings).fit(X, np.array(labels)[y])
    numbered = MLPClassifier(**settings).fit(X, y)
    assert named.validation_scores_ == numbered.validation_scores_


def test_metrics_of_other_averages_are_left_alone():
    X, y = classification(2)
    settings = {"early_stopping": True, "max_iter": 5, "random_state": 0}
    for metric in ("f1_macro", make_scorer(fbeta_score, beta=2, pos_label="no")):
        model = MLPClassifier(validation_metric=metric, **settings).fit(X, np.array(["no", "yes"])[y])
        assert max(model.validation_scores_) > 0


def test_targets_to_score_on_that_were_not_transformed(rng):
    """TransformedTargetRegressor transforms y and hands eval_set on."""
    X, y = regression()
    y, settings = 180_000 + 40_000 * y, {"early_stopping": True, "max_iter": 5, "random_state": 0}
    model = TransformedTargetRegressor(MLPRegressor(**settings), transformer=StandardScaler())
    with pytest.warns(
        UserWarning, match=r"targets to score on lie far outside .* mean 1.*e\+05 .*transform its y first"
    ):
        model.fit(X, y, eval_set=(X[:50], y[:50]))
    scaled = StandardScaler().fit_transform(y.reshape(-1, 1)).ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        MLPRegressor(**settings).fit(X, scaled, eval_set=(X[:50], scaled[:50]))
        MLPRegressor(**settings).fit(X, scaled, eval_set=(X[:50], np.full(50, scaled.mean())))


def test_columns_that_were_not_transformed_are_named():
    """Of X and of y, as in their frames."""
    X, y = regression()
    X, y = pd.DataFrame(X).add_prefix("x"), pd.DataFrame({"size": y, "price": 1e5 + 1e4 * y})
    far = X.assign(x2=X["x2"] + 1e3)
    model = MLPRegressor(max_iter=2, random_state=0)
    with pytest.warns(UserWarning, match="rows to score on lie far outside of those to train on: column 'x2' has mean"):
        model.fit(X, y["size"], eval_set=(far, y["size"]))
    with pytest.warns(UserWarning, match="targets to score on lie far outside .*: column 'price' has mean"):
        model.fit(X, y, eval_set=(X, y.assign(price=0)))


def test_no_score_in_any_epoch_is_told(rng):
    X, y = regression()
    with pytest.warns(UserWarning, match=r"R\^2 gave no finite score in any epoch.* rows may be too few"):
        MLPRegressor(early_stopping=True, max_iter=3, random_state=0).fit(X, y, eval_set=(X[:1], y[:1]))
    X, y = classification(2)
    model = MLPClassifier(early_stopping=True, validation_metric="roc_auc", max_iter=3, random_state=0)
    with pytest.warns(UserWarning, match="validation_metric='roc_auc' gave no finite score"):
        model.fit(X, y, eval_set=(X[y == 0][:9], y[y == 0][:9]))


@pytest.mark.parametrize("Estimator", [MLPClassifier, MLPRegressor])
def test_metric_that_is_the_loss(Estimator):
    """validation_metric='loss' is minus the validation loss, without penalty and smoothing, and the best epoch has the
    least."""
    X, y = classification(2) if Estimator is MLPClassifier else regression()
    smoothing = {"label_smoothing": 0.2} if Estimator is MLPClassifier else {}
    fitted = Estimator(
        early_stopping=True, validation_metric="loss", max_iter=8, alpha=1.0, random_state=0, **smoothing
    )
    fitted.fit(X, y)
    assert fitted.validation_scores_ == [-loss for loss in fitted.validation_loss_curve_]
    assert fitted.best_validation_score_ == -min(fitted.validation_loss_curve_)
