"""Weights of outputs: a target of weight 0 is left out, whatever it holds; equal weights are those of the rows."""

import numpy as np
import pytest
from helpers import rest_slow, tolerance
from scipy.sparse import csr_array
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    fbeta_score,
    get_scorer,
    get_scorer_names,
    jaccard_score,
    log_loss,
    make_scorer,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)
from sklearn.utils import compute_sample_weight

from fastmlp import (
    MLPClassifier,
    MLPEnsembleClassifier,
    MLPEnsembleRegressor,
    MLPRegressor,
    Network,
    RowPredictor,
    TabularClassifier,
    TabularRegressor,
    core,
    reference,
)

N, INPUTS, OUTPUTS = 120, 5, 3
SMALL = {"hidden_layer_sizes": (8,), "random_state": 0, "max_iter": 5, "batch_size": 50}


def problem(kind: str = "regression", dtype: str = "float64") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y, and weights of which a third is 0."""
    draws = np.random.RandomState(3)
    X = draws.standard_normal((N, INPUTS)).astype(dtype)
    y = X @ draws.standard_normal((INPUTS, OUTPUTS)) + 0.1 * draws.standard_normal((N, OUTPUTS))
    y = y if kind == "regression" else (y > 0).astype(float)
    weight = draws.uniform(0.2, 2.0, y.shape) * (draws.uniform(size=y.shape) > 1 / 3)
    return X, y, weight


def spoilt(y: np.ndarray, weight: np.ndarray, value: float = np.nan) -> np.ndarray:
    return np.where(weight == 0, value, y)


def model(kind: str, **parameters):
    return (MLPRegressor if kind == "regression" else MLPClassifier)(**{**SMALL, **parameters})


def parameters_of(estimator) -> np.ndarray:
    return estimator.network_.parameters


ignore_convergence = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
pytestmark = ignore_convergence


@pytest.mark.parametrize("loss", [name for name in core.LOSSES if name != "log_loss"])
@pytest.mark.parametrize("reduction", ["weighted_mean", "mean"])
def test_gradient_is_that_of_the_reference_and_of_differences(loss, reduction):
    X, y, weight = problem("regression" if core.LOSSES[loss] == "identity" else "labels")
    network = Network((INPUTS, 4, OUTPUTS), "tanh", core.LOSSES[loss], random_state=0, dtype="float64")
    options = {"loss_parameter": 0.6, "alpha": 0.1, "loss_reduction": reduction}
    value, gradient = network.loss_gradient(X, spoilt(y, weight), weight, loss, **options)
    model = reference.new_model(network.coefs, network.intercepts, "gradient")
    want = reference.gradients(model, ["tanh"], loss, X, spoilt(y, weight), weight, reference.Method(**options))
    bound = tolerance("float64", N * OUTPUTS, 10)
    assert value == pytest.approx(want.loss, rel=bound)
    np.testing.assert_allclose(gradient, np.concatenate([g.ravel() for g in want.parameters]), atol=bound)
    for i in range(0, len(gradient), 5):
        ends = []
        for step in (1e-6, -1e-6):
            moved = network.copy()
            moved.parameters[i] += step
            ends.append(moved.loss_gradient(X, spoilt(y, weight), weight, loss, **options)[0])
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(gradient[i], abs=1e-7)


def test_loss_is_the_mean_over_the_targets_that_are_known():
    X, y, weight = problem()
    known = (weight > 0).astype(float)
    network = Network((INPUTS, 4, OUTPUTS), "tanh", "identity", random_state=0, dtype="float64")
    value, _ = network.loss_gradient(X, spoilt(y, weight), known)
    assert value == pytest.approx(0.5 * np.mean((network.forward(X) - y)[known > 0] ** 2))


@pytest.mark.parametrize("kind", ["regression", "labels"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "solver", ["adam", "lbfgs", *rest_slow(["sgd", "rmsprop", "adagrad", "amsgrad", "momentum", "nadam"])]
)
def test_what_is_left_out_has_no_effect_at_any_number_of_threads(kind, dtype, solver):
    X, y, weight = problem(kind, dtype)
    fits = [
        model(kind, solver=solver, n_jobs=n_jobs).fit(X, spoilt(y, weight, value), weight)
        for n_jobs, value in ((1, np.nan), (2, np.inf), (1, 7.0))
    ]
    for other in fits[1:]:
        np.testing.assert_array_equal(parameters_of(fits[0]), parameters_of(other))
        assert fits[0].loss_ == other.loss_
    assert np.isfinite(parameters_of(fits[0])).all()


@pytest.mark.parametrize("kind", ["regression", "labels"])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.parametrize("loss_reduction", ["weighted_mean", "mean"])
def test_equal_weights_of_outputs_are_those_of_rows(kind, solver, loss_reduction):
    X, y, weight = problem(kind)
    of_rows = weight[:, 0]
    fits = [
        model(kind, solver=solver, loss_reduction=loss_reduction).fit(X, y, each)
        for each in (of_rows, np.repeat(of_rows[:, None], OUTPUTS, axis=1))
    ]
    assert fits[0].loss_ == pytest.approx(fits[1].loss_, rel=1e-10)
    np.testing.assert_allclose(parameters_of(fits[0]), parameters_of(fits[1]), atol=1e-9)


def test_an_output_that_is_left_out_learns_nothing_and_teaches_nothing():
    X, y, _ = problem()
    weight = np.ones_like(y)
    weight[:, 1] = 0
    first = model("regression", alpha=0.0).partial_fit(X, y, weight)
    start = Network((INPUTS, 8, OUTPUTS), dtype="float64", random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(first.coefs_[-1][:, 1], start.coefs[-1][:, 1])
    assert not np.array_equal(first.coefs_[-1][:, 0], start.coefs[-1][:, 0])


@pytest.mark.parametrize("mixed", [0.0, 0.4])
def test_steps_are_those_of_the_reference_with_mixup_too(mixed):
    X, y, weight = problem()
    order, rates = np.random.RandomState(1).permutation(N), np.full(3, 0.01)
    mix = np.full(3, mixed) if mixed else None
    network = Network((INPUTS, 7, OUTPUTS), "tanh", "identity", random_state=0, dtype="float64")
    trainer = core.Trainer(network.plan, "squared_error", "adam", 50, 2)
    flat = network.parameters.copy()
    trainer.load(flat)
    got = trainer.epoch(X, spoilt(y, weight), weight, order, rates, 0, alpha=0.1, mix=mix)
    trainer.store(flat)
    start = reference.new_model(network.coefs, network.intercepts, "adam")
    want, after = reference.epoch(
        start, ["tanh"], "squared_error", "adam", 50, X, spoilt(y, weight), weight, order, rates, 0,
        reference.Hyper(0.01),
        reference.Method(alpha=0.1), mix,
    )  # fmt: skip
    assert got == pytest.approx(want, rel=1e-12)
    np.testing.assert_allclose(flat, np.concatenate([w.ravel() for w in after.parameters]), atol=1e-12)


@pytest.mark.parametrize("kind", ["regression", "labels"])
def test_partial_fit_takes_them(kind):
    X, y, weight = problem(kind)
    weight[:, 0] += 0.1  # in each row, for the batches must be the same
    arguments = {} if kind == "regression" else {"classes": np.arange(OUTPUTS)}
    whole = model(kind, max_iter=1, shuffle=False).fit(X, spoilt(y, weight), weight)
    chunks = model(kind, shuffle=False)
    for part in (slice(0, 50), slice(50, 100), slice(100, N)):
        chunks.partial_fit(X[part], spoilt(y, weight)[part], sample_weight=weight[part], **arguments)
    np.testing.assert_array_equal(parameters_of(whole), parameters_of(chunks))


def test_rows_without_any_weight_are_left_out():
    X, y, weight = problem()
    weight[::4] = 0
    kept = weight.any(axis=1)
    a = model("regression", shuffle=False).fit(X, spoilt(y, weight), weight)
    b = model("regression", shuffle=False).fit(X[kept], spoilt(y, weight)[kept], weight[kept])
    np.testing.assert_array_equal(parameters_of(a), parameters_of(b))
    assert a.t_ == b.t_ == 5 * kept.sum()


def test_score_is_the_mean_over_outputs_of_r2_with_their_weights():
    X, y, weight = problem()
    weight[:, 2] = 0
    weight[::2, 2] = 1
    fitted = model("regression", max_iter=3).fit(
        X, y, eval_set=(X, spoilt(y, weight)), sample_weight_eval=weight.astype("float32")
    )
    known = [np.flatnonzero(column) for column in weight.T]
    prediction, weight = fitted.predict(X), weight.astype("float32").astype("float64")
    want = [r2_score(y[r, o], prediction[r, o], sample_weight=weight[r, o]) for o, r in enumerate(known)]
    assert fitted.validation_scores_[-1] == pytest.approx(np.mean(want))
    losses = 0.5 * (prediction - y) ** 2
    assert fitted.validation_loss_curve_[-1] == pytest.approx((weight * losses).sum() / weight.sum())


@pytest.mark.parametrize("metric", [None, "roc_auc", "neg_log_loss"])
def test_score_of_labels_is_the_mean_over_labels(metric):
    X, y, weight = problem("labels")
    fitted = model("labels", validation_metric=metric).fit(
        X, y, eval_set=(X, spoilt(y, weight)), sample_weight_eval=weight
    )
    known = [np.flatnonzero(column) for column in weight.T]
    p = fitted.predict_proba(X)
    of_one = {
        None: lambda y, p, w: accuracy_score(y, p > 0.5, sample_weight=w),
        "roc_auc": lambda y, p, w: roc_auc_score(y, p, sample_weight=w),
        "neg_log_loss": lambda y, p, w: np.average(np.log(np.where(y == 1, p, 1 - p)), weights=w),
    }[metric]
    want = [of_one(y[r, o], p[r, o], weight[r, o]) for o, r in enumerate(known)]
    assert fitted.validation_scores_[-1] == pytest.approx(np.mean(want), rel=1e-5)


def test_a_function_that_scores_gets_the_weights_as_they_are():
    X, y, weight = problem()
    seen = []

    def metric(estimator, X, y, sample_weight=None):
        seen.append((y, sample_weight))
        return 1.0

    model("regression", max_iter=1, validation_metric=metric).fit(
        X, y, eval_set=(X, spoilt(y, weight)), sample_weight_eval=weight
    )
    np.testing.assert_array_equal(seen[0][1], weight)
    assert np.isfinite(seen[0][0]).all()


@pytest.mark.parametrize("metric", [None, "neg_mean_absolute_error", "loss"])
@pytest.mark.parametrize("kind", ["regression", "labels"])
def test_early_stopping_splits_them_with_the_rows(kind, metric):
    metric = "f1" if kind == "labels" and metric == "neg_mean_absolute_error" else metric
    X, y, weight = problem(kind)
    fits = [
        model(kind, early_stopping=True, max_iter=4, validation_metric=metric).fit(X, spoilt(y, weight, v), weight)
        for v in (np.nan, 5.0)
    ]
    assert np.isfinite(fits[0].validation_scores_).all()
    assert fits[0].validation_scores_ == fits[1].validation_scores_


@pytest.mark.parametrize("sparse", [False, True])
def test_class_weights_count_the_labels_that_are_known(sparse):
    X, y, weight = problem("labels")
    given = csr_array(np.where(weight == 0, 9, y)) if sparse else spoilt(y, weight)
    product = np.ones(N)
    for o in range(OUTPUTS):
        known = np.flatnonzero(weight[:, o])
        product[known] *= compute_sample_weight("balanced", y[known, o])
    a = model("labels", class_weight="balanced").fit(X, given, weight)
    b = model("labels").fit(X, given, weight * product[:, None])
    np.testing.assert_array_equal(parameters_of(a), parameters_of(b))
    c = model("labels", class_weight=[{0: 1, 1: 3}, {1: 2}, {}]).fit(X, given, weight)
    product = np.where(weight[:, 0] > 0, 1 + 2 * y[:, 0], 1) * np.where(weight[:, 1] > 0, 1 + y[:, 1], 1)
    d = model("labels").fit(X, given, weight * product[:, None])
    np.testing.assert_array_equal(parameters_of(c), parameters_of(d))


@pytest.mark.parametrize("members", ["seeds", "bootstrap"])
def test_an_ensemble_takes_them(members):
    X, y, weight = problem()
    fits = [
        MLPEnsembleRegressor(model("regression"), n_estimators=2, members=members, random_state=0).fit(
            X, spoilt(y, weight, v), weight
        )
        for v in (np.nan, 3.0)
    ]
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(X))


def test_an_estimator_for_tables_takes_them():
    X, y, weight = problem()
    y = 1000 + 10 * y
    fits = [
        TabularRegressor(hidden_layer_sizes=(8,), max_iter=20, n_folds=2, random_state=0).fit(
            X, spoilt(y, weight, v), weight
        )
        for v in (np.nan, -1e6)
    ]
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(X))
    np.testing.assert_allclose(fits[0].target_mean_, np.average(y, axis=0, weights=weight))
    known = np.where(weight == 0, np.nan, y)
    np.testing.assert_array_equal(fits[0].target_range_, [np.nanmin(known, axis=0), np.nanmax(known, axis=0)])


def test_no_warning_of_scale_stems_from_what_is_left_out(recwarn):
    X, y, weight = problem()
    y = 5 + 0.1 * y
    everything = np.ones_like(weight)
    model("regression", max_iter=1).fit(X, spoilt(y, weight), weight, eval_set=(X, y), sample_weight_eval=everything)
    assert not [str(w.message) for w in recwarn if "scale" in str(w.message) or "outside" in str(w.message)]


def test_a_data_frame_of_targets_with_gaps():
    pandas = pytest.importorskip("pandas")
    X, y, weight = problem()
    frame = pandas.DataFrame(spoilt(y, weight), columns=["a", "b", "c"]).convert_dtypes()
    known = frame.notna()
    a = model("regression").fit(X, frame, known)
    b = model("regression").fit(X, y, (weight > 0).astype(float))
    np.testing.assert_array_equal(parameters_of(a), parameters_of(b))


@pytest.mark.parametrize(
    ("y", "weight", "message"),
    [
        (np.zeros(N), np.ones((N, 2)), "one number or class per row"),
        (np.zeros((N, 1)), np.ones((N, 1)), "one number or class per row"),
        (np.zeros((N, 3)), np.ones((N, 2)), "shape .120, 3.; got shape .120, 2."),
        (np.zeros((N, 3)), np.ones((N - 1, 3)), "got shape .119, 3."),
        (np.zeros((N, 3)), -np.ones((N, 3)), "must not be negative, got -1 for output 0 of row 0"),
        (np.zeros((N, 3)), np.zeros((N, 3)), "at least one non-zero"),
        (np.zeros((N, 3)), np.full((N, 3), np.nan), "sample_weight contains NaN"),
        (np.zeros((N, 3)), [[1, 1, 1]] * (N - 1) + [[1]], "sample_weight must have .* lengths from 1 to 3"),
        (np.zeros((N, 3)), np.eye(N)[:, :3] * 0 + np.eye(3)[[1]], r"all targets of the outputs \[0, 2\]"),
        (None, np.ones((N, 3)), "requires y to be passed"),
        (np.full((N, 3), np.nan), np.ones((N, 3)), "NaN"),
    ],
)
def test_what_does_not_fit_is_named(y, weight, message):
    X = problem()[0]
    with pytest.raises(ValueError, match=message):
        model("regression").fit(X, y, weight)


def test_classes_have_no_weights_of_outputs():
    X = problem()[0]
    with pytest.raises(ValueError, match="one number or class per row"):
        model("labels").fit(X, np.arange(N) % 3, np.ones((N, 3)))
    network = Network((INPUTS, 3), out_activation="softmax", random_state=0, dtype="float64")
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        network.loss_gradient(X, np.arange(N) % 3, np.ones((N, 3)))


def test_a_gap_without_weights_says_what_to_do():
    X, y, weight = problem()
    with pytest.raises(ValueError, match=r"sample_weight=np\.isfinite"):
        model("regression").fit(X, spoilt(y, weight))


MULTILABEL_METRICS = [
    None, "accuracy", "f1_macro", "f1_weighted", "f1_micro", "f1_samples", "precision_micro", "recall_weighted",
    "jaccard_macro", "roc_auc",
    "roc_auc_ovr_weighted", "average_precision", "neg_log_loss",
    make_scorer(fbeta_score, beta=2, average="macro", labels=[0, 2]),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("metric", MULTILABEL_METRICS)
def test_score_by_equal_weights_of_labels_is_that_by_weights_of_rows(metric):
    X, y, _ = problem("labels")
    of_rows = np.random.RandomState(0).uniform(0.2, 2, N) * (np.arange(N) % 4 > 0)
    scores = [
        model("labels", max_iter=2, validation_metric=metric)
        .fit(X, y, eval_set=(X, y), sample_weight_eval=each)
        .validation_scores_
        for each in (of_rows, np.repeat(of_rows[:, None], OUTPUTS, axis=1))
    ]
    np.testing.assert_allclose(*scores, rtol=1e-12)


@pytest.mark.parametrize("average", ["macro", "weighted", "micro"])
@pytest.mark.parametrize("function", [f1_score, precision_score, recall_score, jaccard_score, roc_auc_score])
def test_averages_over_labels_are_those_of_scikit_learn(function, average):
    X, y, weight = problem("labels")
    X_val, y_val = X[:40], y[:40]
    weight = np.repeat(np.arange(1.0, 41.0)[:, None], OUTPUTS, axis=1)
    method = "predict_proba" if function is roc_auc_score else "predict"
    scorer = make_scorer(function, average=average, response_method=method)
    arguments = {"eval_set": (X_val, y_val), "sample_weight_eval": weight}
    fitted = model("labels", max_iter=2, validation_metric=scorer).fit(X, y, **arguments)
    want = fitted.validation_scores_[-1]
    # Weights that differ in one row, too little to change the score.
    weight[0, 0] *= 1 + 1e-9
    fitted = model("labels", max_iter=2, validation_metric=scorer).fit(X, y, **arguments)
    assert fitted.validation_scores_[-1] == pytest.approx(want, rel=1e-7)


def test_plain_and_macro_metrics_are_the_mean_over_labels():
    X, y, weight = problem("labels")
    scores = {
        metric: model("labels", max_iter=2, validation_metric=metric).fit(
            X, y, eval_set=(X, spoilt(y, weight)), sample_weight_eval=weight
        )
        for metric in ("f1", "f1_macro")
    }
    known = [np.flatnonzero(column) for column in weight.T]
    p = scores["f1"].predict(X)
    want = np.mean([f1_score(y[r, o], p[r, o], sample_weight=weight[r, o]) for o, r in enumerate(known)])
    for fitted in scores.values():
        assert fitted.validation_scores_[-1] == pytest.approx(want)


def test_a_mean_over_rows_does_not_take_weights_of_outputs():
    X, y, weight = problem("labels")
    with pytest.raises(ValueError, match=r"validation_metric='f1_samples' .*'f1_macro'"):
        model("labels", validation_metric="f1_samples").fit(X, y, eval_set=(X, y), sample_weight_eval=weight)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "metric",
    [
        name
        for name in ("neg_log_loss", "d2_log_loss_score", "neg_brier_score", "roc_auc")
        if name in get_scorer_names()
    ],
)
def test_a_label_that_no_row_to_score_on_has(metric):
    X, y, weight = problem("labels")
    y[:, 2] = np.arange(N) < 3
    rows = slice(10, N)
    fitted = model("labels", max_iter=2, validation_metric=metric).fit(
        X, y, weight, eval_set=(X[rows], y[rows]), sample_weight_eval=weight[rows]
    )
    assert np.isfinite(fitted.validation_scores_).all()
    if metric == "neg_log_loss":
        p = fitted.predict_proba(X[rows])
        want = [
            -log_loss(y[rows][known, o], p[known, o], labels=[0, 1], sample_weight=weight[rows][known, o])
            for o, known in enumerate(weight[rows].T != 0)
        ]
        assert fitted.validation_scores_[-1] == pytest.approx(np.mean(want))


def truth_values(form: str, y: np.ndarray, weight: np.ndarray):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(y.astype(bool), columns=["a", "b", "c"])
    gaps = weight == 0
    return {
        "bool": lambda: frame,
        "boolean": lambda: frame.astype("boolean"),
        "boolean with NA": lambda: frame.astype("boolean").mask(gaps, pandas.NA),
        "one boolean": lambda: frame.assign(a=frame["a"].astype("boolean").mask(gaps[:, 0], pandas.NA)),
        "objects with None": lambda: pandas.DataFrame(np.where(gaps, None, y.astype(bool).astype(object))),
        "objects with NaN": lambda: pandas.DataFrame(np.where(gaps, np.nan, y.astype(bool).astype(object))),
        "category": lambda: pandas.DataFrame(y.astype(int)).astype("category"),
        "sparse columns": lambda: pandas.DataFrame.sparse.from_spmatrix(csr_array(y.astype(int))),
        "mixed": lambda: frame.assign(a=np.where(gaps[:, 0], np.nan, y[:, 0]), b=y[:, 1].astype(int)),
        "array of objects": lambda: np.where(gaps, None, y.astype(bool).astype(object)),
        "lists": lambda: np.where(gaps, None, y.astype(int).astype(object)).tolist(),
    }[form]()


FORMS = [
    "bool", "boolean", "boolean with NA", "one boolean", "objects with None", "objects with NaN", "category", "mixed",
    "array of objects",
    "lists", "sparse columns",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_truth_values_with_gaps(form):
    X, y, weight = problem("labels")
    given = truth_values(form, y, weight)
    want = model("labels").fit(X, y, weight)
    np.testing.assert_array_equal(parameters_of(model("labels").fit(X, given, weight)), parameters_of(want))
    arguments = {"classes": np.arange(OUTPUTS)}
    a, b = (model("labels").partial_fit(X, labels, sample_weight=weight, **arguments) for labels in (y, given))
    np.testing.assert_array_equal(parameters_of(a), parameters_of(b))
    assert want.score(X, given, weight) == want.score(X, y, weight)
    if form.startswith("bool"):
        numbers = model("regression").fit(X, given, weight)
        np.testing.assert_array_equal(parameters_of(numbers), parameters_of(model("regression").fit(X, y, weight)))


@pytest.mark.parametrize("form", ["bool", "boolean with NA"])
@pytest.mark.parametrize("kind", ["table", "ensemble"])
def test_truth_values_with_gaps_for_several_networks(kind, form):
    X, y, weight = problem("labels")
    a, b = (
        (
            TabularClassifier(hidden_layer_sizes=(8,), max_iter=3, n_folds=2, random_state=0)
            if kind == "table"
            else MLPEnsembleClassifier(model("labels"), n_estimators=2, random_state=0)
        ).fit(X, labels, weight)
        for labels in (y, truth_values(form, y, weight))
    )
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))


def test_a_gap_of_weight_in_a_frame_of_truth_values_is_an_error():
    X, y, weight = problem("labels")
    frame = truth_values("boolean with NA", y, weight)
    weight = weight.copy()
    weight[np.argwhere(weight == 0)[0, 0]] = 1
    with pytest.raises(ValueError, match="NaN"):
        model("labels").fit(X, frame, weight)


@pytest.mark.parametrize("kind", ["regression", "labels"])
def test_all_targets_of_an_output_left_out(kind):
    X, y, weight = problem(kind)
    weight[:, 1] = 0
    ensemble = (MLPEnsembleRegressor if kind == "regression" else MLPEnsembleClassifier)(model(kind), n_estimators=2)
    table = (TabularRegressor if kind == "regression" else TabularClassifier)(n_folds=2, max_iter=2)
    for estimator in (model(kind), ensemble, table):
        with pytest.raises(ValueError, match=r"sample_weight leaves out all targets of the outputs \[1\]"):
            estimator.fit(X, y, weight)
    model(kind).partial_fit(X, y, sample_weight=weight, **({} if kind == "regression" else {"classes": [0, 1, 2]}))


def test_score_takes_weights_of_outputs():
    X, y, weight = problem()
    fitted, known = model("regression").fit(X, y), [np.flatnonzero(column) for column in weight.T]
    p = fitted.predict(X)
    want = np.mean([r2_score(y[r, o], p[r, o], sample_weight=weight[r, o]) for o, r in enumerate(known)])
    assert fitted.score(X, spoilt(y, weight), weight) == pytest.approx(want)
    of_rows = weight[:, :1] + 0.1
    assert fitted.score(X, y, np.repeat(of_rows, OUTPUTS, axis=1)) == fitted.score(X, y, of_rows[:, 0])
    for other in ((X[:5], y, weight), (X, y[:, :2], weight[:, :2])):
        with pytest.raises(ValueError, match=r"y must have the shape of predict\(X\)"):
            fitted.score(*other)

    X, y, weight = problem("labels")
    fitted = model("labels").fit(X, y)
    p = fitted.predict(X)
    want = np.mean([accuracy_score(y[r, o], p[r, o], sample_weight=weight[r, o]) for o, r in enumerate(known)])
    for given in (spoilt(y, weight), csr_array(y)):
        assert fitted.score(X, given, weight) == pytest.approx(want)
    assert fitted.score(X, y, np.ones_like(y)) == fitted.score(X, y)
    with pytest.raises(ValueError, match="NaN"):
        fitted.score(X, np.where(weight == 0, y, np.nan), weight)
    assert get_scorer("accuracy")(fitted, X, y, sample_weight=weight[:, 0]) == fitted.score(X, y, weight[:, 0])


def test_advice_suits_the_shape():
    X, y, weight = problem()
    for gaps in (np.where(y[:, 0] > 0, np.nan, y[:, 0]), np.where(y[:, :1] > 0, np.nan, y[:, :1])):
        for given in (gaps, np.ma.masked_invalid(gaps)):
            with pytest.raises(ValueError, match=r"[Ll]eave out such (rows|targets)") as caught:
                model("regression").fit(X, given)
            assert "sample_weight" not in str(caught.value)
    with pytest.raises(ValueError, match=r"sample_weight=~numpy\.ma\.getmaskarray\(y\)"):
        model("regression").fit(X, np.ma.masked_array(y, weight == 0))
    labels = spoilt(problem("labels")[1], weight)
    for given in (labels, np.where(weight == 0, None, labels.astype(object))):
        with pytest.raises((ValueError, TypeError), match=r"sample_weight=pandas\.notna\(y\)"):
            model("labels").fit(X, given)
    with pytest.raises(ValueError, match=r"sample_weight\.filled\(0\)"):
        model("regression").fit(X, y, np.ma.masked_array(weight, weight == 0))
    with pytest.raises((ValueError, TypeError), match="Leave out rows without a label"):
        model("labels").fit(X, labels[:, 0])


def test_weights_that_are_no_numbers_name_the_argument():
    pandas = pytest.importorskip("pandas")
    X, y, weight = problem()
    with pytest.raises(TypeError, match=r"sample_weight must be dense.*sample_weight\.toarray"):
        model("regression").fit(X, y, csr_array(weight))
    frame = pandas.DataFrame(weight).convert_dtypes().mask(weight == 0, pandas.NA)
    for given in (frame, frame.astype(object), np.where(weight == 0, pandas.NA, weight.astype(object))):
        with pytest.raises((ValueError, TypeError), match="sample_weight"):
            model("regression").fit(X, y, given)


def test_a_masked_value_of_a_row_names_its_feature():
    X, y, _ = problem()
    row = np.ma.masked_array(X[0], np.arange(INPUTS) == 2)
    with pytest.raises(ValueError, match=r"masked values, the first that of feature 2\. Fill them first"):
        RowPredictor(model("regression").fit(X, y)).predict(row)
